"""The digest of what a model computes apart from its weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vogcore.graph.light import structure_digest


def model(weight: float = 1.0, constant: float = 0.5, alpha: float = 0.1, operator: str = "Elu") -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
            helper.make_node(operator, ["a"], ["b"], alpha=alpha),
            helper.make_node("Mul", ["b", "c"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [
            numpy_helper.from_array(np.full((32, 16), weight, np.float32), "w"),
            numpy_helper.from_array(np.float32(constant), "c"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_weights_names_of_nodes_and_notes_do_not_count():
    other = model(weight=2.0)
    other.graph.node[0].name = "another"
    other.graph.node[0].doc_string = "a note"
    other.metadata_props.add(key="vogcore.step", value="7")
    other.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 16]))
    assert structure_digest(other) == structure_digest(model())


@pytest.mark.parametrize("change", [{"constant": 0.6}, {"alpha": 0.2}, {"operator": "LeakyRelu"}])
def test_operators_attributes_and_small_constants_count(change):
    assert structure_digest(model(**change)) != structure_digest(model())


def test_shapes_and_operator_sets_count():
    other = model()
    other.opset_import[0].version = 19
    assert structure_digest(other) != structure_digest(model())
    other = model()
    other.graph.initializer[0].dims[:] = [16, 32]
    assert structure_digest(other) != structure_digest(model())
