"""Write operators that came with opset 22 or later as several older ones, where the whole model can then be lowered.

Requires: local functions inlined; ranks inferred as far as ONNX can.
Ensures: either the model is left alone, or no Swish and no RMSNormalization is left in it and its nodes can be
expressed at one of the opsets at which ONNX Runtime's CUDA provider lacks nothing (:data:`CLEAN_OPSETS`).

Operators that those opsets have (Gelu, GroupNormalization) stay: they have kernels of their own there, or ONNX
Runtime writes them out itself. Attention stays too, and keeps the opset of its model: it has a CUDA kernel at 23 and
24, and what that gains is more than a MaxPool on the CPU, which such a model hardly has, would cost.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import replace_nodes_and_values

from vogcore.graph.cuda import CLEAN_OPSETS
from vogcore.graph.lower_opset import lowest_opset
from vogcore.graph.shapes import rank

__all__ = ["decompose_for_cuda"]


class _Writer:
    """Makes the nodes that stand for one node."""

    def __init__(self, node: ir.Node) -> None:
        self.node, self.nodes = node, list[ir.Node]()
        self._stem = node.name or node.outputs[0].name or node.op_type

    def op(self, op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        name = f"{self._stem}/{op}_{len(self.nodes)}"
        made = ir.node(op, inputs, attributes, name=name)
        made.outputs[0].name = name
        made.outputs[0].type, made.outputs[0].shape = inputs[0].type, inputs[0].shape
        self.nodes.append(made)
        return made.outputs[0]

    def constant(self, array: np.ndarray) -> ir.Value:
        name = f"{self._stem}/constant_{len(self.nodes)}"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        graph.register_initializer(value)
        return value

    def number(self, number: float, like: ir.Value) -> ir.Value:
        return self.constant(np.asarray(number, (like.dtype or ir.DataType.FLOAT).numpy()))

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        result = self.op("Cast", value, to=int(dtype))
        result.type = ir.TensorType(dtype)
        return result


def _swish(write: _Writer, x: ir.Value) -> ir.Value:
    """y = x sigmoid(alpha x)."""
    alpha = write.node.attributes.get_float("alpha", 1.0)
    scaled = x if alpha == 1.0 else write.op("Mul", x, write.number(alpha, x))
    return write.op("Mul", x, write.op("Sigmoid", scaled))


def _rms_normalization(write: _Writer, x: ir.Value) -> ir.Value:
    """y = scale x / sqrt(mean x² + epsilon), the mean over the axes from ``axis`` on, in the type of ``stash_type``."""
    node = write.node
    axes = _normalised_axes(node)
    stash = ir.DataType(node.attributes.get_int("stash_type", int(ir.DataType.FLOAT)))
    wide = write.cast(x, stash)
    mean = write.op("ReduceMean", write.op("Mul", wide, wide), write.constant(np.asarray(axes, np.int64)), keepdims=1)
    mean.shape = None
    root = write.op("Sqrt", write.op("Add", mean, write.number(node.attributes.get_float("epsilon", 1e-5), mean)))
    normalised = write.op("Div", wide, root)
    scale = node.inputs[1]
    assert scale is not None
    return write.op("Mul", write.cast(normalised, scale.dtype or stash), scale)


def _normalised_axes(node: ir.Node) -> list[int]:
    """Axes of RMSNormalization; empty where they are counted from the front of a tensor of unknown rank."""
    axis, known = node.attributes.get_int("axis", -1), rank(node.inputs[0]) if node.inputs[0] is not None else None
    if axis < 0:
        return list(range(axis, 0))
    return list(range(axis, known)) if known is not None else []


_PARTS: dict[str, Callable[[_Writer, ir.Value], ir.Value]] = {
    "RMSNormalization": _rms_normalization,
    "Swish": _swish,
}


def decompose_for_cuda(model: ir.Model) -> None:
    """Decompose Swish and RMSNormalization of ``model`` in place, if that makes an older opset possible."""
    if lowest_opset(model) <= CLEAN_OPSETS[-1] or lowest_opset(model, without=_PARTS) > CLEAN_OPSETS[-1]:
        return
    nodes = [node for node in model.graph.all_nodes() if node.op_type in _PARTS and node.domain in ("", "ai.onnx")]
    if any(node.op_type == "RMSNormalization" and not _normalised_axes(node) for node in nodes):
        return
    for node in nodes:
        write, x, graph = _Writer(node), node.inputs[0], node.graph
        assert x is not None
        assert graph is not None
        old = node.outputs[0]
        new = _PARTS[node.op_type](write, x)
        new.type, new.shape, new.name = old.type, old.shape, old.name
        replace_nodes_and_values(graph, node, [node], write.nodes, [old], [new])
