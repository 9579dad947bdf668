"""``vogcore.check_model``: what it finds out about a model, and that it notices a wrong gradient."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import vogcore
from tests.diagnose.models import DOMAIN, WEIGHTS, Z, cnn, mlp, text, unknown
from tests.graph.models import DOUBLE, INT64, build, linear, node, random, value
from vogcore.autodiff.registry import RULES
from vogcore.diagnose import ModelReport, Operator, Problem, SelfCheck, Tensor
from vogcore.errors import ModelError, SettingsError
from vogcore.graph.prepare import prepare
from vogcore.testing import temporary_vjp


def check(model, **options) -> ModelReport:
    return vogcore.check_model(model, threads=1, **options)


@pytest.mark.parametrize("target", ["input", "predicted", 4])
@pytest.mark.parametrize("of", ["logit", "probability", "log-probability", "loss", "margin", "centred-logit", "output"])
def test_a_right_gradient_agrees(of, target):
    report = check(mlp(), of=of, target=target)
    assert report.ok, report.self_check
    assert report.self_check.median_error < 2e-3
    assert report.self_check.forward_error == 0
    assert report.self_check.independent is True


@pytest.mark.parametrize("wrt", ["x", "a", "h", "z", "w1", "b1"])
def test_with_respect_to_anything(wrt):
    report = check(mlp(softmax=True), wrt=wrt, of="loss")
    assert report.ok, report.self_check
    assert report.wrt is not None
    assert report.wrt.name == wrt
    assert report.self_check.independent is (None if wrt in ("w1", "b1") else True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("batch", "size"), [("N", "S"), (1, 16), (3, "S")])
def test_kinks_do_not_disturb(batch, size, seed):
    report = check(cnn(batch=batch, size=size), seed=seed)
    assert report.ok, report.self_check
    assert report.self_check.median_error < 0.01
    assert report.self_check.examples == (6 if batch == 3 else 4)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.95, 1.05, -0.5])
def test_a_wrong_rule_is_noticed(factor):
    def wrong(call):
        emit = call.emit
        return [emit.op("Mul", emit.masked(emit.cast(call.y, ir.DataType.BOOL), call.dy), emit.scalar(factor, call.x))]

    with temporary_vjp("", "Relu", wrong):
        for model in (mlp(), cnn()):
            report = check(model)
            assert report.self_check.verdict == "disagrees", (factor, report.self_check)
            assert not report.ok
            assert report.differentiable
            assert "differs from finite differences" in report.self_check.reason


def test_a_gradient_that_is_not_finite_is_noticed():
    with temporary_vjp("", "Relu", lambda call: [call.emit.op("Div", call.dy, call.emit.scalar(0.0, call.x))]):
        report = check(mlp())
    assert report.self_check.verdict != "agrees"
    assert "not finite" in report.self_check.reason


def test_a_preparation_that_changes_the_model_is_noticed(monkeypatch):
    def broken(model, own):
        prepared = prepare(model, own)
        bias = prepared.graph.initializers["b1"]
        bias.const_value = ir.tensor(bias.const_value.numpy() + 1, name="b1")
        return prepared

    monkeypatch.setattr("vogcore.diagnose.self_check.prepare", broken)
    report = check(mlp())
    assert report.self_check.verdict == "disagrees"
    assert "computes something else than the model" in report.self_check.reason


def test_probabilities_add_up_to_one_whatever_the_input():
    report = check(mlp(softmax=True), of="output")
    assert report.self_check.verdict == "inconclusive"
    assert "rounding hides" in report.self_check.reason
    assert not report.ok


def test_half_precision():
    model = mlp("Tanh")
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    report = check(model)
    assert report.ok, report.self_check
    assert report.wrt == Tensor("x", "float16", ("N", 20))


def test_double_precision_is_compared_closely():
    model = build([node("MatMul", "x w", "h"), node("Tanh", "h", "z")], [value("x", ["N", 4], DOUBLE)],
                  [value("z", ["N", 3], DOUBLE)], {"w": random(4, 3).astype(np.float64)})  # fmt: skip
    report = check(model)
    assert report.ok
    assert report.self_check.median_error < 1e-7


def test_examples_that_depend_on_each_other_are_named_and_compared_all_the_same():
    """Batch statistics: the sum over the batch is differentiated, which is right, but means little for one example."""
    model = build(
        [node("MatMul", "x w", "a"), node("ReduceMean", "a zero", "mean"), node("Sub", "a mean", "c"),
         node("Tanh", "c", "z")],
        [value("x", ["N", 4])], [value("z", ["N", 3])], {"w": random(4, 3), "zero": np.asarray([0])},
    )  # fmt: skip
    report = check(model)
    assert report.ok, report.self_check
    assert report.self_check.independent is False


def test_facts_of_the_file(tmp_path):
    model = mlp(softmax=True)
    model.producer_name, model.producer_version = "maker", "7"
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    report = check(path)
    assert (report.model, report.bytes) == (str(path), path.stat().st_size)
    assert (report.opsets, report.ir_version, report.producer, report.nodes) == ({"ai.onnx": 18}, 8, "maker 7", 4)
    assert (report.weights, report.weight_bytes) == (20 * 64 + 64 + 64 * 5, 4 * (20 * 64 + 64 + 64 * 5))
    assert report.inputs == (Tensor("x", "float", ("N", 20)),)
    assert report.outputs == (Tensor("p", "float", ("N", 5)),)
    assert report.scores == Tensor("z", "float", ("N", 5))
    assert report.scores_node == Operator("MatMul", "last", "z")
    assert report.softmax == "Softmax"
    assert [operator.name for operator in report.path] == ["first", "the_Relu", "last"]
    assert report.batch == "open"
    assert report.gradient_nodes == len(vogcore.gradient_model(model).graph.node)
    assert check(path.read_bytes()).model == "the model"


def test_initializers_among_the_inputs_are_no_inputs():
    model = mlp()
    model.graph.input.append(value("w2", [64, 5]))
    assert [tensor.name for tensor in check(model).inputs] == ["x"]


def test_a_fixed_batch_that_can_be_freed_and_one_that_cannot():
    assert check(mlp(batch=1)).batch == "fixed at 1 (vogcore score frees it)"
    mixed = build([node("MatMul", "x w", "a"), node("ReduceMean", "a zero", "m"), node("Sub", "a m", "z")],
                  [value("x", [2, 4])], [value("z", [2, 3])], {"w": random(4, 3), "zero": np.asarray([0])})  # fmt: skip
    assert check(mixed).batch == "fixed at 2"


def test_every_operator_without_a_rule_is_listed_with_its_nodes():
    report = check(unknown())
    assert [(problem.op, problem.node) for problem in report.problems] == [
        (f"{DOMAIN}.Odd", "odd 1"), (f"{DOMAIN}.Odd", "odd 2"), (f"{DOMAIN}.Strange", "strange"),
    ]  # fmt: skip
    assert all(problem.missing for problem in report.problems)
    assert report.refusal is not None
    for words in (f"{DOMAIN}.Odd, {DOMAIN}.Strange", "vogcore.register_vjp", "vogcore.score_gradients"):
        assert words in report.refusal
    assert len(report.path) == 6
    assert not report.differentiable
    assert report.self_check.verdict == "not run"


def test_every_use_that_a_rule_does_not_cover_is_listed():
    pooling = {"kernel_shape": [2, 2], "storage_order": 1}
    model = build(
        [
            node("MaxPool", "x", "a", name="first", **pooling),
            node("MaxPool", "a", "b", name="second", **pooling),
            node("Flatten", "b", "z"),
        ],
        [value("x", ["N", 1, 4, 4])], [value("z", ["N", 4])],
    )  # fmt: skip
    report = check(model)
    assert [(problem.node, problem.missing) for problem in report.problems] == [("first", False), ("second", False)]
    assert "storage_order" in report.problems[0].reason
    assert report.refusal is not None
    assert "and 1 more" in report.refusal


def test_integer_inputs_get_suggestions_with_the_embedding_first():
    report = check(text())
    assert [tensor.name for tensor in report.candidates] == ["embedded", "kept"]
    assert report.candidates[0].shape == ("N", "L", 6)
    assert report.refusal is not None
    assert "2 inputs" in report.refusal


@pytest.mark.parametrize("wrt", ["embedded", "kept"])
def test_every_suggestion_can_be_taken(wrt):
    report = check(text(), wrt=wrt)
    assert report.ok, report.self_check


def test_an_unknown_tensor_gets_suggestions_too():
    report = check(mlp(), wrt="pixels")
    assert report.refusal is not None
    assert "'pixels'" in report.refusal
    assert report.candidates == (Tensor("x", "float", ("N", 20)),)


def test_one_integer_input():
    report = check(build([node("Gather", "table i", "z")], [value("i", ["N"], INT64)], [Z], {"table": random(9, 5)}))
    assert [tensor.name for tensor in report.candidates] == ["z"]
    assert check(
        build([node("Gather", "table i", "e"), node("MatMul", "e w", "z")], [value("i", ["N"], INT64)], [Z],
              {"table": random(9, 5), "w": random(5, 5)}),
        wrt="e",
    ).ok  # fmt: skip


def test_sizes_are_tried_until_the_model_runs():
    model = build([node("Conv", "x k", "c"), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "z")],
                  [value("x", ["N", 1, "H", "W"])], [Z], {"k": random(5, 1, 40, 40)})  # fmt: skip
    assert check(model).ok
    report = check(model, shapes={"x": (2, 1, 41, 45)})
    assert report.ok
    assert report.self_check.examples >= 2
    assert check(model, shapes={"x": (2, 1, 8, 8)}).self_check.verdict == "not run"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": (1, 20)}, r"'y', but the inputs of the model are 'x'"),
        ({"x": (1, 3)}, r"\(1, 3\) does not fit .*\(N, 20\)"),
        ({"x": (1,)}, "does not fit"),
        ({"x": (0, 20)}, "does not fit"),
    ],
)
def test_a_shape_that_does_not_fit(shapes, message):
    with pytest.raises(SettingsError, match=message):
        check(mlp(), shapes=shapes)


def test_what_makes_a_model_useless_is_in_the_report():
    training = build([node("Dropout", "x ratio mode", "d"), node("MatMul", "d w", "z")], [value("x", ["N", 4])],
                     [value("z", ["N", 3])],
                     {"ratio": np.float32(0.5), "mode": np.asarray(True), "w": random(4, 3)})  # fmt: skip
    report = check(training)
    assert report.refusal is not None
    assert "training mode" in report.refusal
    assert report.inputs
    assert report.scores is None
    image = build([node("Relu", "x", "z")], [value("x", ["N", 3, 8, 8])], [value("z", ["N", 3, 8, 8])])
    assert "one row of scores" in (check(image).refusal or "")
    assert check(image, of="output").ok
    constant = build([node("Sign", "x", "h"), node("MatMul", "h w", "z")], [value("x", ["N", 4])],
                     [value("z", ["N", 3])], {"w": random(4, 3)})  # fmt: skip
    assert "does not depend on 'x'" in (check(constant).refusal or "")
    assert "is no class of 'z'" in (check(linear(), target=3).refusal or "")


QUANTISED = build(
    [node("QuantizeLinear", "x step", "q"), node("DequantizeLinear", "q step", "d"), node("MatMul", "d w", "z")],
    [value("x", ["N", 4])], [value("z", ["N", 3])], {"step": np.float32(0.1), "w": random(4, 3)},
)  # fmt: skip


def test_quantisation_has_a_remedy():
    assert "--straight-through" in (check(QUANTISED).refusal or "")


@pytest.mark.skipif("QuantizeLinear" not in RULES, reason="quantisation has no rule")
def test_straight_through_gradients_are_not_compared():
    report = check(QUANTISED, straight_through=True)
    assert report.differentiable
    assert not report.ok
    assert "not the derivative" in report.self_check.reason


def test_an_operator_that_onnx_runtime_lacks():
    model = build([helper.make_node("Odd", ["x"], ["h"], "odd", domain=DOMAIN), node("MatMul", "h w2", "z")],
                  [value("x", ["N", 64])], [Z], WEIGHTS, domains=[DOMAIN])  # fmt: skip
    with temporary_vjp(DOMAIN, "Odd", lambda call: [call.dy], like=0):
        report = check(model)
    assert report.differentiable
    assert report.self_check.verdict == "not run"
    assert "ONNX Runtime cannot load the model" in report.self_check.reason


def test_a_model_that_is_random_is_named():
    model = build([node("RandomNormalLike", "x", "noise"), node("Add", "x noise", "a"), node("MatMul", "a w", "z")],
                  [value("x", ["N", 4])], [value("z", ["N", 3])], {"w": random(4, 3)})  # fmt: skip
    report = check(model)
    assert report.self_check.verdict == "not run"
    assert "another output each time" in report.self_check.reason


def test_a_gradient_model_given_again():
    report = check(vogcore.gradient_model(mlp()))
    assert report.refusal is not None
    assert "give the forward model" in report.refusal
    assert report.candidates == ()


def test_a_model_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        check(tmp_path / "nope.onnx")


@pytest.mark.parametrize("options", [{"of": "logits"}, {"target": "label"}, {"lowering": "tpu"}])
def test_settings_are_errors(options):
    with pytest.raises(SettingsError):
        check(mlp(), **options)


def test_the_report_goes_through_json():
    report = check(unknown())
    back = json.loads(json.dumps(report.to_dict()))
    assert back["ok"] is False
    assert back["differentiable"] is False
    assert Problem(**back["problems"][0]) == report.problems[0]
    assert json.loads(json.dumps(check(mlp()).to_dict()))["self_check"]["verdict"] == "agrees"


def test_figures_that_are_no_numbers_are_left_out_of_json():
    check = SelfCheck("disagrees", "why", median_error=float("nan"), largest_error=float("inf"), tolerance=0.01)
    report = dataclasses.replace(vogcore.check_model(linear(), threads=1), self_check=check)
    back = json.loads(json.dumps(report.to_dict(), allow_nan=False))["self_check"]
    assert (back["median_error"], back["largest_error"], back["tolerance"]) == (None, None, 0.01)


def test_scores_with_a_rule_of_the_user_s_own():
    """A local function with a rule, all the way to scores."""
    models = []
    for seed in range(2):
        text = """
            <ir_version: 8, opset_import: ["": 18, "com.example": 1]>
            m (float[N, 4] x) => (float[N, 3] z) { h = MatMul (x, w)  z = com.example.Cap (h) }
            <domain: "com.example", opset_import: ["": 18]>
            Cap (x) => (y) { y = Tanh (x) }
        """
        model = onnx.parser.parse_model(text)
        model.graph.initializer.append(onnx.numpy_helper.from_array(random(4, 3, seed=seed), "w"))
        models.append(model)
    x, y = random(12, 4), np.arange(12) % 3

    def scored(factor: float) -> np.ndarray:
        def rule(call):
            return [call.emit.op("Mul", call.emit.op("Mul", call.dy, call.y), call.emit.scalar(factor, call.x))]

        with temporary_vjp(DOMAIN, "Cap", rule):
            return vogcore.score(models, x, y, threads=1).vog_raw

    np.testing.assert_allclose(scored(2.0), 2 * scored(1.0), rtol=1e-5)


def test_the_same_seed_gives_the_same_figures():
    first, second, other = check(cnn(), seed=3), check(cnn(), seed=3), check(cnn(), seed=4)
    assert first == second
    assert first.self_check.median_error != other.self_check.median_error


def test_it_is_quick():
    begun = time.perf_counter()
    check(cnn())
    assert time.perf_counter() - begun < 10
