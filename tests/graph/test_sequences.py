"""Sequences that are known before the model runs are written out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.autodiff.sessions import session
from tests.graph.models import node, random, value
from vogcore.autodiff import vjp_model
from vogcore.errors import UnsupportedOpError
from vogcore.graph.prepare import prepare

WEIGHTS = {
    "zero": np.asarray(0, np.int64),
    "one": np.asarray(1, np.int64),
    "last": np.asarray(-1, np.int64),
    "two": np.asarray(2, np.int64),
    "lengths": np.asarray([1, 3], np.int64),
}
CASES: dict[str, tuple[list[onnx.NodeProto], Counter[str]]] = {
    "construct, at": ([node("SequenceConstruct", "w w x", "s"), node("SequenceAt", "s two", "y")], Counter()),
    "insert at the end": (
        [
            node("SequenceEmpty", "", "e"),
            node("SequenceInsert", "e w", "f", name="f"),
            node("SequenceInsert", "f x", "s", name="s"),
            node("SequenceAt", "s last", "y"),
        ],
        Counter(),
    ),
    "insert in front": (
        [
            node("SequenceConstruct", "w w", "e"),
            node("SequenceInsert", "e x zero", "s"),
            node("SequenceAt", "s zero", "y"),
        ],
        Counter(),
    ),
    "erase": (
        [
            node("SequenceConstruct", "x w x", "e"),
            node("SequenceErase", "e zero", "s"),
            node("SequenceAt", "s one", "y"),
        ],
        Counter(),
    ),
    "erase the last": (
        [node("SequenceConstruct", "x w", "e"), node("SequenceErase", "e", "s"), node("SequenceAt", "s last", "y")],
        Counter(),
    ),
    "concat": (
        [node("SequenceConstruct", "x w x", "s"), node("ConcatFromSequence", "s", "y", axis=1)],
        Counter(Concat=1),
    ),
    "stack": (
        [node("SequenceConstruct", "x w x", "s"), node("ConcatFromSequence", "s", "y", axis=-1, new_axis=1)],
        Counter(Concat=1, Unsqueeze=2),
    ),
    "split by one": ([node("SplitToSequence", "x", "s", axis=1), node("SequenceAt", "s two", "y")], Counter(Split=1)),
    "split, squeezed": (
        [node("SplitToSequence", "x", "s", axis=1, keepdims=0), node("SequenceAt", "s last", "y")],
        Counter(Split=1, Squeeze=1),
    ),
    "split by two": (
        [node("SplitToSequence", "x two", "s", axis=-1), node("SequenceAt", "s one", "y")],
        Counter(Split=1),
    ),
    "split by lengths": (
        [node("SplitToSequence", "x lengths", "s", axis=1, keepdims=0), node("SequenceAt", "s one", "y")],
        Counter(Split=1),
    ),
    "length": (
        [
            node("SplitToSequence", "x", "s", axis=1),
            node("SequenceLength", "s", "n"),
            node("Cast", "n", "c", to=TensorProto.FLOAT),
            node("Mul", "x c", "y"),
        ],
        Counter(Mul=1),
    ),
}


def model(nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto] | None = None) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in {**WEIGHTS, "w": random(2, 4)}.items()]
    graph = helper.make_graph(nodes, "lists", [value("x", [2, 4]), *(inputs or [])], [value("y", None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("name", CASES)
def test_written_out_and_differentiated(name: str) -> None:
    nodes, kinds = CASES[name]
    whole = model(nodes)
    left = Counter(each.op_type for each in prepare(whole).graph)
    del left["Identity"]
    assert left == kinds
    x = random(2, 4, seed=3)
    wanted = session(whole).run(None, {"x": x})[0]
    gradient = session(vjp_model(whole, ["x"]))
    cotangent = random(*wanted.shape, seed=4)
    got, product = gradient.run(None, {"x": x, "vogcore_cotangent": cotangent})
    np.testing.assert_array_equal(got, wanted)
    # Every one of them is linear in x, but for a constant.
    direction = random(2, 4, seed=5)
    change = session(whole).run(None, {"x": x + direction})[0] - wanted
    assert float((product * direction).sum()) == pytest.approx(float((cotangent * change).sum()), rel=1e-4, abs=1e-5)


def test_a_position_that_is_computed_is_refused_by_name() -> None:
    nodes = [node("SequenceConstruct", "x w", "s"), node("SequenceAt", "s i", "y")]
    with pytest.raises(UnsupportedOpError, match="Sequence"):
        vjp_model(model(nodes, [value("i", [], TensorProto.INT64)]), ["x"])
