"""Slices side by side as one Split: the numbers and outputs stay, the gradient is one Concat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.graph.models import FLOAT, INT64, build, node, random, value
from vogcore.autodiff import vjp_model
from vogcore.graph.emit import Emitter
from vogcore.graph.join_slices import join_slices
from vogcore.graph.prepare import prepare

Taking = tuple[str, object, object, int, int]
"""("Slice", start, stop, axis, step) or ("Gather", position, None, axis, 1)."""


def model(shape: Sequence[int | str], taken: Sequence[Taking], outputs: Sequence[int] = ()) -> onnx.ModelProto:
    """x -> every part, and the sum over all parts of part times its number; some parts are outputs themselves."""
    weights: dict[str, np.ndarray] = {}
    nodes, terms = [], []
    for i, (op, start, stop, axis, step) in enumerate(taken):
        if op == "Gather":
            weights[f"i{i}"] = np.asarray(start, np.int64)
            nodes.append(node("Gather", f"x i{i}", f"part{i}", name=f"take{i}", axis=axis))
        else:
            for name, number in (("start", start), ("stop", stop), ("axis", axis), ("step", step)):
                weights[f"{name}{i}"] = np.asarray([number], np.int64)
            nodes.append(node("Slice", f"x start{i} stop{i} axis{i} step{i}", f"part{i}", name=f"take{i}"))
        weights[f"k{i}"] = np.asarray(i + 1, np.float32)
        nodes += [
            node("Mul", f"part{i} k{i}", f"scaled{i}", name=f"mul{i}"),
            node("Sin", f"scaled{i}", f"sin{i}", name=f"sin{i}"),
        ]
        nodes.append(node("ReduceSum", f"sin{i}", f"term{i}", name=f"sum{i}", keepdims=0))
        terms.append(f"term{i}")
    nodes.append(node("Sum", " ".join(terms), "y"))
    listed = [value("y", []), *(value(f"part{i}", None) for i in outputs)]
    graph = onnx.helper.make_graph(
        nodes, "parts", [value("x", shape)], listed, [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()]
    )
    return onnx.shape_inference.infer_shapes(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    )


def ops(graph: ir.Graph) -> Counter[str]:
    return Counter(each.op_type for each in graph)


def sliced(*ranges: tuple[int, int], axis: int = 1, step: int = 1) -> list[Taking]:
    return [("Slice", start, stop, axis, step) for start, stop in ranges]


THIRDS = sliced((0, 2), (2, 4), (4, 6))
JOINED = {
    "thirds": ((2, 6), THIRDS),
    "any order": ((2, 6), [THIRDS[2], THIRDS[0], THIRDS[1]]),
    "to the end": ((2, 6), sliced((0, 3), (3, 2**62))),
    "from the end": ((2, 6), sliced((-3, -1), (0, 2))),
    "gaps": ((2, 9), sliced((1, 2), (4, 6), (7, 8))),
    "negative axis": ((2, 3, 4), sliced((0, 1), (1, 4), axis=-1)),
    "open batch": (("N", 6), THIRDS),
    "the same twice": ((2, 6), [*THIRDS, THIRDS[0]]),
    "scalar positions": ((3, 2, 4), [("Gather", i, None, 0, 1) for i in (0, 1, 2)]),
    "positions from the end": ((2, 4), [("Gather", -1, None, 1, 1), ("Gather", 1, None, 1, 1)]),
    "positions as vectors": ((2, 4), [("Gather", [2], None, 1, 1), ("Gather", [0], None, 1, 1)]),
    "positions and ranges": ((2, 6), [("Gather", 0, None, 1, 1), *sliced((1, 6))]),
    "scalar and vector": ((2, 4), [("Gather", 2, None, 1, 1), ("Gather", [2], None, 1, 1), ("Gather", 1, None, 1, 1)]),
    "phases": ((2, 6, 3), sliced((0, 6), (1, 6), step=2)),
    "phases of three": ((2, 6), sliced((2, 6), (0, 2**62), step=3)),
    "phases in an open batch": (("N", 6, "C"), sliced((0, 6), (1, 6), step=2)),
}
ALONE = {
    "one": ((2, 6), THIRDS[:1]),
    "overlapping": ((2, 6), sliced((0, 3), (2, 6))),
    "different axes": ((4, 6), [*sliced((0, 2)), *sliced((2, 4), axis=0)]),
    "backwards": ((2, 6), sliced((3, -9), (5, 3), step=-1)),
    "open size": (("N", 6), sliced((0, 1), (1, 2), axis=0)),
    "phases of an odd size": ((2, 7), sliced((0, 7), (1, 7), step=2)),
    "phases that stop early": ((2, 6), sliced((0, 4), (1, 4), step=2)),
    "the whole": ((2, 6), sliced((0, 6), (0, 6))),
}


def example(shape: Sequence[int | str]) -> np.ndarray:
    return random(*(size if isinstance(size, int) else 3 for size in shape))


@pytest.mark.parametrize("name", JOINED)
def test_the_numbers_stay(name: str) -> None:
    shape, taken = JOINED[name]
    before = model(shape, taken)
    after = ir.from_proto(before)
    join_slices(Emitter(after.graph))
    assert ops(after.graph)["Split"] == 1
    assert ops(after.graph)["Slice"] == ops(after.graph)["Gather"] == 0
    written = ir.to_proto(after)
    onnx.checker.check_model(written, full_check=True)
    x = example(shape)
    for got, wanted in zip(session(written).run(None, {"x": x}), session(before).run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", [*JOINED, *ALONE])
def test_the_gradient_is_that_of_the_parts(name: str) -> None:
    shape, taken = {**JOINED, **ALONE}[name]
    x = example(shape).astype(np.float64)
    expected = np.zeros_like(x)
    for i, (op, start, stop, axis, step) in enumerate(taken):
        part = np.take(np.arange(x.size).reshape(x.shape), start, axis) if op == "Gather" else None
        if part is None:
            place = [slice(None)] * x.ndim
            place[axis] = slice(start, stop, step)
            part = np.arange(x.size).reshape(x.shape)[tuple(place)]
        expected.reshape(-1)[part] += (i + 1) * np.cos((i + 1) * x.reshape(-1)[part])
    gradient = vjp_model(model(shape, taken), ["x"], "y")
    onnx.checker.check_model(gradient)
    feeds = {"x": x.astype(np.float32), "vogcore_cotangent": np.ones((), np.float32)}
    for run in (session(gradient).run, evaluator(gradient).run):
        np.testing.assert_allclose(run(None, feeds)[1], expected, rtol=1e-4, atol=1e-5)
    if name in JOINED:
        kinds = Counter(each.op_type for each in gradient.graph.node)
        assert kinds["Concat"] == 1 or "open" in name
        assert kinds["Pad"] == kinds["ScatterElements"] == 0


@pytest.mark.parametrize("name", ALONE)
def test_other_nodes_stay(name: str) -> None:
    graph = ir.from_proto(model(*ALONE[name])).graph
    before = ops(graph)
    join_slices(Emitter(graph))
    assert ops(graph) == before


def test_outputs_and_kept_values_stay() -> None:
    whole = ir.from_proto(model((2, 6), THIRDS, outputs=[1]))
    kept = next(node.outputs[0] for node in whole.graph if node.name == "take2")
    join_slices(Emitter(whole.graph), [kept])
    assert ops(whole.graph)["Slice"] == 3
    join_slices(Emitter(whole.graph))
    assert ops(whole.graph)["Slice"] == 1
    written = ir.to_proto(whole)
    onnx.checker.check_model(written, full_check=True)
    x = random(2, 6)
    np.testing.assert_array_equal(session(written).run(["part1"], {"x": x})[0], x[:, 2:4])


def test_patch_merging_along_two_axes() -> None:
    """Swin: x[:, i::2, j::2] for four pairs, each as two Slice nodes."""
    weights = {f"n{k}": np.asarray([k], np.int64) for k in (0, 1, 2, 6)}
    nodes = []
    for i in (0, 1):
        for j in (0, 1):
            nodes.append(node("Slice", f"x n{i} n6 n1 n2", f"a{i}{j}", name=f"a{i}{j}"))
            nodes.append(node("Slice", f"a{i}{j} n{j} n6 n2 n2", f"b{i}{j}", name=f"b{i}{j}"))
    nodes.append(node("Concat", "b00 b10 b01 b11", "y", axis=-1))
    whole = build(nodes, [value("x", ["N", 4, 6, 5])], [value("y", ["N", 2, 3, 20])], weights)
    graph = prepare(whole).graph
    join_slices(Emitter(graph))
    kinds = ops(graph)
    assert kinds["Slice"] == 0
    assert kinds["Split"] == 3
    x, cotangent = random(2, 4, 6, 5), random(2, 2, 3, 20, seed=1)
    value_, gradient = session(vjp_model(whole, ["x"])).run(None, {"x": x, "vogcore_cotangent": cotangent})
    np.testing.assert_array_equal(value_, session(whole).run(None, {"x": x})[0])
    expected = np.zeros_like(x)
    for k, (i, j) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        expected[:, i::2, j::2] = cotangent[..., 5 * k : 5 * k + 5]
    np.testing.assert_array_equal(gradient, expected)


def test_integers_and_computed_positions_stay() -> None:
    weights = {f"n{k}": np.asarray([k], np.int64) for k in (0, 1, 2)}
    nodes = [
        node("Slice", "i n0 n1 n0", "j", name="first"),
        node("Slice", "i n1 n2 n0", "k", name="second"),
        node("Slice", "x j k n0", "y", name="third"),
        node("Slice", "x k n2 n0", "z", name="fourth"),
    ]
    whole = build(
        nodes, [value("x", [2]), value("i", [2], INT64)], [value("y", ["a"], FLOAT), value("z", ["b"], FLOAT)], weights
    )
    graph = prepare(whole).graph
    join_slices(Emitter(graph))
    assert ops(graph) == {"Slice": 4}
