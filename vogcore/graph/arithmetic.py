"""Arithmetic on sizes: what the operators of shape arithmetic compute, on arrays of Python numbers."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["EVALUATE", "FOLDED", "INTEGERS", "LARGEST", "MOVES", "PAIRS", "TRUTHS"]

LARGEST = 1024
"""Most elements of a value that is followed."""

INTEGERS = frozenset(
    {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT16, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.BOOL}
)
FOLDED = INTEGERS | {ir.DataType.FLOAT, ir.DataType.DOUBLE}
"""Element types that are followed."""

Evaluate = Callable[[ir.Node, Sequence[Any]], Any]


def _axes(node: ir.Node, inputs: Sequence[Any], position: int) -> list[int] | None:
    given = inputs[position] if position < len(inputs) else None
    return None if given is None else [int(axis) for axis in given.reshape(-1)]


def _gather(node: ir.Node, inputs: Sequence[Any]) -> Any:
    return np.take(inputs[0], inputs[1].astype(np.int64), axis=node.attributes.get_int("axis", 0))


def _concat(node: ir.Node, inputs: Sequence[Any]) -> Any:
    return np.concatenate(inputs, axis=node.attributes["axis"].as_int())


def _slice(node: ir.Node, inputs: Sequence[Any]) -> Any:
    x, starts, ends = inputs[0], inputs[1].reshape(-1), inputs[2].reshape(-1)
    axes = _axes(node, inputs, 3) or list(range(len(starts)))
    steps = _axes(node, inputs, 4) or [1] * len(starts)
    index: list[Any] = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0 and int(end) >= np.iinfo(np.int32).max:
            raise ValueError  # "to the end", backwards: ONNX Runtime goes to the beginning, the specification nowhere
        low = None if step < 0 and int(end) < -x.shape[axis] else int(end)
        index[axis] = slice(int(start), low, step)
    return x[tuple(index)]


def _squeeze(node: ir.Node, inputs: Sequence[Any]) -> Any:
    axes = _axes(node, inputs, 1)
    return np.squeeze(inputs[0], axis=None if axes is None else tuple(axes))


def _unsqueeze(node: ir.Node, inputs: Sequence[Any]) -> Any:
    return np.expand_dims(inputs[0], tuple(_axes(node, inputs, 1) or ()))


def _reshape(node: ir.Node, inputs: Sequence[Any]) -> Any:
    target = [int(size) for size in inputs[1]]
    if not node.attributes.get_int("allowzero", 0):
        target = [inputs[0].shape[i] if size == 0 else size for i, size in enumerate(target)]
    return inputs[0].reshape(target)


def _transpose(node: ir.Node, inputs: Sequence[Any]) -> Any:
    return np.transpose(inputs[0], node.attributes["perm"].as_ints() if "perm" in node.attributes else None)


def _cast(node: ir.Node, inputs: Sequence[Any]) -> Any:
    source, target = node.inputs[0], ir.DataType(node.attributes["to"].as_int())
    if target not in FOLDED or source is None:
        raise TypeError
    if target in INTEGERS and target != ir.DataType.BOOL:
        return inputs[0].astype(np.float64).astype(np.int64) if _is_float(source) else inputs[0].astype(np.int64)
    return inputs[0].astype(target.numpy())


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _div(left: Any, right: Any) -> Any:
    quotient = abs(left) // abs(right)  # ONNX's integer division truncates
    return quotient if (left < 0) == (right < 0) else -quotient


def _range(node: ir.Node, inputs: Sequence[Any]) -> Any:
    return np.arange(*(item.item() for item in inputs))


def _constant_of_shape(node: ir.Node, inputs: Sequence[Any]) -> Any:
    value = node.attributes.get("value")
    fill = value.as_tensor().numpy().reshape(-1)[0].item() if value is not None else 0.0
    shape = [int(size) for size in inputs[0]]
    if np.prod(shape, dtype=np.float64) > LARGEST:
        raise ValueError
    return np.full(shape, fill, object)


def _expand(node: ir.Node, inputs: Sequence[Any]) -> Any:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(int(size) for size in inputs[1]))
    if np.prod(shape, dtype=np.float64) > LARGEST:
        raise ValueError
    return np.broadcast_to(inputs[0], shape)


def _where(node: ir.Node, inputs: Sequence[Any]) -> Any:
    return np.where(inputs[0].astype(bool), inputs[1], inputs[2])


def _reduce(function: Callable[..., Any]) -> Evaluate:
    def evaluate(node: ir.Node, inputs: Sequence[Any]) -> Any:
        axes = _axes(node, inputs, 1)
        if axes is None and "axes" in node.attributes:
            axes = list(node.attributes["axes"].as_ints())
        if not axes and int(node.attributes.get_int("noop_with_empty_axes") or 0):
            return inputs[0]
        keep = bool(node.attributes.get_int("keepdims", 1))
        return function(inputs[0], axis=tuple(axes) if axes else None, keepdims=keep)

    return evaluate


def _mod(node: ir.Node, inputs: Sequence[Any]) -> Any:
    if node.attributes.get_int("fmod", 0):
        raise ValueError
    return np.frompyfunc(operator.mod, 2, 1)(*inputs)


def _elementwise(whole: Callable[..., Any], real: Callable[..., Any]) -> Evaluate:
    def evaluate(node: ir.Node, inputs: Sequence[Any]) -> Any:
        source = node.inputs[0]
        if source is not None and _is_float(source) and source.dtype is not None:
            # In the type of the operands, so that the rounding is the model's.
            return functools.reduce(real, (content.astype(source.dtype.numpy()) for content in inputs))
        return functools.reduce(np.frompyfunc(whole, 2, 1), inputs)

    return evaluate


def _unary(whole: Callable[..., Any], real: Callable[..., Any]) -> Evaluate:
    def evaluate(node: ir.Node, inputs: Sequence[Any]) -> Any:
        source = node.inputs[0]
        if source is not None and _is_float(source) and source.dtype is not None:
            return real(inputs[0].astype(source.dtype.numpy()))
        return np.frompyfunc(whole, 1, 1)(inputs[0])

    return evaluate


PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "Add": (operator.add, np.add),
    "Div": (_div, np.divide),
    "Equal": (operator.eq, np.equal),
    "Greater": (operator.gt, np.greater),
    "GreaterOrEqual": (operator.ge, np.greater_equal),
    "Less": (operator.lt, np.less),
    "LessOrEqual": (operator.le, np.less_equal),
    "Max": (max, np.maximum),
    "Min": (min, np.minimum),
    "Mul": (operator.mul, np.multiply),
    "Sub": (operator.sub, np.subtract),
    "And": (lambda a, b: bool(a) and bool(b), np.logical_and),
    "Or": (lambda a, b: bool(a) or bool(b), np.logical_or),
}
"""Operators of two operands or more: on integers, and on floating-point arrays."""

TRUTHS = {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"}

MOVES: dict[str, Evaluate] = {
    "Concat": _concat,
    "Gather": _gather,
    "Identity": lambda node, inputs: inputs[0],
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operators that move numbers, known ones or not."""

EVALUATE: dict[str, Evaluate] = {
    **MOVES,
    **{op: _elementwise(whole, real) for op, (whole, real) in PAIRS.items()},
    "Abs": _unary(abs, np.abs),
    "Cast": _cast,
    "Ceil": _unary(operator.pos, np.ceil),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Floor": _unary(operator.pos, np.floor),
    "Mod": _mod,
    "Neg": _unary(operator.neg, np.negative),
    "Not": _unary(operator.not_, np.logical_not),
    "Range": _range,
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Sqrt": _unary(operator.pos, np.sqrt),
    "Where": _where,
}
