"""The reverse sweep itself, and conventions at kinks and ties (torch's)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional

from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.graph.models import DOUBLE, build, node, random, value
from vogcore.autodiff import gradient_model, vjp_model
from vogcore.errors import UnsupportedOpError


def vjp(model: onnx.ModelProto, wrt: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Vector-Jacobian products with a cotangent of ones."""
    run = evaluator(vjp_model(model, wrt))
    shape = evaluator(model).run(None, feeds)[0]
    return run.run(None, {**feeds, "vogcore_cotangent": np.ones_like(shape)})[1:]


def one(op: str, weights: dict | None = None, rank: int = 1, opset: int = 18, **attributes) -> onnx.ModelProto:
    """A float64 operator on x; the weights are its further inputs."""
    names = " ".join(["x", *(weights or {})])
    sizes = [None] * rank
    out = [None] * (rank if op != "ReduceMax" else 1)
    return build([node(op, names, "y", **attributes)], [value("x", sizes, DOUBLE)], [value("y", out, DOUBLE)],
                 weights, opset=opset)  # fmt: skip


SCALAR = np.float64
KINKS = [
    ("Relu", {}, {}, torch.relu, [0.0, -0.0]),
    ("LeakyRelu", {}, {"alpha": 0.1}, lambda x: functional.leaky_relu(x, 0.1), [0.0]),
    ("PRelu", {"s": np.asarray([0.25])}, {}, lambda x: functional.prelu(x, torch.tensor([0.25]).double()), [0.0]),
    ("Elu", {}, {"alpha": 0.7}, lambda x: functional.elu(x, 0.7), [0.0]),
    ("Selu", {}, {}, functional.selu, [0.0]),
    ("Celu", {}, {"alpha": 0.5}, lambda x: functional.celu(x, 0.5), [0.0]),
    ("ThresholdedRelu", {}, {"alpha": 1.0}, lambda x: functional.threshold(x, 1.0, 0.0), [1.0]),
    ("HardSigmoid", {}, {"alpha": 1 / 4, "beta": 0.5}, lambda x: functional.hardtanh(x / 4 + 0.5, 0, 1), [-2.0, 2.0]),
    ("HardSwish", {}, {}, functional.hardswish, [-3.0, 3.0]),
    ("Clip", {"a": SCALAR(0), "b": SCALAR(6)}, {}, functional.relu6, [0.0, 6.0, 3.0, -1.0, 7.0]),
    ("Clip", {"a": SCALAR(-1), "b": SCALAR(1)}, {}, lambda x: x.clamp(-1, 1), [-1.0, 1.0]),
    ("Clip", {"a": SCALAR(0)}, {}, lambda x: x.clamp(min=0), [0.0]),
    ("Abs", {}, {}, torch.abs, [0.0]),
    ("Softsign", {}, {}, functional.softsign, [0.0]),
    ("Max", {"a": np.asarray([0.0])}, {}, lambda x: torch.maximum(x, torch.zeros(1).double()), [0.0]),
    ("Min", {"a": np.asarray([0.0])}, {}, lambda x: torch.minimum(x, torch.zeros(1).double()), [0.0]),
    ("Pow", {"e": np.asarray([0.0])}, {}, lambda x: x**0, [0.0, 2.0]),
    ("Pow", {"e": np.asarray([1.0])}, {}, lambda x: x**1, [0.0]),
    ("Pow", {"e": np.asarray([2.0])}, {}, lambda x: x**2, [0.0, -1.5]),
    ("Pow", {"e": np.asarray([3.0])}, {}, lambda x: x**3, [0.0, -1.5]),
]


@pytest.mark.parametrize(("op", "weights", "attributes", "function", "points"), KINKS)
def test_convention_at_kinks_is_torch_s(op, weights, attributes, function, points):
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    function(x).sum().backward()
    (got,) = vjp(one(op, weights, **attributes), ["x"], {"x": np.asarray(points)})
    np.testing.assert_allclose(got, x.grad.numpy(), rtol=1e-6)


def test_norm_of_zero_has_gradient_zero():
    (got,) = vjp(one("ReduceL2", {"axes": np.asarray([0], np.int64)}, keepdims=1), ["x"], {"x": np.zeros(3)})
    np.testing.assert_array_equal(got, np.zeros(3))


