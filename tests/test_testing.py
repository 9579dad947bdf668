"""``vogcore.testing``: it passes what is right, and fails what is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graph.models import DOUBLE, build, node, random, value
from vogcore.errors import SettingsError, UnsupportedOpError
from vogcore.testing import check_vjp, one_node, temporary_vjp

X = np.random.default_rng(0).normal(size=(3, 4))


@pytest.mark.parametrize("engine", ["reference", "onnxruntime"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_right_rule_passes(engine, dynamic):
    model, feeds = one_node("", "Softmax", [X.astype(np.float32)], {"axis": 0}, dynamic=dynamic)
    assert check_vjp(model, feeds, engine=engine) < 1e-3


def test_float64_is_exact():
    assert check_vjp(*one_node("", "Tanh", [X])) < 1e-8


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.999, 1.001, -1.0, float("nan")])
def test_a_wrong_rule_fails(factor):
    def wrong(call):
        emit = call.emit
        slope = emit.op("Sub", emit.scalar(1.0, call.x), emit.op("Mul", call.y, call.y))
        return [emit.op("Mul", emit.op("Mul", call.dy, slope), emit.scalar(factor, call.x))]

    model, feeds = one_node("", "Tanh", [X])
    with (
        temporary_vjp("", "Tanh", wrong),
        pytest.raises(AssertionError, match=r"with respect to 'in0' differs from finite differences by .*1e-06\."),
    ):
        check_vjp(model, feeds)


def test_a_wrong_rule_fails_in_onnx_runtime():
    model, feeds = one_node("", "Tanh", [X.astype(np.float32)])
    with (
        temporary_vjp("", "Tanh", lambda call: [call.dy]),
        pytest.raises(AssertionError, match=r"differs from finite differences by .*0\.01\."),
    ):
        check_vjp(model, feeds, engine="onnxruntime")


def test_a_gradient_of_the_wrong_shape_fails():
    model, feeds = one_node("", "Mul", [X, np.ones((1, 4))])
    with (
        temporary_vjp("", "Mul", lambda call: [call.dy, call.dy]),
        pytest.raises(AssertionError, match=r"'in1' is float64 of shape \(3, 4\), but the input is .* \(1, 4\)"),
    ):
        check_vjp(model, feeds, ["in1"])


def test_a_function_that_does_not_change_has_gradient_zero():
    model, feeds = one_node("", "Mul", [X, np.zeros((3, 4))])
    assert check_vjp(model, feeds, ["in0"]) == 0
    assert check_vjp(model, feeds, ["in1"]) < 1e-8


def test_kinks_do_not_disturb():
    wide = np.random.default_rng(2).normal(size=(64, 200)).astype(np.float32)
    assert check_vjp(*one_node("", "Relu", [wide]), engine="onnxruntime") < 0.01


def test_integers_are_constants_and_inputs_can_be_left_out():
    model, feeds = one_node("", "Clip", [X, None, np.float64(0.7)])
    assert list(feeds) == ["in0", "in2"]
    assert check_vjp(model, feeds, ["in0"]) < 1e-6
    model, feeds = one_node("", "Reshape", [X, np.asarray([4, 3])])
    assert list(feeds) == ["in0"]
    assert check_vjp(model, feeds) < 1e-8


def test_the_output_can_be_chosen():
    model = build([node("Exp", "x", "a"), node("Sin", "x", "b")], [value("x", ["N"], DOUBLE)],
                  [value("a", ["N"], DOUBLE), value("b", ["N"], DOUBLE)])  # fmt: skip
    assert check_vjp(model, {"x": X[0]}, output="b") < 1e-8


def test_an_operator_without_a_rule_is_named():
    with pytest.raises(UnsupportedOpError, match=r"com\.example\.Odd node 'Odd'"):
        check_vjp(*one_node("com.example", "Odd", [X]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "torch"}, r"engine='torch' is not known; choose one of reference, onnxruntime\."),
        ({"engine": "onnxruntime", "functions": {("a", "B"): abs}}, "need engine='reference'"),
        ({"wrt": ["nope"]}, "'nope' is to be varied and is not among the feeds 'in0'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(SettingsError, match=message):
        check_vjp(*one_node("", "Tanh", [X]), **options)


def test_one_node_needs_something_to_differentiate():
    with pytest.raises(SettingsError, match="None of the inputs is a floating-point array"):
        one_node("", "Not", [np.asarray([True])])


def test_a_model_from_a_file(tmp_path):
    model = build([node("MatMul", "x w", "z")], [value("x", ["N", 4])], [value("z", ["N", 2])], {"w": random(4, 2)})
    onnx.save(model, tmp_path / "m.onnx")
    assert check_vjp(tmp_path / "m.onnx", {"x": X.astype(np.float32)}, engine="onnxruntime") < 1e-3
