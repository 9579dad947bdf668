"""Small models written by hand, so that these tests stand on ONNX alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES, CLASSES = 6, 4


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((FEATURES, CLASSES)).astype(np.float32), rng.standard_normal(CLASSES).astype(np.float32)


def model(nodes, inputs, outputs, initializers=(), metadata=None) -> onnx.ModelProto:
    """A model of (name, element type, shape) inputs and outputs and (name, array) initializers."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    for key, value in (metadata or {}).items():
        built.metadata_props.add(key=key, value=value)
    return built


def forward(batch: int | str = "N") -> onnx.ModelProto:
    """logits = tanh(x) @ W + b."""
    w, b = weights()
    nodes = [
        helper.make_node("Tanh", ["x"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "b"], ["logits"], name="head"),
    ]
    return model(
        nodes,
        [("x", TensorProto.FLOAT, [batch, FEATURES])],
        [("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [("w", w), ("b", b)],
    )


def gradient(batch: int | str = "N", *, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
    """The gradient graph of :func:`forward`: W[:, target] * (1 - tanh(x)^2)."""
    w, b = weights()
    nodes = [
        helper.make_node("Tanh", ["x"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "b"], ["logits"], name="head"),
        helper.make_node("Gather", ["wt", "vogcore_target"], ["row"], axis=0),
        helper.make_node("Mul", ["h", "h"], ["square"]),
        helper.make_node("Sub", ["one", "square"], ["slope"]),
        helper.make_node("Mul", ["row", "slope"], ["vogcore_gradient"]),
    ]
    return model(
        nodes,
        [("x", TensorProto.FLOAT, [batch, FEATURES]), ("vogcore_target", TensorProto.INT64, [batch])],
        [("logits", TensorProto.FLOAT, [batch, CLASSES]), ("vogcore_gradient", TensorProto.FLOAT, [batch, FEATURES])],
        [("w", w), ("b", b), ("wt", np.ascontiguousarray(w.T)), ("one", np.float32(1))],
        metadata,
    )


def examples(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, n)


def expected(x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and gradients in float64."""
    w, b = (array.astype(np.float64) for array in weights())
    h = np.tanh(x.astype(np.float64))
    return h @ w + b, w.T[target] * (1 - h**2)
