"""Rewritings of the forward graph: the same numbers and gradients from fewer operations."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from tests.autodiff.reference import Erf
from tests.graph.models import DOUBLE, build, node, value
from vogcore.graph.emit import Emitter
from vogcore.graph.gelu import recognise_gelu, write_gelu_out
from vogcore.graph.merge_transposes import merge_transposes
from vogcore.graph.narrow import narrow
from vogcore.graph.prepare import prepare
from vogcore.graph.relu_after_pool import relu_after_pool
from vogcore.graph.simplify import simplify

RNG = np.random.default_rng(5)


def rewritten(model: onnx.ModelProto, rewrite) -> onnx.ModelProto:
    prepared = prepare(model)
    rewrite(prepared.graph)
    return ir.to_proto(prepared)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    return ReferenceEvaluator(model, new_ops=[Erf]).run(None, {"x": x})


def operators(model: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node]


# -- Relu and MaxPool ----------------------------------------------------------------------------------------------


def pooled(*, used_twice: bool = False) -> onnx.ModelProto:
    nodes = [node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=[2, 2], strides=[2, 2])]
    outputs = [value("y", ["N", 2, 2, 2], DOUBLE)]
    if used_twice:
        nodes.append(node("Neg", "r", "n"))
        outputs.append(value("n", ["N", 2, 4, 4], DOUBLE))
    return build(nodes, [value("x", ["N", 2, 4, 4], DOUBLE)], outputs)


def test_relu_moves_behind_the_pooling() -> None:
    model, x = pooled(), RNG.normal(size=(3, 2, 4, 4))
    result = rewritten(model, relu_after_pool)
    onnx.checker.check_model(result)
    assert operators(result) == ["MaxPool", "Relu"]
    assert [o.name for o in result.graph.output] == ["y"]
    np.testing.assert_array_equal(run(result, x)[0], run(model, x)[0])


def test_relu_that_is_used_elsewhere_stays() -> None:
    assert operators(rewritten(pooled(used_twice=True), relu_after_pool)) == ["Relu", "MaxPool", "Neg"]


def test_relu_that_must_be_kept_stays() -> None:
    def rewrite(graph: ir.Graph) -> None:
        relu_after_pool(graph, [v for n in graph for v in n.outputs if v.name == "r"])

    assert operators(rewritten(pooled(), rewrite)) == ["Relu", "MaxPool"]


# -- GELU ----------------------------------------------------------------------------------------------------------

ORDERS = {
    "x (1 + erf) then half": [("Mul", "x p", "m"), ("Mul", "m half", "y")],
    "half (1 + erf) then x": [("Mul", "half p", "m"), ("Mul", "x m", "y")],
    "half x first": [("Mul", "x half", "m"), ("Mul", "m p", "y")],
}


def gelu(order: str, scale: str, **changes: float) -> onnx.ModelProto:
    root = float(np.sqrt(2))
    weights = {
        "root": np.asarray(root),
        "inverse": np.asarray(1 / root),
        "one": np.asarray(1.0),
        "half": np.asarray(0.5),
    }
    weights |= {name: np.asarray(number) for name, number in changes.items()}
    start = node("Div", "x root", "u") if scale == "Div" else node("Mul", "inverse x", "u")
    nodes = [start, node("Erf", "u", "e"), node("Add", "e one", "p")]
    nodes += [node(op, inputs, output) for op, inputs, output in ORDERS[order]]
    used = {name for n in nodes for name in n.input}
    weights = {name: array for name, array in weights.items() if name in used}
    return build(nodes, [value("x", ["N", 3], DOUBLE)], [value("y", ["N", 3], DOUBLE)], weights)


@pytest.mark.parametrize("scale", ["Div", "Mul"])
@pytest.mark.parametrize("order", ORDERS)
def test_gelu_is_recognised_and_written_out_again(order: str, scale: str) -> None:
    model, x = gelu(order, scale), RNG.normal(size=(50, 3))
    prepared = prepare(model)
    recognise_gelu(prepared.graph)
    assert "Gelu" in [n.op_type for n in prepared.graph]
    write_gelu_out(Emitter(prepared.graph))
    result = ir.to_proto(prepared)
    assert "Gelu" not in operators(result)
    onnx.checker.check_model(result)
    np.testing.assert_allclose(run(result, x)[0], run(model, x)[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("changes", [{"one": 2.0}, {"half": 0.25}, {"root": 1.3, "inverse": 0.8}])
@pytest.mark.parametrize("order", ORDERS)
def test_other_functions_are_not_taken_for_gelu(order: str, changes: dict) -> None:
    model = gelu(order, "Div", **{k: v for k, v in changes.items() if k != "inverse"})
    assert "Gelu" not in operators(rewritten(model, recognise_gelu))


def test_what_is_left_of_a_recognised_gelu_is_removed() -> None:
    prepared = prepare(gelu("half (1 + erf) then x", "Div"))
    simplify(Emitter(prepared.graph), [])
    assert [n.op_type for n in prepared.graph] == ["Gelu"]


# -- transposed keys -----------------------------------------------------------------------------------------------


def turned(merge: list[int], apart: list[int], perm: list[int]) -> onnx.ModelProto:
    nodes = [
        node("Reshape", "x merge", "m"),
        node("Transpose", "m", "t", perm=perm),
        node("Reshape", "t apart", "y"),
    ]
    weights = {"merge": np.asarray(merge, np.int64), "apart": np.asarray(apart, np.int64)}
    return build(nodes, [value("x", ["N", 3, 4, 5], DOUBLE)], [value("y", [None] * len(apart), DOUBLE)], weights)


def test_detour_over_merged_axes_becomes_one_transpose() -> None:
    model, x = turned([-1, 4, 5], [-1, 3, 5, 4], [0, 2, 1]), RNG.normal(size=(2, 3, 4, 5))
    prepared = prepare(model)
    simplify(Emitter(prepared.graph), [])
    result = ir.to_proto(prepared)
    onnx.checker.check_model(result)
    assert operators(result) == ["Transpose"]
    np.testing.assert_array_equal(run(result, x)[0], run(model, x)[0])


@pytest.mark.parametrize(
    ("merge", "apart", "perm"),
    [
        ([-1, 4, 5], [-1, 5, 3, 4], [0, 2, 1]),
        ([-1, 4, 5], [-1, 15, 4], [0, 2, 1]),
        ([-1, 2, 10], [-1, 3, 10, 2], [0, 2, 1]),
        ([-1, 4, 5], [5, -1, 3, 4], [2, 0, 1]),
    ],
)
def test_other_detours_are_left_alone(merge: list[int], apart: list[int], perm: list[int]) -> None:
    model = turned(merge, apart, perm)
    assert operators(rewritten(model, merge_transposes)) == ["Reshape", "Transpose", "Reshape"]


# -- selections ----------------------------------------------------------------------------------------------------

T, D = 7, 4


def encoder(selection: list[onnx.NodeProto], shape: list, extra: dict | None = None) -> onnx.ModelProto:
    """A transformer-like block on (N, T, D): residual, normalisation, attention, MLP, then a selection of positions."""
    weights = {
        "g": RNG.normal(size=D), "wq": RNG.normal(size=(D, D)), "wk": RNG.normal(size=(D, D)),
        "w1": RNG.normal(size=(D, 9)),
        "b1": RNG.normal(size=9), "w2": RNG.normal(size=(9, D)), "position": RNG.normal(size=(1, T, D)),
        "heads": np.asarray([0, T, 2, 2], np.int64), "joined": np.asarray([0, T, D], np.int64), **(extra or {}),
    }  # fmt: skip
    nodes = [
        node("Add", "x position", "h"),
        node("LayerNormalization", "h g", "n", axis=-1),
        node("MatMul", "n wq", "q"),
        node("MatMul", "n wk", "k"),
        node("Reshape", "q heads", "qh"),
        node("Reshape", "k heads", "kh"),
        node("Transpose", "qh", "qt", perm=[0, 2, 1, 3]),
        node("Transpose", "kh", "kt", perm=[0, 2, 3, 1]),
        node("MatMul", "qt kt", "scores"),
        node("Softmax", "scores", "p", axis=-1),
        node("Transpose", "kh", "vt", perm=[0, 2, 1, 3]),
        node("MatMul", "p vt", "o"),
        node("Transpose", "o", "ot", perm=[0, 2, 1, 3]),
        node("Reshape", "ot joined", "a"),
        node("Add", "h a", "r"),
        node("MatMul", "r w1", "m1"),
        node("Add", "m1 b1", "m2"),
        node("Tanh", "m2", "m3"),
        node("MatMul", "m3 w2", "m4"),
        node("Add", "m4 r", "last"),
        *selection,
    ]
    return build(nodes, [value("x", ["N", T, D], DOUBLE)], [value("y", shape, DOUBLE)], weights)


SELECTIONS = {
    "first": ([node("Gather", "last i", "y", axis=1)], ["N", D], {"i": np.asarray(0, np.int64)}),
    "last, counted from behind": ([node("Gather", "last i", "y", axis=-2)], ["N", D], {"i": np.asarray(-1, np.int64)}),
    "two, swapped": ([node("Gather", "last i", "y", axis=1)], ["N", 2, D], {"i": np.asarray([3, 1], np.int64)}),
    "slice": (
        [node("Slice", "last s e ax", "y")],
        ["N", 2, D],
        {"s": np.asarray([1], np.int64), "e": np.asarray([3], np.int64), "ax": np.asarray([1], np.int64)},
    ),
    "two uses": (
        [node("Gather", "last i", "y0", axis=1), node("Gather", "last j", "y1", axis=1), node("Mul", "y0 y1", "y")],
        ["N", D],
        {"i": np.asarray(0, np.int64), "j": np.asarray(2, np.int64)},
    ),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selection_moves_up_and_changes_nothing(name: str) -> None:
    model = encoder(*SELECTIONS[name])
    x = RNG.normal(size=(3, T, D))
    result = rewritten(model, lambda graph: narrow(Emitter(graph)))
    result = onnx.shape_inference.infer_shapes(result, strict_mode=True)
    onnx.checker.check_model(result)
    np.testing.assert_allclose(run(result, x)[0], run(model, x)[0], rtol=1e-12, atol=1e-12)
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in result.graph.value_info}
    # Keys and values need every position; queries, projection and MLP only those that are read.
    assert sizes["k"][1] == T
    for hidden in ("qt", "p", "o"):
        assert sizes[hidden][2] < T
    for hidden in ("m1", "m3", "m4", "r"):
        assert sizes[hidden][1] < T


def test_a_value_that_must_be_kept_stays_whole() -> None:
    def rewrite(graph: ir.Graph) -> None:
        narrow(Emitter(graph), [v for n in graph for v in n.outputs if v.name == "m3"])

    result = onnx.shape_inference.infer_shapes(rewritten(encoder(*SELECTIONS["first"]), rewrite))
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in result.graph.value_info}
    assert sizes["m3"][1] == T
    assert sizes["m4"][1] == 1


def test_a_value_that_is_also_an_output_stays_whole() -> None:
    model = encoder(*SELECTIONS["first"])
    model.graph.output.append(value("last", ["N", T, D], DOUBLE))
    x = RNG.normal(size=(2, T, D))
    result = rewritten(model, lambda graph: narrow(Emitter(graph)))
    for got, expected in zip(run(result, x), run(model, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_most_positions_are_not_worth_it() -> None:
    extra = {"i": np.arange(T - 1)}
    model = encoder([node("Gather", "last i", "y", axis=1)], ["N", T - 1, D], extra)
    result = onnx.shape_inference.infer_shapes(rewritten(model, lambda graph: narrow(Emitter(graph))))
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in result.graph.value_info}
    assert sizes["m4"][1] == T
