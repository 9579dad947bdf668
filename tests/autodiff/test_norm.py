"""Normalisation layers in ONNX Runtime, in float32 and half precision, against torch in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from tests.autodiff.sessions import session
from tests.graph.models import build, node, random, value
from vogcore.autodiff import vjp_model
from vogcore.graph.prepare import prepare
from vogcore.graph.shapes import dims

Arrays = Sequence[np.ndarray]


def model_of(
    nodes: list[onnx.NodeProto], arrays: Arrays, opset: int, open_sizes: bool = False, domain: str = ""
) -> onnx.ModelProto:
    """``nodes`` from the inputs a, b, ... to y; half or single precision, as ``arrays``."""
    element = helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
    inputs = [value(n, [None] * a.ndim if open_sizes else list(a.shape), element) for n, a in zip("abcde", arrays)]
    graph = helper.make_graph(nodes, "norm", inputs, [helper.make_tensor_value_info("y", element, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, opset)], ir_version=10)


def agree(
    nodes: list[onnx.NodeProto],
    arrays: Arrays,
    reference: Callable[..., torch.Tensor],
    *,
    opset: int = 18,
    domain: str = "",
    tolerance: float = 2e-6,
) -> None:
    """The cotangents of all inputs, with sizes known and open, against torch's; and the forward pass too."""
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    expected = reference(*tensors)
    cotangent = random(*expected.shape, seed=99)
    expected.backward(torch.tensor(cotangent, dtype=torch.float64))
    feeds = dict(zip("abcde", arrays))
    for open_sizes in (False, True):
        runner = session(vjp_model(model_of(nodes, arrays, opset, open_sizes, domain), list(feeds), "y"))
        y, *gradients = runner.run(None, {**feeds, "vogcore_cotangent": cotangent.astype(arrays[0].dtype)})
        close(y, expected.detach().numpy(), 10 * tolerance)
        for tensor, array, gradient in zip(tensors, arrays, gradients, strict=True):
            assert (gradient.dtype, gradient.shape) == (array.dtype, array.shape)
            close(gradient, tensor.grad.numpy(), tolerance)


