"""Checkpoints that cannot be scored, or only with a choice: found before the run, named, and nothing left behind."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import vogcore
from vogcore.errors import CheckpointError, DataError, GradientError, ModelError, VogcoreWarning
from vogcore.scoring.checkpoints import find_checkpoints, natural_key

from .models import (
    CLASSES,
    FEATURES,
    MLP_SHAPES,
    autograd,
    build,
    close,
    examples,
    mlp,
    mlps,
    save,
    two_pass,
    walk,
)

X, Y = examples(20)


@pytest.fixture
def refused(tmp_path):
    """Checks that score() refuses, in one sentence, and leaves no file."""

    def check(checkpoints, error, message, x=X, y=Y, **options):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        with pytest.raises(error, match=message) as caught:
            vogcore.score(checkpoints, x, y, out=folder / "s.h5", **options)
        assert "\n" not in str(caught.value)
        assert not list(folder.iterdir())

    return check


def test_too_few_checkpoints(refused, tmp_path):
    (path,) = save(mlps(1), tmp_path)
    refused([], CheckpointError, "There is no checkpoint,")
    refused([path], CheckpointError, r"There is 1 checkpoint \(ckpt-1.onnx\)")
    refused(path, CheckpointError, r"There is 1 checkpoint \(ckpt-1.onnx\)")
    refused(mlps(1)[0], CheckpointError, "One model was given")
    refused(str(tmp_path / "epoch-*.onnx"), CheckpointError, "No checkpoint matches '.*epoch-.*quote a pattern")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", CheckpointError, "No checkpoint matches")
    refused([path, tmp_path / "gone.onnx"], ModelError, "gone.onnx does not exist")
    refused(3, CheckpointError, "given as int")
    refused([path, None], CheckpointError, "Checkpoint 1 is a NoneType")


def test_patterns_and_folders_are_put_in_the_order_of_training(tmp_path):
    save(mlps(12), tmp_path)
    natural = [f"ckpt-{i}.onnx" for i in range(1, 13)]
    for given in (tmp_path, str(tmp_path), str(tmp_path / "ckpt-*.onnx"), str(tmp_path / "**" / "*.onnx")):
        found, notes = find_checkpoints(given)
        assert [c.name for c in found] == natural
        assert not notes
    listed, _ = find_checkpoints([tmp_path / "ckpt-10.onnx", tmp_path / "ckpt-2.onnx"])
    assert [c.name for c in listed] == ["ckpt-10.onnx", "ckpt-2.onnx"]
    assert sorted(["a10", "a9", "B1", "a"], key=natural_key) == ["a", "a9", "a10", "B1"]


def test_recorded_steps_come_before_names(tmp_path):
    weights = walk(MLP_SHAPES, 3)
    for name, step, w in zip(("best", "last", "first"), (200, 300, 100), weights):
        onnx.save(mlp(w, metadata={"vogcore.step": str(step), "vogcore.epoch": "7"}), tmp_path / f"{name}.onnx")
    scores = vogcore.score(tmp_path, X, Y, out=tmp_path / "s.h5")
    assert [(c.name, c.step, c.epoch) for c in scores.checkpoints] == [
        ("first.onnx", 100, 7), ("best.onnx", 200, 7), ("last.onnx", 300, 7),
    ]  # fmt: skip
    assert vogcore.open_scores(tmp_path / "s.h5").checkpoints == scores.checkpoints
    for step in ("9" * 40, "-1", "1.5", "x"):  # nothing that int64 holds: as if there were none
        onnx.save(mlp(weights[0], metadata={"vogcore.step": step}), tmp_path / "best.onnx")
        found, _ = find_checkpoints(tmp_path)
        assert [c.name for c in found] == ["best.onnx", "first.onnx", "last.onnx"]
        assert found[0].step is None


def test_checkpoints_of_one_file_name_are_told_apart(tmp_path):
    for index, model in enumerate(mlps(11)):
        (tmp_path / f"epoch-{index}").mkdir()
        onnx.save(model, tmp_path / f"epoch-{index}" / "model.onnx")
    scores = vogcore.score(str(tmp_path / "*" / "model.onnx"), X, Y, keep_gradients=tmp_path / "g.h5")
    assert [c.name for c in scores.checkpoints] == [f"epoch-{i}/model.onnx" for i in range(11)]
    assert [c.name for c in vogcore.score_gradients(tmp_path / "g.h5").checkpoints][10] == "epoch-10/model.onnx"
    path = tmp_path / "epoch-1" / "model.onnx"
    with pytest.warns(VogcoreWarning, match=r"model.onnx and model.onnx \(2\) have identical weights"):
        scores = vogcore.score([path, path, mlps(2)[0]], X, Y)
    assert [c.name for c in scores.checkpoints] == ["model.onnx", "model.onnx (2)", "checkpoint 2"]


def test_identical_weights(refused):
    a, b, c = mlps(3)
    with pytest.warns(
        VogcoreWarning, match="Checkpoints checkpoint 0 and checkpoint 3 have identical weights"
    ) as given:
        scores = vogcore.score([a, b, c, a], X, Y)
    assert len(given) == 1
    assert given[0].filename == __file__
    assert scores.warnings == [str(given[0].message)]
    refused([a, a, a], CheckpointError, r"All 3 checkpoints have identical weights \(checkpoint 0 to checkpoint 2\)")


def test_checkpoints_of_different_runs(refused, tmp_path):
    def of(shapes):
        return mlp(walk(shapes, 1, seed=5)[0])

    wide = of({**MLP_SHAPES, "w1": (FEATURES + 1, 16)})
    more = of({**MLP_SHAPES, "w2": (16, CLASSES + 1), "b2": (CLASSES + 1,)})
    first, second = mlps(2)
    refused(
        [first, second, wide], CheckpointError,
        r"Checkpoint checkpoint 2 takes float32 examples 'x' of shape \(13\), but checkpoint 0 takes .* \(12\); score",
    )  # fmt: skip
    refused([first, second, more], CheckpointError, "Checkpoint checkpoint 2 gives 4 classes and .* gives 3 classes")
    renamed = onnx.ModelProto.FromString(second.SerializeToString())
    renamed.graph.input[0].name = "image"
    renamed.graph.node[0].input[0] = "image"
    refused([first, renamed], CheckpointError, "takes float32 examples 'image'.* takes float32 examples 'x'")


def test_a_truncated_file_among_them_is_named(refused, tmp_path):
    paths = save(mlps(4), tmp_path)
    content = paths[2].read_bytes()
    for length in (0, 10, len(content) // 2):
        paths[2].write_bytes(content[:length])
        refused(tmp_path, ModelError, "ckpt-3.onnx is not an ONNX model")


def two_inputs(w):
    model = mlp(w)
    model.graph.node.insert(0, helper.make_node("Add", ["x", "shift"], ["shifted"]))
    model.graph.node[1].input[0] = "shifted"
    model.graph.input.append(helper.make_tensor_value_info("shift", TensorProto.FLOAT, ["N", FEATURES]))
    return model


def two_outputs(w):
    model = mlp(w)
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["negative"]))
    model.graph.output.append(helper.make_tensor_value_info("negative", TensorProto.FLOAT, ["N", CLASSES]))
    return model


def test_two_inputs(refused):
    models = [two_inputs(w) for w in walk(MLP_SHAPES, 2)]
    refused(models, ModelError, r"^checkpoint 0: The model has 2 inputs \('x' \(float\), 'shift' \(float\)\).*wrt=")
    # With a choice there is still nothing to fill the other input with.
    refused(models, ModelError, r"^checkpoint 0: the model takes 2 inputs \(x, shift\)", wrt="x")
    refused(models, ModelError, "no value named 'nonsense'", wrt="nonsense")


def test_two_outputs(refused):
    weights = walk(MLP_SHAPES, 3)
    models = [two_outputs(w) for w in weights]
    refused(models, ModelError, r"^checkpoint 0: The model has 2 floating-point outputs \('logits', 'negative'\)")
    refused(models, ModelError, "has no output 'nonsense'", output="nonsense")
    raw = two_pass(autograd("mlp", weights, X, Y)[0])
    for name, sign in (("logits", 1), ("negative", -1)):
        scores = vogcore.score(models, X, Y, output=name)
        np.testing.assert_allclose(scores.vog_raw, raw, rtol=1e-5)
        logits = sign * autograd("mlp", weights, X, Y)[1]
        np.testing.assert_array_equal(scores.predictions_class, logits.argmax(2))
        assert scores.settings["output"] == name
    predicted = vogcore.score(models, X, output="negative", target="predicted")
    np.testing.assert_array_equal(predicted.predictions_class, scores.predictions_class)


def test_a_value_inside_is_differentiated_on_request():
    """logits = h @ w2, so the gradient at h is a column of w2, the same for all examples of a class."""
    weights = walk(MLP_SHAPES, 3)
    with pytest.warns(VogcoreWarning, match="linear in its input"):
        scores = vogcore.score([mlp(w) for w in weights], X, Y, wrt="h")
    np.testing.assert_allclose(scores.vog_raw, two_pass(np.stack([w["w2"].T[Y] for w in weights])), rtol=1e-5)


def integer_input(w):
    model = mlp(w)
    model.graph.node.insert(0, helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT))
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", FEATURES]))
    return model


def test_integer_inputs(refused):
    weights = walk(MLP_SHAPES, 3)
    x = np.random.default_rng(0).integers(0, 3, (20, FEATURES))
    models = [integer_input(w) for w in weights]
    refused(models, ModelError, r"^checkpoint 0: The input 'pixels' has type uint8.*wrt=", x=x.astype(np.uint8))
    scores = vogcore.score(models, x, Y, wrt="x")
    np.testing.assert_allclose(scores.vog_raw, two_pass(autograd("mlp", weights, x, Y)[0]), rtol=1e-5)
    refused(models, DataError, "takes uint8 and got float32", x=x.astype(np.float32), wrt="x")
    large = x.copy()
    large[7, 3] = 256
    refused(models, DataError, "takes uint8, which cannot hold the examples' values 0 to 256", x=large, wrt="x")


def batch_norm(training: int):
    def make(w):
        scale = {"s": np.ones(16, np.float32), "z": np.zeros(16, np.float32)}
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["a"]),
            helper.make_node(
                "BatchNormalization", ["a", "s", "z", "z", "s"], ["n", "m", "v"] if training else ["n"],
                training_mode=training,
            ),
            helper.make_node("Tanh", ["n"], ["h"]),
            helper.make_node("Gemm", ["h", "w2", "b2"], ["logits"]),
        ]  # fmt: skip
        inputs, outputs = [("x", 1, ["N", FEATURES])], [("logits", 1, ["N", CLASSES])]
        return build(nodes, inputs, outputs, {**w, **scale})

    return make


def dropout(training: bool):
    def make(w):
        model = mlp(w)
        model.graph.node.insert(0, helper.make_node("Dropout", ["x", "ratio", "training"], ["dropped"]))
        model.graph.node[1].input[0] = "dropped"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "ratio"))
        model.graph.initializer.append(numpy_helper.from_array(np.bool_(training), "training"))
        return model

    return make


@pytest.mark.parametrize("layer", [batch_norm, dropout])
def test_training_mode_is_refused_and_evaluation_mode_is_not(refused, layer):
    weights = walk(MLP_SHAPES, 3)
    refused([layer(True)(w) for w in weights], ModelError, "^checkpoint 0: .*training")
    scores = vogcore.score([layer(False)(w) for w in weights], X, Y)
    if layer is dropout:
        np.testing.assert_allclose(scores.vog_raw, two_pass(autograd("mlp", weights, X, Y)[0]), rtol=1e-5)


def stuck(w):
    """The batch is in a graph where nothing tells that it is one: rows are reversed twice by an index of their own."""
    model = mlp(w, batch=4)
    backwards = numpy_helper.from_array(np.array([3, 2, 1, 0]), "backwards")
    model.graph.initializer.append(backwards)
    model.graph.node.insert(0, helper.make_node("Gather", ["x", "backwards"], ["r"], axis=0))
    model.graph.node.insert(1, helper.make_node("Gather", ["r", "backwards"], ["rr"], axis=0))
    model.graph.node[2].input[0] = "rr"
    return model


@pytest.mark.parametrize(("make", "freed"), [(lambda w: mlp(w, batch=4), True), (stuck, False)])
@pytest.mark.parametrize("options", [{}, {"batch_size": 6}, {"batch_size": 1}, {"memory": 1}, {"target": "predicted"}])
def test_a_fixed_batch_gives_the_scores_of_a_free_one(make, freed, options):
    weights = walk(MLP_SHAPES, 3)
    x, y = examples(21)  # the last batch of 4 has one example
    want = vogcore.score([mlp(w) for w in weights], x, y, **options)
    got = vogcore.score([make(w) for w in weights], x, y, **options)
    np.testing.assert_allclose(got.vog_raw, want.vog_raw, rtol=2e-6)
    close(got.vog, want.vog)
    np.testing.assert_array_equal(got.predictions_class, want.predictions_class)
    asked = options.get("batch_size")
    if asked is not None:
        assert got.settings["batch_size"] == (asked if freed else 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["w1", "b2"])
def test_weights_that_are_not_finite_name_checkpoint_and_example(refused, value, name):
    weights = walk(MLP_SHAPES, 4)
    weights[2][name].flat[0] = value
    refused([mlp(w) for w in weights], GradientError, r"of example 0 \(id 7\) at checkpoint checkpoint 2 (is|are) not",
            ids=np.arange(20) + 7)  # fmt: skip


def test_gradients_that_overflow_name_checkpoint_and_example(refused):
    """Finite logits, infinite gradient: both layers of one checkpoint are steep, and one example meets the slope."""
    weights = walk(MLP_SHAPES, 3)
    steep = weights[1]
    steep["w1"], steep["w2"], steep["b1"] = steep["w1"] * 1e25, steep["w2"] * 1e25, np.zeros_like(steep["b1"])
    x = X.copy()
    x[9] = 0
    models = [mlp(w) for w in weights]
    refused(models, GradientError, r"^The gradient of example 9 \(id 9\) at checkpoint checkpoint 1 is not finite", x=x)
    assert np.isfinite(vogcore.score(models, np.delete(x, 9, 0), np.delete(Y, 9)).vog_raw).all()