POOLS = [
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [1, 1]}, lambda x: functional.max_pool2d(x, 2, 1)),
    (
        "MaxPool",
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        lambda x: functional.max_pool2d(x, 3, 2, 1),
    ),
    ("GlobalMaxPool", {}, lambda x: functional.adaptive_max_pool2d(x, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attributes", "function"), POOLS)
def test_among_tied_maxima_the_first_takes_all(op, attributes, function):
    x = np.random.default_rng(0).integers(0, 2, size=(2, 3, 5, 6)).astype(np.float64)
    tensor = torch.tensor(x, requires_grad=True)
    function(tensor).sum().backward()
    (got,) = vjp(one(op, rank=4, **attributes), ["x"], {"x": x})
    np.testing.assert_array_equal(got, tensor.grad.numpy())


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize(("size", "kernel", "stride", "pad"), [(7, 3, 2, 0), (6, 3, 2, 1), (8, 3, 3, 1), (5, 2, 2, 0)])
def test_ceil_mode_in_onnx_runtime_agrees_with_torch(size, kernel, stride, pad, include):
    x = random(2, 3, size, size)
    attributes = {
        "kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": 1,
        "count_include_pad": include,
    }  # fmt: skip
    model = build(
        [node("AveragePool", "x", "y", **attributes)],
        [value("x", x.shape)],
        [value("y", [2, 3, None, None])],
        opset=22,
        ir_version=10,
    )
    tensor = torch.tensor(x, requires_grad=True)
    y = functional.avg_pool2d(tensor, kernel, stride, pad, ceil_mode=True, count_include_pad=bool(include))
    cotangent = random(*y.shape, seed=1)
    y.backward(torch.tensor(cotangent))
    got = session(vjp_model(model, ["x"])).run(None, {"x": x, "vogcore_cotangent": cotangent})
    np.testing.assert_allclose(got[0], y.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], tensor.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_size_that_onnx_infers_wrongly_is_refused(op):
    attributes = {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}  # the third window starts outside
    for opset, refused in ((18, True), (22, False)):
        model = build(
            [node(op, "x", "y", **attributes)],
            [value("x", [1, 1, 6, 6])],
            [value("y", [1, 1, None, None])],
            opset=opset,
            ir_version=10,
        )
        if refused:
            with pytest.raises(UnsupportedOpError, match=rf"{op} node 'the_{op}'.* wrong output size .*opset 22"):
                vjp_model(model, ["x"])
        else:
            vjp_model(model, ["x"])


def test_reduced_tied_maxima_share():
    x = np.asarray([[1.0, 2.0, 2.0]])
    (got,) = vjp(one("ReduceMax", {"axes": np.asarray([1], np.int64)}, rank=2, keepdims=0), ["x"], {"x": x})
    np.testing.assert_array_equal(got, [[0, 0.5, 0.5]])


def test_value_used_several_times_collects_all_uses():
    model = build(
        [node("Mul", "x x", "s"), node("Add", "s x", "a"), node("Sub", "a s", "b"), node("Mul", "b s", "y", name="m")],
        [value("x", [None], DOUBLE)],
        [value("y", [None], DOUBLE)],
    )
    x = np.asarray([0.5, -2.0])
    np.testing.assert_allclose(vjp(model, ["x"], {"x": x})[0], 3 * x**2)  # y = x³


def test_source_on_the_path_of_another_source():
    model = build(
        [node("Mul", "x x", "h"), node("Exp", "h", "e"), node("Add", "e x", "y")],
        [value("x", [None], DOUBLE)],
        [value("y", [None], DOUBLE)],
    )
    x = np.asarray([0.5, -1.0])
    for order in (["x", "h"], ["h", "x"]):
        got = dict(zip(order, vjp(model, order, {"x": x})))
        np.testing.assert_allclose(got["x"], 2 * x * np.exp(x**2) + 1)
        np.testing.assert_allclose(got["h"], np.exp(x**2))


def test_output_itself_as_source():
    model = one("Exp")
    np.testing.assert_array_equal(vjp(model, ["y"], {"x": np.zeros(2)})[0], np.ones(2))


@pytest.mark.parametrize("ranks", [(2, 1), (3, 3), (1, 3)])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 4), (4, 1), (4, 4)])
def test_broadcasting_of_unknown_sizes_is_undone_at_run_time(ranks, sizes):
    a_rank, b_rank = ranks
    model = build(
        [node("Mul", "a b", "y")],
        [value("a", [None] * a_rank, DOUBLE), value("b", [None] * b_rank, DOUBLE)],
        [value("y", [None] * max(ranks), DOUBLE)],
    )
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=[sizes[0]] * a_rank), rng.normal(size=[sizes[1]] * b_rank)
    da, db = vjp(model, ["a", "b"], {"a": a, "b": b})
    wide_a, wide_b = np.broadcast_arrays(a, b)
    lead = max(ranks) - a_rank
    axes = tuple(i for i in range(max(ranks)) if i < lead or a.shape[i - lead] == 1)
    np.testing.assert_allclose(da, wide_b.sum(axis=axes, keepdims=True).reshape(a.shape))
    lead = max(ranks) - b_rank
    axes = tuple(i for i in range(max(ranks)) if i < lead or b.shape[i - lead] == 1)
    np.testing.assert_allclose(db, wide_a.sum(axis=axes, keepdims=True).reshape(b.shape))