def close(got: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    assert np.linalg.norm(got - wanted) <= tolerance * max(np.linalg.norm(wanted), 1e-3)


@pytest.mark.parametrize("shape", [(6, 3, 4, 4), (6, 3, 5), (6, 3)], ids=str)
def test_batch_normalization(shape: tuple[int, ...]) -> None:
    vectors = [random(3, seed=i) for i in range(3)]
    agree(
        [node("BatchNormalization", "a b c d e", "y", epsilon=1e-3)],
        [random(*shape), *vectors, 0.5 + random(3, seed=4) ** 2],
        # torch differentiates its own with respect to x, scale and bias only.
        lambda x, scale, bias, mean, var: ((x.movedim(1, -1) - mean) / torch.sqrt(var + 1e-3) * scale + bias).movedim(
            -1, 1
        ),
    )


@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("axis", [-1, 1, -3])
def test_layer_normalization(axis: int, shift: float) -> None:
    kept = (4, 3, 5)[axis:]
    agree(
        [node("LayerNormalization", "a b c", "y", axis=axis, epsilon=1e-3)],
        [random(4, 3, 5) + np.float32(shift), random(*kept, seed=1), random(*kept, seed=2)],
        lambda x, scale, bias: functional.layer_norm(x, kept, scale, bias, eps=1e-3),
        tolerance=2e-6 if shift == 0 else 2e-4,  # float32 holds x to 1e-7 of 100
    )


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("used", ["mean", "rate", "y0 mean", "y0 rate", "mean rate", "y0 mean rate"])
def test_statistics_that_the_model_uses_itself(used: str, axis: int) -> None:
    axes = tuple(range(axis % 3, 3))

    def reference(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        mean = x.mean(axes, keepdim=True)
        rate = 1 / torch.sqrt(x.var(axes, keepdim=True, correction=0) + 1e-5)
        values = {"mean": mean, "rate": rate, "y0": (x - mean) * rate * scale}
        return sum(torch.tanh(values[name]) for name in used.split()) + torch.zeros_like(x)

    parts = [node("Tanh", name, f"t{i}", name=f"tanh{i}") for i, name in enumerate(used.split())]
    zeros = node("Sub", "a a", "nothing")
    total = node("Sum", " ".join(["nothing", *(p.output[0] for p in parts)]), "y")
    nodes = [node("LayerNormalization", "a s", "y0 mean rate", axis=axis), *parts, zeros, total]
    scale = random(*(4, 3, 5)[axis % 3 :], seed=1)
    constant = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(scale))
    agree(
        [constant, *nodes],
        [random(4, 3, 5)],
        lambda x: reference(x, torch.tensor(scale, dtype=torch.float64)),
        tolerance=5e-6,
    )


def test_layer_normalization_reads_the_statistics_of_the_forward_node() -> None:
    arrays = [random(4, 3, 5), random(5, seed=1)]
    model = vjp_model(model_of([node("LayerNormalization", "a b", "y")], arrays, 18), ["a"])
    ops = [n.op_type for n in model.graph.node]
    assert [ops.count(op) for op in ("LayerNormalization", "ReduceMean", "Sqrt")] == [1, 2, 0]


@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_normalization(axis: int) -> None:
    agree(
        [node("RMSNormalization", "a b", "y", axis=axis, epsilon=1e-3)],
        [random(4, 3, 5), random(*(4, 3, 5)[axis:], seed=1)],
        lambda x, scale: functional.rms_norm(x, scale.shape, scale, eps=1e-3),
        opset=23,
    )


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (2, 4, 7)], ids=str)
def test_instance_normalization(shape: tuple[int, ...]) -> None:
    agree(
        [node("InstanceNormalization", "a b c", "y", epsilon=1e-3)],
        [random(*shape), random(4, seed=1), random(4, seed=2)],
        lambda x, scale, bias: functional.instance_norm(x, weight=scale, bias=bias, eps=1e-3),
    )


@pytest.mark.parametrize("shape", [(2, 6, 5, 3), (2, 6, 7), (3, 6)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalization(shape: tuple[int, ...], groups: int) -> None:
    if shape[1] == groups and len(shape) == 2:
        groups = 3  # one number has no spread
    # Operators behind it see its shape.
    nodes = [node("GroupNormalization", "a b c", "g", num_groups=groups, epsilon=1e-3), node("Tanh", "g", "y")]
    agree(
        nodes,
        [random(*shape), random(6, seed=1), random(6, seed=2)],
        lambda x, scale, bias: functional.group_norm(x, groups, scale, bias, eps=1e-3).tanh(),
        opset=21,
        tolerance=5e-6,
    )


@pytest.mark.parametrize("op", ["GroupNormalization", "MeanVarianceNormalization"])
def test_shapes_are_known_behind_what_onnx_cannot_infer(op: str) -> None:
    group = op == "GroupNormalization"
    model = build(
        [
            node(op, "x s s" if group else "x", "n", **({"num_groups": 2} if group else {})),
            node("Relu", "n", "y"),
        ],
        [value("x", ["N", 4, 3])],
        [value("y", ["N", 4, 3])],
        {"s": np.ones(4, np.float32)},
        opset=21,
        ir_version=10,
    )
    before = model.graph.node[0].SerializeToString()
    first = next(iter(prepare(model).graph))
    assert dims(first.outputs[0]) == ("N", 4, 3)
    assert ir.to_proto(first).SerializeToString() == before
    assert model.graph.node[0].SerializeToString() == before


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
@pytest.mark.parametrize("shape", [(2, 6, 5, 3), (2, 6, 7)], ids=str)
def test_group_normalization_with_a_scale_for_each_group(shape: tuple[int, ...], domain: str) -> None:
    agree(
        [node("GroupNormalization", "a b c", "y", num_groups=2, epsilon=1e-3)],
        [random(*shape), random(2, seed=1), random(2, seed=2)],
        lambda x, scale, bias: functional.group_norm(
            x, 2, scale.repeat_interleave(3), bias.repeat_interleave(3), eps=1e-3
        ),
        opset=18,
        domain=domain,
    )


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0, 0.6])
@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_local_response_normalization(size: int, beta: float) -> None:
    agree(
        [node("LRN", "a", "y", size=size, alpha=0.7, beta=beta, bias=2.0)],
        [random(2, 6, 4, 3)],
        lambda x: functional.local_response_norm(x, size, alpha=0.7, beta=beta, k=2.0),
    )


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(p: int, axis: int) -> None:
    agree(
        [node("LpNormalization", "a", "y", p=p, axis=axis)],
        [random(2, 6, 4)],
        lambda x: functional.normalize(x, p=p, dim=axis),
    )


