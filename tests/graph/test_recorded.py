"""Shapes in the file that are not those of the values."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.autodiff.sessions import session
from tests.graph.models import node, random
from vogcore.autodiff import vjp_model
from vogcore.graph.prepare import prepare


def model(recorded: list[int | str]) -> onnx.ModelProto:
    """Max and a reduction behind a Transpose, whose output is recorded with ``recorded`` as its shape."""
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("Max", "t zero", "m"),
        node("ReduceSum", "m axis", "y", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [2]),
        ],
        value_info=[helper.make_tensor_value_info(name, TensorProto.FLOAT, recorded) for name in ("t", "m")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_wrong_shape_in_the_file_is_not_believed() -> None:
    x, dy = random(4, 3, 5).astype(np.float32), random(4, 5, seed=2).astype(np.float32)
    graph = vjp_model(model(["n", 3, 5]), ["x"])
    _, gradient = session(graph).run(None, {"x": x, "vogcore_cotangent": dy})
    np.testing.assert_allclose(gradient, np.where(x > 0, dy[:, None, :], 0), rtol=1e-6)


def test_a_shape_that_inference_does_not_find_is_kept() -> None:
    forward = model(["n", 5, 3])
    forward.graph.node[0].op_type = "Turn"
    forward.graph.node[0].domain = "elsewhere"
    del forward.graph.node[0].attribute[:]
    forward.opset_import.append(helper.make_opsetid("elsewhere", 1))
    (value,) = (v for n in prepare(forward).graph for v in n.outputs if v.name == "t")
    assert value.shape is not None
    assert [str(size) for size in value.shape] == ["n", "5", "3"]
