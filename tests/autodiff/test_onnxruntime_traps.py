"""What ONNX Runtime's optimiser gets wrong, or refuses, in gradient graphs that are valid ONNX."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.autodiff.sessions import session
from tests.graph.models import node, random
from vogcore.autodiff import vjp_model


def model(nodes: list[onnx.NodeProto], sizes: list[int | str], **initializers: np.ndarray) -> onnx.ModelProto:
    """A graph from x to y in float32."""
    graph = helper.make_graph(
        nodes,
        "trap",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def in_both(forward: onnx.ModelProto, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradient by ONNX Runtime with all its optimisations, and with none."""
    graph = vjp_model(forward, ["x"])
    (y,) = session(forward).run(None, {"x": x})
    feeds = {"x": x, "vogcore_cotangent": random(*y.shape, seed=3).astype(np.float32)}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    plain = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session(graph).run(None, feeds)[1], plain.run(None, feeds)[1]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("op", ["Slice", "Gather", "Pad"])
def test_padding_between_transposes(op: str, axis: int) -> None:
    """The optimiser moves a Transpose past a Pad, and confuses the axes where the Pad names them."""
    nodes = [node("Transpose", "x", "t", perm=[2, 0, 1])]
    constants = {"one": np.array([1], np.int64), "three": np.array([3], np.int64), "axis": np.array([axis], np.int64)}
    if op == "Slice":
        nodes.append(node("Slice", "t one three axis", "s"))
    elif op == "Gather":
        nodes.append(node("Gather", "t one", "s", axis=axis))
    else:
        nodes.append(node("Pad", "t amounts", "s"))
        constants["amounts"] = np.array([-1 if i == axis else 0 for i in range(6)], np.int64)
    nodes += [node("Relu", "s", "r"), node("Transpose", "r", "y", perm=[1, 2, 0], name="back")]
    got, expected = in_both(model(nodes, ["n", 5, 6], **constants), random(4, 5, 6).astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_convolution_with_a_stride_over_images_of_open_size() -> None:
    """A value that is recorded with a wrong type is refused when the session is created."""
    kernel = random(4, 1, 3, 3, seed=1).astype(np.float32)
    nodes = [node("Conv", "x k", "y", group=4, strides=[2, 2], pads=[1, 1, 1, 1])]
    got, expected = in_both(model(nodes, ["n", 4, "h", "w"], k=kernel), random(2, 4, 8, 7).astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
