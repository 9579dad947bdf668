"""A fixed batch made symbolic: the rewritten model at other batch sizes against the original, batch by batch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.graph.models import INT64, build, linear, node, random, value
from vogcore.graph import dynamic_batch


def int64(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, np.int64)


def reshaped(batch: int, target: np.ndarray, **attributes) -> onnx.ModelProto:
    """x (batch, 2, 6) as `target`, then to (batch, 12)."""
    return build(
        [node("Reshape", "x to", "h", **attributes), node("Flatten", "h", "y", axis=1)],
        [value("x", [batch, 2, 6])],
        [value("y", [batch, 12])],
        {"to": target},
    )


def class_token(batch: int) -> onnx.ModelProto:
    """A learnt row put in front of every sequence: Expand with the batch built in."""
    return build(
        [node("Expand", "token to", "t"), node("Concat", "t x", "y", axis=1)],
        [value("x", [batch, 5, 3])],
        [value("y", [batch, 6, 3])],
        {"token": random(1, 1, 3), "to": int64(batch, 1, 3)},
    )


def tiled(batch: int) -> onnx.ModelProto:
    return build(
        [node("Tile", "row n", "t"), node("Concat", "t x", "y", axis=1)],
        [value("x", [batch, 3])],
        [value("y", [batch, 5])],
        {"row": random(1, 2), "n": int64(batch, 1)},
    )


def filled(batch: int) -> onnx.ModelProto:
    return build(
        [node("ConstantOfShape", "shape", "zeros"), node("Concat", "zeros x", "y", axis=1)],
        [value("x", [batch, 3])],
        [value("y", [batch, 5])],
        {"shape": int64(batch, 2)},
    )


def tokens(batch: int) -> onnx.ModelProto:
    """Rows of all examples in one matrix, and back: the batch is a factor of one size."""
    return build(
        [node("Reshape", "x rows", "r"), node("MatMul", "r w", "m"), node("Reshape", "m back", "y")],
        [value("x", [batch, 5, 4])],
        [value("y", [batch, 5, 3])],
        {"rows": int64(batch * 5, 4), "back": int64(batch, -1, 3), "w": random(4, 3)},
    )


def parameter(batch: int) -> onnx.ModelProto:
    """A Reshape of a weight whose first size only happens to be one."""
    return build(
        [node("Reshape", "scale to", "s"), node("Mul", "x s", "y")],
        [value("x", [batch, 3, 2, 2])],
        [value("y", [batch, 3, 2, 2])],
        {"scale": random(3), "to": int64(1, -1, 1, 1)},
    )


FREED = {
    "linear": linear,
    "reshape": lambda b: reshaped(b, int64(b, 12)),
    "reshape with an open size": lambda b: reshaped(b, int64(b, -1)),
    "reshape with an open size and allowzero": lambda b: reshaped(b, int64(b, -1), allowzero=1),
    "reshape with a copied size": lambda b: reshaped(b, int64(b, 0, 3, 2)),
    "reshape that is open already": lambda b: reshaped(b, int64(-1, 12)),
    "class token": class_token,
    "rows and back": tokens,
    "reshaped parameter": parameter,
}


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("name", FREED)
def test_rewritten_model_computes_the_same_at_any_batch(name, batch):
    check(FREED[name](batch), batch)


@pytest.mark.parametrize("make", [tiled, filled])
@pytest.mark.parametrize("batch", [2, 3])
def test_repeats_and_filled_shapes_follow_the_batch(make, batch):
    check(make(batch), batch)


def check(model: onnx.ModelProto, batch: int) -> None:
    before = model.SerializeToString()
    free = dynamic_batch(model)
    assert free is not None
    assert free is not model
    assert model.SerializeToString() == before
    onnx.checker.check_model(free, full_check=True)
    for value_info in [*free.graph.input, *free.graph.output]:
        assert value_info.type.tensor_type.shape.dim[0].dim_param
    original, rewritten = ReferenceEvaluator(model), ReferenceEvaluator(free)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = random(3 * batch, *shape)
    expected = [original.run(None, {"x": x[i : i + batch]})[0] for i in range(0, len(x), batch)]
    np.testing.assert_allclose(rewritten.run(None, {"x": x})[0], np.concatenate(expected), rtol=1e-5, atol=1e-6)
    assert len(rewritten.run(None, {"x": x[:1]})[0]) == 1


def test_constant_nodes_hold_shapes_too():
    constant = helper.make_node("Constant", [], ["to"], value_ints=[2, 12])
    model = build([constant, node("Reshape", "x to", "y")], [value("x", [2, 2, 6])], [value("y", [2, 12])])
    check(model, 2)


def test_shared_target_of_a_reshape_and_another_node_is_not_changed_for_both():
    model = build(
        [node("Reshape", "x to", "h"), node("Cast", "to", "c", to=TensorProto.FLOAT), node("Add", "h c", "y")],
        [value("x", [2, 1, 2])],
        [value("y", [2, 2])],
        {"to": int64(2, 2)},
    )
    check(model, 2)


@pytest.mark.parametrize("batch", ["N", None])
def test_dynamic_model_is_handed_back(batch):
    model = linear(batch)
    assert dynamic_batch(model) is model


def test_initializers_among_the_inputs_do_not_count():
    model = linear(2)
    model.graph.input.extend([value("w", [4, 3]), value("b", [3])])
    free = dynamic_batch(model)
    assert [i.type.tensor_type.shape.dim[0].dim_value for i in free.graph.input] == [0, 4, 3]


def test_second_input_is_freed_with_the_first():
    model = build(
        [node("Gather", "x i", "y", axis=0)], [value("x", [2, 4]), value("i", [2], INT64)], [value("y", [2, 4])]
    )
    free = dynamic_batch(model)
    symbols = {v.type.tensor_type.shape.dim[0].dim_param for v in [*free.graph.input, *free.graph.output]}
    assert len(symbols) == 1


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ([value("x", [2, 4]), value("y", [3, 4])], [2, 4]),  # no common leading size
        ([value("x", [2, 4]), value("y", [])], [2, 4]),  # a scalar beside it
        ([value("x", [2, 4]), value("y", [2, 4])], [1, 4]),  # examples mixed in the output
        ([value("x", [0, 4]), value("y", [0, 4])], [0, 4]),  # no example at all
    ],
)
def test_no_way_gives_none(inputs, output):
    graph = helper.make_graph([node("Add", "x y", "z")], "g", inputs, [value("z", output)])
    assert dynamic_batch(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])) is None


def test_package_offers_the_function_whatever_was_imported_first():
    code = "import vogcore.graph.batch_axis; from vogcore.graph import dynamic_batch; assert callable(dynamic_batch)"
    subprocess.run([sys.executable, "-c", code], check=True)