def test_cast_like_does_not_make_its_type_a_source():
    model = build(
        [node("CastLike", "w x", "c"), node("Mul", "c x", "y")],
        [value("x", [None], DOUBLE)],
        [value("y", [None], DOUBLE)],
        {"w": np.float32(3.0)},
        opset=19,
    )
    np.testing.assert_array_equal(vjp(model, ["x"], {"x": np.ones(2)})[0], [3.0, 3.0])


def test_empty_batch_gives_an_empty_gradient():
    model = build(
        [node("Relu", "x", "h"), node("Flatten", "h", "f"), node("Gemm", "f w b", "z")],
        [value("x", ["N", 2, 3])], [value("z", ["N", 4])], {"w": random(6, 4), "b": random(4)},
    )  # fmt: skip
    runner = session(gradient_model(model))
    feeds = {"x": np.zeros((0, 2, 3), np.float32), "vogcore_target": np.zeros(0, np.int64)}
    logits, gradient = runner.run(None, feeds)
    assert (logits.shape, gradient.shape) == ((0, 4), (0, 2, 3))


def test_names_of_the_forward_model_may_look_like_ours():
    model = build(
        [
            helper.make_node("Tanh", ["x"], ["vogcore/logit/Equal_1"], name="vogcore/logit/Equal_1"),
            node("Gemm", "vogcore/logit/Equal_1 vogcore/constant_1 b", "z", name="vogcore/logit/Unsqueeze_3"),
        ],
        [value("x", ["N", 3])],
        [value("z", ["N", 4])],
        {"vogcore/constant_1": random(3, 4), "b": random(4)},
    )
    gradient = gradient_model(model)
    names = [n.name for n in gradient.graph.node]
    values = [name for n in gradient.graph.node for name in n.output]
    values += [t.name for t in gradient.graph.initializer]
    assert len(set(names)) == len(names)
    assert len(set(values)) == len(values)
    session(gradient)


def test_forward_model_is_left_as_it_was():
    model = build(
        [node("MaxPool", "x", "h", kernel_shape=[2, 2]), node("Flatten", "h", "f"), node("Gemm", "f w b", "z")],
        [value("x", ["N", 1, 3, 3])], [value("z", ["N", 4])], {"w": random(4, 4), "b": random(4)},
    )  # fmt: skip
    before = model.SerializeToString()
    gradient_model(model)
    assert model.SerializeToString() == before


def test_half_precision_layer_normalization_is_computed_in_float32():
    """Squares of 300 do not fit float16; the operator itself computes in float32."""
    model = build(
        [node("LayerNormalization", "x s b", "y")],
        [value("x", [2, 8], TensorProto.FLOAT16)],
        [value("y", [2, 8], TensorProto.FLOAT16)],
        {"s": np.ones(8, np.float16), "b": np.zeros(8, np.float16)},
    )
    x = (300 * random(2, 8)).astype(np.float16)
    run = session(vjp_model(model, ["x"]))
    cotangent = random(2, 8, seed=1).astype(np.float16)
    got = run.run(None, {"x": x, "vogcore_cotangent": cotangent})[1]
    assert got.dtype == np.float16
    tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
    functional.layer_norm(tensor, (8,)).backward(torch.tensor(cotangent.astype(np.float64)))
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-2, atol=2e-5)
