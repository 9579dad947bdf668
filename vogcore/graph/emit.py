"""Append nodes to a graph: the small language in which gradient rules are written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from vogcore.graph.shapes import dims, rank, static_dims

__all__ = ["Emitter"]


class Emitter:
    """Appends nodes and constants to one graph.

    Every method returns the new :class:`onnx_ir.Value`. Constants are shared by content. Names are unique and start
    with the name of the forward node whose gradient is being emitted, so that a profile of the gradient graph can be
    read beside the forward graph.
    """

    def __init__(self, graph: ir.Graph, *, cpu: bool = True) -> None:
        """
        Args:
            graph: the graph to append to.
            cpu: whether it is meant for the CPU execution provider.
        """
        self.graph = graph
        self.cpu = cpu
        self.scope = "vogcore"
        self._counter = 0
        self._taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
        self._taken |= {value.name for value in graph.inputs} | {node.name for node in graph}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._shapes: dict[ir.Value, ir.Value] = {}
        self._place: ir.Node | None = None
        self.one_hots: dict[ir.Value, ir.Value] = {}
        """One-hot matrix (N, C) -> the class indices (N,) it was made of: a product with it is a choice of rows."""

    @contextlib.contextmanager
    def before(self, node: ir.Node) -> Iterator[None]:
        """Put the nodes that are emitted in the body in front of ``node`` instead of at the end."""
        outer, self._place = self._place, node
        try:
            yield
        finally:
            self._place = outer

    def name(self, stem: str) -> str:
        """A value name that the graph does not use yet."""
        while True:
            self._counter += 1
            candidate = f"{self.scope}/{stem}_{self._counter}"
            if candidate not in self._taken:
                self._taken.add(candidate)
                return candidate

    def multi(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        count: int,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """Append a node with ``count`` outputs; an operator of another domain names it."""
        name = self.name(op)
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        node = ir.node(op, list(inputs), dict(attributes or {}), domain=domain, num_outputs=count, name=name)
        for index, value in enumerate(node.outputs):
            value.name = name if count == 1 else f"{name}_{index}"
        if self._place is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self._place, node)
        return tuple(node.outputs)

    def op(self, op: str, *inputs: ir.Value | None, like: ir.Value | None = None, **attributes: Any) -> ir.Value:
        """Append a node with one output.

        Args:
            op: operator of the default domain.
            inputs: its inputs; None leaves an optional input out.
            like: a value of the same type and shape as the result, where that is known.
            attributes: the attributes of the node.
        """
        (value,) = self.multi(op, inputs, 1, attributes)
        if like is not None:
            value.shape, value.type = like.shape, like.type
        elif inputs and inputs[0] is not None:
            value.type = inputs[0].type  # right for all arithmetic; ops that change the type use `typed`
        return value

    def typed(self, dtype: ir.DataType, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append a node whose result has another element type than its first input."""
        value = self.op(op, *inputs, **attributes)
        value.type = ir.TensorType(dtype)
        return value

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``value`` as ``dtype``."""
        if value.dtype == dtype:
            return value
        result = self.typed(dtype, "Cast", value, to=int(dtype))
        result.shape = value.shape
        return result

    def compare(self, op: str, left: ir.Value, right: ir.Value) -> ir.Value:
        """A boolean tensor: Equal, Greater, ..."""
        return self.typed(ir.DataType.BOOL, op, left, right)

    def select(self, condition: ir.Value, yes: ir.Value, no: ir.Value, *, like: ir.Value) -> ir.Value:
        """Element by element, ``yes`` where the condition holds and ``no`` elsewhere; shape and type of ``like``."""
        return self.op("Where", condition, yes, no, like=like)

    def masked(self, condition: ir.Value, value: ir.Value) -> ir.Value:
        """``value`` where the condition holds, zero elsewhere (also where ``value`` is not finite)."""
        return self.select(condition, value, self.scalar(0.0, value), like=value)

    def blocked(self, value: ir.Value) -> ir.Value:
        """``value``, unchanged, in the blocked channel layout where ONNX Runtime has one.

        On the CPU convolutions run in a layout of blocks of 16 channels. An elementwise operator stays in it only if
        all its inputs are, so one tensor that was made elsewhere drags a whole residual branch out of it, with a
        reordering at every convolution. A pooling with a 1x1 window changes nothing and is always run in blocks.
        """
        sizes = dims(value)
        channels = sizes[1] if sizes is not None and len(sizes) == 4 else None
        if value.dtype != ir.DataType.FLOAT or not isinstance(channels, int) or channels % 16 or not self.cpu:
            return value
        return self.op("MaxPool", value, kernel_shape=[1, 1], like=value)

    def share(self, value: ir.Value, count: float | ir.Value) -> ir.Value:
        """``value`` / ``count`` (a number, or an int64 scalar): in float32 for half precision, whose largest number a
        count can exceed."""
        dtype = value.dtype or ir.DataType.FLOAT
        wide = ir.DataType.FLOAT if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else dtype
        number = self.cast(count, wide) if isinstance(count, ir.Value) else self.constant(np.asarray(count), wide)
        return self.cast(self.op("Div", self.cast(value, wide), number), dtype)

    # -- constants ---------------------------------------------------------------------------------------------

    def constant(self, array: np.ndarray | Sequence[int] | int, dtype: ir.DataType | None = None) -> ir.Value:
        """A constant tensor; plain integers become int64."""
        content = np.asarray(array) if dtype is None else np.asarray(array).astype(dtype.numpy())
        key = (str(content.dtype), content.shape, content.tobytes())
        if key not in self._constants:
            name = self.name("constant")
            value = ir.Value(name=name, const_value=ir.tensor(content, name=name))
            value.shape = ir.Shape(content.shape)
            value.type = ir.TensorType(value.const_value.dtype)  # type: ignore[union-attr]
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *numbers: int) -> ir.Value:
        """A one-dimensional int64 constant."""
        return self.constant(np.asarray(numbers, np.int64))

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """A rank-0 constant of the element type of ``like``."""
        return self.constant(np.asarray(number), like.dtype or ir.DataType.FLOAT)

    # -- shapes ------------------------------------------------------------------------------------------------

    def shape(self, value: ir.Value) -> ir.Value:
        """Shape of ``value`` (rank,) int64: a constant where it is known, else computed at run time."""
        sizes = static_dims(value)
        if sizes is not None:
            return self.ints(*sizes)
        if value not in self._shapes:
            result = self.typed(ir.DataType.INT64, "Shape", value)
            result.shape = ir.Shape([rank(value)])
            self._shapes[value] = result
        return self._shapes[value]

    def dim(self, value: ir.Value, axis: int) -> ir.Value:
        """Size of ``value`` along ``axis`` (1,) int64."""
        sizes = dims(value)
        if sizes is not None and isinstance(size := sizes[axis], int):
            return self.ints(size)
        return self.op("Slice", self.shape(value), self.ints(axis), self.ints(axis + 1 if axis != -1 else 2**62))

    def as_scalar(self, vector: ir.Value) -> ir.Value:
        """The only element of a vector as a rank-0 tensor."""
        return self.op("Reshape", vector, self.constant(np.zeros(0, np.int64)))

    def positions(self, value: ir.Value, axis: int) -> ir.Value:
        """0, 1, ... up to the size of ``value`` along ``axis``, int64."""
        sizes = dims(value)
        if sizes is not None and isinstance(size := sizes[axis], int):
            return self.constant(np.arange(size, dtype=np.int64))
        stop = self.as_scalar(self.dim(value, axis))
        return self.typed(ir.DataType.INT64, "Range", self.constant(0), stop, self.constant(1))

    def size(self, value: ir.Value) -> ir.Value:
        """Number of elements of ``value``, a scalar int64."""
        sizes = static_dims(value)
        return (
            self.constant(int(np.prod(sizes)))
            if sizes is not None
            else self.op("ReduceProd", self.shape(value), keepdims=0)
        )

    def reshape_like(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """``value`` with the shape of ``like`` (same number of elements)."""
        sizes = dims(like)
        if sizes is not None and 0 not in sizes and sum(not isinstance(size, int) for size in sizes) == 1:
            # One unknown size can be left to Reshape, which needs no run-time shape then.
            target = self.ints(*(size if isinstance(size, int) else -1 for size in sizes))
        else:
            target = self.shape(like)
        return self.op("Reshape", value, target, like=like)

    def expand_like(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """``value`` broadcast to the shape of ``like``."""
        return self.op("Expand", value, self.shape(like), like=like)

    def filled(self, shape: ir.Value, number: float, dtype: ir.DataType) -> ir.Value:
        """A tensor of ``shape`` (an int64 vector) filled with ``number``."""
        content = np.asarray([number]).astype(dtype.numpy())
        return self.typed(dtype, "ConstantOfShape", shape, value=ir.tensor(content))

    def zeros_like(self, value: ir.Value) -> ir.Value:
        """Zeros with the shape and type of ``value``."""
        result = self.filled(self.shape(value), 0.0, value.dtype or ir.DataType.FLOAT)
        result.shape = value.shape
        return result