@pytest.mark.parametrize("p", [1, 2])
def test_gradient_of_a_zero_vector_is_zero(p: int) -> None:
    x = random(3, 4)
    x[1] = 0
    runner = session(vjp_model(model_of([node("LpNormalization", "a", "y", p=p)], [x], 18), ["a"], "y"))
    gradient = runner.run(None, {"a": x, "vogcore_cotangent": random(3, 4, seed=1)})[1]
    assert np.isfinite(gradient).all()
    assert gradient.any(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize("axes", [[0, 2, 3], [2, 3], [-1]], ids=str)
def test_mean_variance_normalization(axes: list[int]) -> None:
    agree(
        [node("MeanVarianceNormalization", "a", "n", axes=axes), node("Softmax", "n", "y", axis=1)],
        [random(2, 3, 5, 4)],
        lambda x: ((x - x.mean(axes, keepdim=True)) / (x.std(axes, keepdim=True, correction=0) + 1e-9)).softmax(1),
        opset=13,
        tolerance=5e-6,
    )


HALF = {
    "layer": (18, node("LayerNormalization", "a b c", "y"), lambda *t: functional.layer_norm(t[0], (8,), *t[1:])),
    "rms": (23, node("RMSNormalization", "a b", "y"), lambda x, s: functional.rms_norm(x, (8,), s, eps=1e-5)),
    "group": (
        21,
        node("GroupNormalization", "a b c", "y", num_groups=2),
        lambda *t: functional.group_norm(t[0], 2, *t[1:]),
    ),
}


@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_summed_in_single(name: str) -> None:
    opset, operator, reference = HALF[name]
    # Sums of squares of such numbers do not fit float16.
    arrays = [(200 * random(2, 8, 8)).astype(np.float16)] + [random(8, seed=i).astype(np.float16) for i in (1, 2)]
    agree([operator], arrays[: len(operator.input)], reference, opset=opset, tolerance=2e-3)


def test_float64_statistics_are_not_rounded_to_float32() -> None:
    x, scale = random(4, 6).astype(np.float64), random(6, seed=1).astype(np.float64)
    graph = helper.make_graph(
        [node("LayerNormalization", "a b", "y")],
        "double",
        [value("a", [4, 6], TensorProto.DOUBLE), value("b", [6], TensorProto.DOUBLE)],
        [value("y", [4, 6], TensorProto.DOUBLE)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    cotangent = random(4, 6, seed=2).astype(np.float64)
    got = session(vjp_model(model, ["a"])).run(None, {"a": x, "b": scale, "vogcore_cotangent": cotangent})[1]
    tensor = torch.tensor(x, requires_grad=True)
    functional.layer_norm(tensor, (6,), torch.tensor(scale)).backward(torch.tensor(cotangent))
    close(got, tensor.grad.numpy(), 1e-8)  # epsilon, which is a float32 attribute
