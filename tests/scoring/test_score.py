"""score() from checkpoints to scores, against a two-pass reference on float64 autograd gradients."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

import vogcore
from vogcore.data import Preprocess
from vogcore.errors import ModelError, SettingsError, VogcoreWarning
from vogcore.scoring import Settings, sessions
from vogcore.store import open_gradients

from .models import (
    CLASSES,
    CNN_SHAPES,
    FEATURES,
    IMAGE,
    LENGTH,
    MLP_SHAPES,
    WIDTH,
    WORDS,
    autograd,
    by_class,
    close,
    cnn,
    examples,
    mlp,
    mlps,
    save,
    tokens,
    two_pass,
    walk,
)

MODELS = {"mlp": (mlp, MLP_SHAPES, (FEATURES,), None), "cnn": (cnn, CNN_SHAPES, IMAGE, 1)}
THIRDS = {"all": slice(None), "early": slice(0, 3), "middle": slice(3, 5), "late": slice(5, 7)}


@pytest.fixture(scope="module", params=MODELS)
def run(request):
    make, shapes, shape, axis = MODELS[request.param]
    weights = walk(shapes, 7)
    x, y = examples(40, shape)
    gradients, logits = autograd(request.param, weights, x, y)
    return [make(w) for w in weights], x, y, gradients, logits, axis


def test_every_stage_agrees_with_two_passes_over_autograd(run):
    models, x, y, gradients, logits, axis = run
    scores = vogcore.score(models, x, y)
    assert list(scores.stages) == list(THIRDS)
    for name, window in THIRDS.items():
        raw = two_pass(gradients[window], axis)
        stage = scores.stage(name)
        np.testing.assert_allclose(stage.vog_raw, raw, rtol=1e-5)
        close(stage.vog, by_class(raw, y))
        s = gradients[window] if axis is None else gradients[window].mean(axis + 1)
        size = np.abs(s).reshape(len(s), len(x), -1).mean((0, 2))
        np.testing.assert_allclose(stage.mean_abs_gradient, size, rtol=1e-5)
        np.testing.assert_allclose(stage.vog_relative, raw / size, rtol=1e-5)
        np.testing.assert_allclose(stage.class_mean, [raw[y == c].mean() for c in range(CLASSES)], rtol=1e-5)
        np.testing.assert_allclose(stage.class_std, [raw[y == c].std() for c in range(CLASSES)], rtol=1e-4)
    np.testing.assert_array_equal(scores.predictions_class, logits.argmax(2))
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    chosen = p[:, np.arange(len(y)), y]
    np.testing.assert_allclose(scores.predictions_label_probability, chosen, rtol=1e-5)
    np.testing.assert_allclose(scores.companions["loss"].values, -np.log(chosen[-1]), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(scores.companions["correct"].values, logits[-1].argmax(1) == y)
    np.testing.assert_array_equal(scores.labels, y)
    np.testing.assert_array_equal(scores.class_count, np.bincount(y))
    assert scores.settings["channel_axis"] == axis


@pytest.mark.parametrize("batch", [1, 3, 7, 40, 1000])
def test_batch_size_changes_rounding_at_most(run, batch):
    models, x, y, *_ = run
    got, want = (vogcore.score(models, x, y, batch_size=size) for size in (batch, None))
    for name in want.stages:
        np.testing.assert_allclose(got.stage(name).vog_raw, want.stage(name).vog_raw, rtol=2e-6)
        close(got.stage(name).vog, want.stage(name).vog)
    assert got.settings["batch_size"] == batch


def test_memory_does_not_change_a_bit_and_neither_does_a_second_run(run, tmp_path):
    models, x, y, *_ = run
    counted = []

    class Count:
        def start(self, total, text):
            counted.append(total)

        def advance(self, count):
            counted.append(-count)

        def close(self):
            counted.append(0)

    want = vogcore.score(models, x, y, batch_size=4)
    pixels = int(np.prod(x.shape[1:]))
    for memory in (1 << 30, 4 * 5 * 8 * pixels * 8, 17 * 5 * 8 * pixels * 8):
        got = vogcore.score(models, x, y, batch_size=4, memory=memory, out=tmp_path / f"{memory}.h5", progress=Count())
        for name in want.stages:
            for score in ("vog", "vog_raw", "vog_relative", "mean_abs_gradient", "class_mean", "class_std"):
                np.testing.assert_array_equal(
                    getattr(got.stage(name), score), getattr(want.stage(name), score), err_msg=score
                )
        np.testing.assert_array_equal(got.companions["loss"].values, want.companions["loss"].values)
    assert sum(counted) == 0
    assert counted[-1] == 0
    assert counted[0] == len(models) * len(x)


def test_blocks_smaller_than_a_batch_are_computed_too(run):
    models, x, y, *_ = run
    want, got = vogcore.score(models, x, y), vogcore.score(models, x, y, memory=1)
    np.testing.assert_allclose(got.vog_raw, want.vog_raw, rtol=2e-6)


@pytest.mark.parametrize("target", ["label", "predicted"])
def test_every_session_is_made_once(target, monkeypatch):
    """One for each checkpoint, that of the first for the check as well, where no other has to be made in between."""
    made = []

    class Counted(sessions.GradientSession):
        def __init__(self, *arguments, **options) -> None:
            made.append(options["where"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(sessions, "GradientSession", Counted)
    models = [mlp(weights) for weights in walk(MLP_SHAPES, 3)]
    vogcore.score(
        models, np.random.default_rng(0).normal(size=(5, FEATURES)).astype(np.float32), [0] * 5, target=target
    )
    assert len(made) == (3 if target == "label" else 4)
    assert len(set(made)) == 3


def test_order_of_examples_goes_through_to_the_scores(run):
    models, x, y, *_ = run
    order = np.random.default_rng(5).permutation(len(x))
    want, got = vogcore.score(models, x, y), vogcore.score(models, x[order], y[order])
    for name in want.stages:
        np.testing.assert_allclose(got.stage(name).vog_raw, want.stage(name).vog_raw[order], rtol=2e-6)
        close(got.stage(name).vog, want.stage(name).vog[order])


@pytest.mark.parametrize("of", ["logit", "probability", "loss"])
@pytest.mark.parametrize("target", ["label", "predicted", "predicted first", 2])
def test_targets_and_what_is_differentiated(of, target):
    weights = walk(MLP_SHAPES, 4)
    x, y = examples(30)
    _, logits = autograd("mlp", weights, x, y)
    at, index = target, -1
    if target == "predicted first":
        at, index = "predicted", 0
    chosen = {"label": y, 2: np.full(30, 2), "predicted": logits[index].argmax(1)}[at]
    raw = two_pass(autograd("mlp", weights, x, chosen, of)[0])
    models = [mlp(w) for w in weights]
    scores = vogcore.score(models, x, y, of=of, target=at, target_checkpoint=index)
    np.testing.assert_allclose(scores.vog_raw, raw, rtol=2e-5)
    close(scores.vog, by_class(raw, y), 2e-5)
    assert scores.direction.n_examples == 30
    if at == "label":
        return
    unlabelled = vogcore.score(models, x, of=of, target=at, target_checkpoint=index)
    np.testing.assert_array_equal(unlabelled.vog_raw, scores.vog_raw)
    close(unlabelled.vog, by_class(raw, chosen), 2e-5)
    assert unlabelled.direction.measured == "not measured"
    assert unlabelled.predictions_label_probability is None
    assert not unlabelled.companions
    assert (unlabelled.labels == -1).all()
    assert unlabelled.settings["classes_from"] == "target"
    np.testing.assert_array_equal(unlabelled.predictions_class, logits.argmax(2))


@pytest.mark.parametrize("softmax", [False, True])
def test_the_softmax_at_the_end_is_looked_through(softmax):
    weights = walk(MLP_SHAPES, 3)
    x, y = examples(20)
    scores = vogcore.score([mlp(w, softmax=softmax) for w in weights], x, y)
    np.testing.assert_allclose(scores.vog_raw, two_pass(autograd("mlp", weights, x, y)[0]), rtol=1e-5)


def test_preprocessing_comes_before_the_gradient():
    weights = walk(CNN_SHAPES, 3)
    rng = np.random.default_rng(0)
    stored, y = rng.integers(0, 256, (20, 6, 5, 2), dtype=np.uint8), np.arange(20) % CLASSES
    preprocess = Preprocess(scale=1 / 255, mean=[0.5, 0.4], std=[0.2, 0.3], layout="nhwc->nchw")
    model_input = ((stored / 255 - [0.5, 0.4]) / [0.2, 0.3]).transpose(0, 3, 1, 2)
    scores = vogcore.score([cnn(w) for w in weights], stored, y, preprocess=preprocess)
    raw = two_pass(autograd("cnn", weights, model_input, y)[0], 1)
    assert np.median(np.abs(scores.vog_raw / raw - 1)) < 1e-5
    np.testing.assert_allclose(scores.vog_raw, raw, rtol=1e-4)
    assert scores.settings["preprocess"]["layout"] == "nhwc->nchw"


@pytest.mark.parametrize("batch", ["N", 4])
@pytest.mark.parametrize("element", [TensorProto.INT64, TensorProto.INT32])
def test_integer_tokens_are_scored_at_the_embedding(element, batch, tmp_path):
    weights = walk({"table": (WORDS, WIDTH), "w": (WIDTH, CLASSES)}, 6)
    models = [tokens(w, element, batch) for w in weights]
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, WORDS, (22, LENGTH), dtype=np.int32), np.arange(22) % CLASSES
    raw = two_pass(autograd("tokens", weights, x, y)[0])
    np.savez(tmp_path / "tokens.npz", x=x, y=y)
    kept = tmp_path / f"{batch}.h5"
    for data, labels in ((x, y), (x.astype(np.uint8), y), (x.astype(np.int64), y), (tmp_path / "tokens.npz", None)):
        scores = vogcore.score(models, data, labels, wrt="embedded", keep_gradients=kept, overwrite=True)
        np.testing.assert_allclose(scores.vog_raw, raw, rtol=1e-5)
        close(scores.vog, by_class(raw, y))
    assert scores.settings["wrt"] == "embedded"
    with open_gradients(kept) as archive:
        assert archive.shape == (LENGTH, WIDTH)
    predicted = vogcore.score(models, x, wrt="embedded", target="predicted", batch_size=5)
    chosen = autograd("tokens", weights, x, y)[1][-1].argmax(1)
    np.testing.assert_allclose(predicted.vog_raw, two_pass(autograd("tokens", weights, x, chosen)[0]), rtol=1e-5)
    with pytest.raises(ModelError, match=r"^checkpoint 0: The input 'tokens' has type int.*wrt="):
        vogcore.score(models, x, y)


def test_kept_gradients_give_the_same_bits_again(run, tmp_path):
    models, x, y, *_ = run
    paths = save(models, tmp_path)
    ids = np.array([f"image {i}" for i in range(len(x))])
    kept = tmp_path / "gradients.h5"
    scores = vogcore.score(paths, x, y, ids=ids, class_names=["a", "b", "c"], keep_gradients=kept)
    again = vogcore.score_gradients(kept)
    for name in scores.stages:
        for score in ("vog", "vog_raw", "vog_relative", "mean_abs_gradient", "class_mean", "class_std"):
            np.testing.assert_array_equal(getattr(scores.stage(name), score), getattr(again.stage(name), score))
        assert scores.stage(name).directions == again.stage(name).directions
    assert again.direction.n_examples == len(x)
    np.testing.assert_array_equal(scores.predictions_class, again.predictions_class)
    np.testing.assert_array_equal(scores.predictions_label_probability, again.predictions_label_probability)
    np.testing.assert_array_equal(scores.companions["loss"].values, again.companions["loss"].values)
    assert again.ids.tolist() == ids.tolist()
    assert again.classes == ["a", "b", "c"]
    assert [c.name for c in again.checkpoints] == [path.name for path in paths]
    assert [c.sha256 for c in again.checkpoints] == [c.sha256 for c in scores.checkpoints]
    assert again.settings["data"]["sha256"] == scores.settings["data"]["sha256"]


@pytest.mark.parametrize("target", ["predicted", 1])
def test_kept_gradients_of_unlabelled_examples_remember_their_classes(target, tmp_path):
    x, _ = examples(25)
    kept = tmp_path / "gradients.h5"
    scores = vogcore.score(mlps(4), x, target=target, target_checkpoint=1, keep_gradients=kept)
    again = vogcore.score_gradients(kept)
    np.testing.assert_array_equal(again.vog, scores.vog)
    np.testing.assert_array_equal(again.class_count, scores.class_count)
    assert again.classes == scores.classes
    with open_gradients(kept) as archive:
        assert archive.labels is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_archives_are_close(dtype, tmp_path):
    x, y = examples(25)
    scores = vogcore.score(mlps(5), x, y, keep_gradients=tmp_path / "g.h5", keep_dtype=dtype)
    again = vogcore.score_gradients(tmp_path / "g.h5")
    np.testing.assert_allclose(again.vog_raw, scores.vog_raw, rtol={"float16": 2e-3, "bfloat16": 2e-2}[dtype])
    assert not np.array_equal(again.vog_raw, scores.vog_raw)


def test_settings_and_provenance_are_in_the_file(tmp_path):
    paths = save(mlps(3, metadata={"vogcore.class_names": '["x", "y", "z"]'}), tmp_path)
    x, y = examples(20)
    scores = vogcore.score(paths, x, y, out=tmp_path / "s.h5", target_checkpoint=np.int64(1), moments="float32")
    stored = vogcore.open_scores(tmp_path / "s.h5")
    assert stored.settings == scores.settings
    assert stored.settings["target_checkpoint"] == 1
    assert stored.settings["moments"] == "float32"
    assert stored.settings["data"]["shape"] == [20, FEATURES]
    assert stored.settings["stages"] == {"all": [0, 1, 2]}
    assert stored.classes == ["x", "y", "z"]
    assert stored.timings["total"] > 0
    np.testing.assert_array_equal(stored.vog, scores.vog)
    np.testing.assert_allclose(stored.vog_raw, vogcore.score(paths, x, y).vog_raw, rtol=1e-5)


def test_recorded_class_names_that_do_not_fit_are_left_out():
    x, y = examples(20)
    for names in ('["x", "y"]', '["x", "x", "y"]', '["x", "y", "a\\u0000b"]', "{}", "nonsense"):
        models = mlps(2, metadata={"vogcore.class_names": names})
        assert vogcore.score(models, x, y).classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"of": "logits"}, {"target": "labels"}, {"target": -1}, {"target": True}, {"target": 1.0},
        {"channels": "sum"}, {"reduction": "variance"}, {"scale": "log"}, {"normalise": "z"}, {"moments": "float16"},
        {"target_checkpoint": "last"}, {"channel_axis": 1.5}, {"statistics": "s.h5", "normalise": "none"},
    ],
)  # fmt: skip
def test_unknown_settings_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.0}, "batch_size=2.0"),
        ({"memory": 0}, "memory=0"),
        ({"threads": 100_000}, "threads=100000 is not possible; give a number from 1 to 1024"),
        ({"target": 3}, "target=3 is not a class of the model, which has 3 classes"),
        ({"target": "predicted", "target_checkpoint": 3}, r"target_checkpoint=3 does not exist; there are 3 \(0 to 2"),
        ({"stages": {"x": [0]}}, "Stage 'x' has 1 of the 3 checkpoints"),
        ({"channel_axis": 2}, "channel_axis=2 is not an axis"),
    ],
)
def test_settings_that_do_not_fit_the_run_are_refused(wrong, message):
    x, y = examples(10)
    with pytest.raises(SettingsError, match=message):
        vogcore.score(mlps(3), x, y, **wrong)


def test_notes_on_the_checkpoints_come_before_the_work():
    first, second = mlps(2)
    x, y = examples(10)

    class Never:
        def start(self, total, text):
            raise AssertionError

        advance = close = start

    # Warnings are errors in these tests: the run ends where the warning is given.
    with pytest.raises(VogcoreWarning, match="Checkpoints checkpoint 0 and checkpoint 2 have identical weights"):
        vogcore.score([first, second, first], x, y, progress=Never())
