"""Write operators on quantised integers as operators on real numbers between DequantizeLinear and QuantizeLinear.

Requires: a prepared model.
Ensures: QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger, and operators that move quantised integers
(Reshape, MaxPool, ...) work on the real numbers that the integers stand for, so that integers lie between
QuantizeLinear (or DynamicQuantizeLinear) and DequantizeLinear alone. The values stay the same to rounding. Operators of
other domains stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import constant, rank, static_dims

__all__ = ["MOVERS", "write_qdq"]

FLOAT = ir.DataType.FLOAT

MOVERS = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice",
        "SpaceToDepth", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators whose output consists of numbers of their first input (of any input: Concat)."""


class _Kind(NamedTuple):
    """What a quantised integer stands for: (integer - zero) * scale."""

    scale: ir.Value
    zero: ir.Value | None


class _Writer:
    """Rewrites one graph; knows what every quantised value stands for."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.emit = Emitter(graph)
        self.kinds: dict[ir.Value, _Kind] = {}
        self.unscaled: dict[ir.Value, ir.Value] = {}
        """int32 result of an integer product -> the same numbers as floats."""

    def write(self) -> None:
        for node in list(self.graph):
            if node.domain not in ("", "ai.onnx"):
                continue
            self.emit.scope = node.name or node.op_type
            if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
                self._note(node)
            elif node.op_type == "QLinearConv":
                self._convolution(node)
            elif node.op_type == "QLinearMatMul":
                self._product(node)
            elif node.op_type in ("ConvInteger", "MatMulInteger"):
                self._integers(node)
            elif node.op_type in MOVERS:
                self._move(node)
            elif node.op_type == "Cast":
                self._cast(node)
        self.graph.sort()

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _note(self, node: ir.Node) -> None:
        if node.op_type == "DynamicQuantizeLinear":
            self.kinds[node.outputs[0]] = _Kind(node.outputs[1], node.outputs[2])
        elif node.inputs[1] is not None and _single(node.inputs[1]):
            self.kinds[node.outputs[0]] = _Kind(node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None)

    def _dequantised(self, value: ir.Value, kind: _Kind, axis: int | None = None) -> ir.Value:
        attributes = {} if axis is None else {"axis": axis}
        inputs = [value, kind.scale] + ([kind.zero] if kind.zero is not None else [])
        result = self.emit.typed(FLOAT, "DequantizeLinear", *inputs, **attributes)
        result.shape = value.shape
        return result

    def _quantised(self, value: ir.Value, kind: _Kind, old: ir.Value) -> None:
        """``value`` as integers in place of ``old``."""
        inputs = [value, kind.scale] + ([kind.zero] if kind.zero is not None else [])
        result = self.emit.op("QuantizeLinear", *inputs, like=old)
        self._replace(old, result)
        self.kinds[result] = kind

    def _replace(self, old: ir.Value, new: ir.Value) -> None:
        name, old.name = old.name, self.emit.name("replaced")
        new.name = name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)

    def _again(self, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], shape: ir.Shape | None) -> ir.Value:
        """The operator on real numbers with the attributes of ``node``."""
        attributes: Mapping[str, Any] = {name: attribute.value for name, attribute in node.attributes.items()}
        (result,) = self.emit.multi(op, inputs, 1, attributes)
        result.type, result.shape = ir.TensorType(FLOAT), shape
        return result

    # -- operators ---------------------------------------------------------------------------------------------------

    def _convolution(self, node: ir.Node) -> None:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *rest = node.inputs
        if x is None or x_scale is None or w is None or w_scale is None or y_scale is None:
            return
        parts = [self._dequantised(x, _Kind(x_scale, x_zero)), self._dequantised(w, _Kind(w_scale, w_zero), axis=0)]
        if rest and rest[0] is not None:  # int32 in units of both scales
            scale = self.emit.op("Mul", w_scale, x_scale, like=w_scale)
            parts.append(self._dequantised(rest[0], _Kind(scale, None), axis=0))
        result = self._again(node, "Conv", parts, node.outputs[0].shape)
        self._quantised(result, _Kind(y_scale, y_zero), node.outputs[0])

    def _product(self, node: ir.Node) -> None:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
        if a is None or a_scale is None or b is None or b_scale is None or y_scale is None:
            return
        rows, columns = rank(a), rank(b)
        if not (_single(a_scale) or (rank(a_scale) == 1 and rows)) or rank(b_scale) not in (0, 1) or not columns:
            return
        left = self._dequantised(a, _Kind(a_scale, a_zero), axis=max((rows or 2) - 2, 0))
        right = self._dequantised(b, _Kind(b_scale, b_zero), axis=columns - 1)
        result = self._again(node, "MatMul", [left, right], node.outputs[0].shape)
        self._quantised(result, _Kind(y_scale, y_zero), node.outputs[0])

    def _integers(self, node: ir.Node) -> None:
        """An integer product that is cast to float: float32 holds integers below 2^24 exactly."""
        one = self.emit.constant(np.asarray(1.0), FLOAT)
        parts = []
        for index in (0, 1):
            value, zero = node.inputs[index], node.inputs[index + 2] if len(node.inputs) > index + 2 else None
            if value is None:
                return
            if zero is None or _single(zero):
                parts.append(self._dequantised(value, _Kind(one, zero)))
                continue
            count, columns = static_dims(zero), rank(value)
            if index == 0 or count is None or len(count) != 1 or columns is None:
                return  # a zero point for each row: nothing that is exported today
            ones = self.emit.constant(np.ones(count), FLOAT)
            axis = columns - 1 if node.op_type == "MatMulInteger" else 0
            parts.append(self._dequantised(value, _Kind(ones, zero), axis=axis))
        op = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}[node.op_type]
        self.unscaled[node.outputs[0]] = self._again(node, op, parts, node.outputs[0].shape)

    def _move(self, node: ir.Node) -> None:
        count = len(node.inputs) if node.op_type == "Concat" else 1
        kinds = {self.kinds.get(value) for value in node.inputs[:count] if value is not None}
        if len(kinds) != 1 or len(node.outputs) != 1 or (kind := kinds.pop()) is None:
            return
        moved = [self._dequantised(value, kind) for value in node.inputs[:count] if value is not None]
        result = self._again(node, node.op_type, [*moved, *node.inputs[count:]], node.outputs[0].shape)
        self._quantised(result, kind, node.outputs[0])

    def _cast(self, node: ir.Node) -> None:
        """From integers to floats: the integers themselves, which stand for real numbers one apart."""
        value, result = node.inputs[0], node.outputs[0]
        if value is None or result.dtype not in (FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16):
            return
        if value in self.unscaled:
            floats = self.unscaled[value]
        elif value in self.kinds:
            floats = self._dequantised(value, _Kind(self.emit.constant(np.asarray(1.0), FLOAT), None))
        else:
            return
        new = self.emit.op("Identity", floats, like=floats)
        self._replace(result, self.emit.cast(new, result.dtype) if result.dtype != FLOAT else new)


def write_qdq(graph: ir.Graph) -> None:
    """Rewrite ``graph`` in place."""
    _Writer(graph).write()


def _single(value: ir.Value) -> bool:
    """One number for the whole tensor."""
    known = constant(value)
    return rank(value) == 0 or static_dims(value) == (1,) or (known is not None and known.size == 1)
