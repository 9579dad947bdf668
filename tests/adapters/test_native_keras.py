"""Gradients of Keras models by their backend, against finite differences and JAX or torch. Needs Keras (`make native`).

The backend is that of the environment variable KERAS_BACKEND.
"""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs Keras, which `make native` brings")

import vogcore  # noqa: E402
from vogcore.errors import CheckpointError, DataError, ModelError, VogcoreWarning  # noqa: E402
from vogcore.scoring.native import send, stream  # noqa: E402
from vogcore.store import open_gradients  # noqa: E402
from vogcore_adapters.native_keras import checkpoint_gradients, input_gradients  # noqa: E402

try:
    keras.ops.ones(1)
except ImportError:
    pytest.skip("the backend of Keras is not installed", allow_module_level=True)

N, CLASSES = 90, 3


def network(softmax: bool) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, activation="softmax" if softmax else None),
        ]
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 6, 6, 2)).astype(np.float32), rng.integers(0, CLASSES, N)


def whole(blocks):
    return [np.concatenate(parts) for parts in zip(*(block[1:] for block in blocks), strict=True)]


def test_against_finite_differences(data):
    model, (images, labels) = network(softmax=False), data
    gradients, logits = whole(input_gradients(model, images, labels, batch_size=40))
    np.testing.assert_allclose(logits, np.asarray(model.predict(images, verbose=0)), rtol=1e-3, atol=1e-5)
    direction = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    step, rows = 1e-2, np.arange(N)
    ends = [np.asarray(model.predict(images + s * step * direction, verbose=0))[rows, labels] for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose((gradients * direction).sum(axis=(1, 2, 3)), slope, rtol=1e-2, atol=2e-3)


def test_a_softmax_at_the_end_is_left_off_and_comes_back(data):
    plain, model = network(softmax=False), network(softmax=True)
    model.set_weights(plain.get_weights())
    before = np.asarray(model.predict(data[0], verbose=0))
    for of in ("logit", "loss"):
        for found, wanted in zip(
            whole(input_gradients(model, *data, of=of)), whole(input_gradients(plain, *data, of=of)), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert model.layers[-1].activation is keras.activations.softmax
    np.testing.assert_array_equal(np.asarray(model.predict(data[0], verbose=0)), before)


def test_live_in_fit_and_files_of_weights_give_the_same_scores(data, tmp_path):
    images, labels = data
    model = network(softmax=True)
    model.compile("adam", "sparse_categorical_crossentropy")

    class Score(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            live.add(f"{epoch}.weights.h5", input_gradients(self.model, images, labels), epoch=epoch)
            self.model.save_weights(tmp_path / f"{epoch}.weights.h5")

    with vogcore.LiveScorer(tmp_path / "live", N, (6, 6, 2), labels=labels) as live:
        model.fit(images, labels, epochs=3, verbose=0, callbacks=[Score()])
        scores = live.scores()
    files = [tmp_path / f"{epoch}.weights.h5" for epoch in range(3)]
    found = vogcore.score_gradients(stream(checkpoint_gradients(model, files, images, labels)), labels)
    np.testing.assert_allclose(found.vog_raw, scores.vog_raw, rtol=1e-5)
    assert found.direction.measured == scores.direction.measured
    with vogcore.GradientWriter(tmp_path / "g.h5", N, (6, 6, 2), labels=labels, channel_axis=3) as writer:
        send(
            checkpoint_gradients(model, [("a", model.get_weights()), ("b", network(True).get_weights())], *data), writer
        )
    assert len(vogcore.score_gradients(tmp_path / "g.h5").checkpoints) == 2


def test_in_the_middle_of_an_epoch_the_model_is_the_one_of_that_step(data):
    """On JAX its variables lag behind the training until the epoch ends, or until a callback asks for its own model."""
    model, found = network(softmax=True), {}
    model.compile("sgd", "sparse_categorical_crossentropy")

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found[batch] = whole(input_gradients(model, *data))[0]

        def on_epoch_end(self, epoch, logs=None):
            found["end"] = whole(input_gradients(model, *data))[0]

    model.fit(*data, batch_size=30, verbose=0, callbacks=[Note()])
    np.testing.assert_array_equal(found[2], found["end"])
    assert np.abs(found[1] - found[0]).max() > 1e-5


def test_what_cannot_be_used(data, tmp_path):
    images, labels = data
    model = network(softmax=False)
    ends = keras.Sequential([*network(softmax=False).layers, keras.layers.Softmax()])
    with pytest.raises(ModelError, match="a softmax, and the score"):
        list(input_gradients(ends, images, labels))
    with pytest.raises(DataError, match="has the target class 3"):
        list(input_gradients(model, images, labels + 1))
    with pytest.raises(ModelError, match="must return logits"):
        list(input_gradients(keras.Sequential(model.layers[:2]), images, labels))
    as_function = keras.Sequential([*network(softmax=False).layers, keras.layers.Lambda(keras.ops.softmax)])
    with pytest.warns(VogcoreWarning, match="returns probabilities"):
        list(input_gradients(as_function, images, labels))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        list(stream(checkpoint_gradients(model, [("a", model.get_weights()[:1])], images, labels)))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        list(stream(checkpoint_gradients(model, [tmp_path / "none.weights.h5"], images, labels)))


def test_the_same_gradients_as_by_way_of_onnx(data, tmp_path):
    pytest.importorskip("tf2onnx")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf2onnx exports models of TensorFlow")
    model, paths, native = network(softmax=True), [], []
    model(data[0][:2])
    for k in range(2):
        model.set_weights([np.random.default_rng(k).uniform(0.1, 0.5, w.shape) for w in model.get_weights()])
        paths.append(tmp_path / f"{k}.onnx")
        model.export(paths[-1], format="onnx", verbose=False)
        native.append(whole(input_gradients(model, *data))[0])
    wanted = vogcore.score(paths, *data, keep_gradients=tmp_path / "g.h5", provider="cpu")
    with open_gradients(tmp_path / "g.h5") as archive:
        for k in range(2):
            kept = archive.read(k, 0, N)
            error = np.abs(native[k] - kept).max(axis=(1, 2, 3)) / np.abs(kept).max(axis=(1, 2, 3))
            assert np.median(error) < 1e-4
    found = vogcore.score_gradients(np.stack(native), data[1])
    np.testing.assert_allclose(found.vog_raw, wanted.vog_raw, rtol=1e-4)
