"""Fourier transforms: linear, so the gradient is the adjoint, the transform in the other direction.

Numbers are pairs (real, imaginary) on the last axis; real signals have a last axis of size one. With F the transform of
length n, the adjoint of F is n times its inverse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.layout import extent, shape_of
from vogcore.autodiff.rules.shape import scatter_add
from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import static_dims


@rule("DFT")
def dft(call: Call) -> Cotangents:
    """y = F x: dx = n F⁻¹ dy, or F dy / n for the inverse; the real part where x is real.

    Bins that a one-sided transform left out count as zeros; a signal that was cut or padded to the length n gets its
    cotangent padded or cut.
    """
    emit, x = call.emit, call.x
    n = call.rank_of(x)
    inverse, onesided = call.attribute("inverse", 0), call.attribute("onesided", 0)
    if inverse and onesided:
        raise call.unsupported("the inverse of a one-sided transform is not covered; export it with both sides")
    axis = _axis(call, n)
    length = _length(call, axis, bool(onesided))
    dy = call.dy
    if onesided:
        dy = _resized(emit, dy, axis, length, n)
    adjoint = _transform(emit, dy, axis, n, not inverse, call)
    # With the factor of the one direction that has one: 1 / n belongs to the inverse.
    count = emit.scalar(float(length), x) if isinstance(length, int) else _as_float(emit, length, x)
    dx = emit.op("Div" if inverse else "Mul", adjoint, count)
    if _is_real(call, x):
        dx = emit.op("Slice", dx, emit.ints(0), emit.ints(1), emit.ints(n - 1))
    if call.optional(1) is not None:
        dx = _resized(emit, dx, axis, extent(emit, x, axis), n)
    return [dx]


def _axis(call: Call, n: int) -> int:
    if call.optional(2) is not None:  # an input from opset 20 on
        known = call.known(2)
        if known is None:
            raise call.unsupported("its axis is computed at run time")
        return int(known.reshape(-1)[0]) % n
    newest = call.node.version is not None and call.node.version >= 20
    default = -2 if newest or _opset(call) >= 20 else 1
    return int(call.attribute("axis", default)) % n


def _opset(call: Call) -> int:
    graph = call.emit.graph
    return graph.opset_imports.get("", 18)


def _length(call: Call, axis: int, onesided: bool) -> int | ir.Value:
    """Length of the transform: a number where it is known, else a vector (1,)."""
    if call.optional(1) is not None:
        known = call.known(1)
        return (
            int(known.reshape(-1)[0])
            if known is not None
            else call.emit.op("Reshape", call.input(1), call.emit.ints(1))
        )
    return extent(call.emit, call.x if onesided else call.y, axis)


def _is_real(call: Call, value: ir.Value) -> bool:
    last = static_dims(value, [call.rank_of(value) - 1])
    if last is None:
        raise call.unsupported("it is not known whether its signal is real; the last axis must have a known size")
    return last[0] == 1


def _as_float(emit: Emitter, length: ir.Value, like: ir.Value) -> ir.Value:
    return emit.cast(emit.as_scalar(length), like.dtype or ir.DataType.FLOAT)


def _resized(emit: Emitter, value: ir.Value, axis: int, size: int | ir.Value, n: int) -> ir.Value:
    """``value`` with zeros behind it along the axis, or cut there, to ``size``."""
    whole = emit.op("Shape", value)
    whole.type = ir.TensorType(ir.DataType.INT64)
    there = emit.op("Slice", whole, emit.ints(axis), emit.ints(axis + 1))
    target = emit.ints(size) if isinstance(size, int) else size
    missing = emit.op("Max", emit.op("Sub", target, there), emit.ints(0))
    # The amounts of all axes, as in shape.pad_axis.
    pads = emit.op("Concat", emit.ints(*[0] * (n + axis)), missing, emit.ints(*[0] * (n - 1 - axis)), axis=0)
    grown = emit.op("Pad", value, pads, emit.scalar(0.0, value))
    return emit.op("Slice", grown, emit.ints(0), target, emit.ints(axis))


def _transform(emit: Emitter, value: ir.Value, axis: int, n: int, inverse: bool, call: Call) -> ir.Value:
    """The complex transform along one axis, both sides."""
    attributes: dict[str, Any] = {"inverse": int(inverse), "onesided": 0}
    if _opset(call) >= 20:
        return emit.op("DFT", value, None, emit.constant(axis), **attributes)
    return emit.op("DFT", value, axis=axis, **attributes)


@rule("STFT")
def stft(call: Call) -> Cotangents:
    """y = F (window times frame), frame by frame: dx = window times the adjoint, added up where frames overlap."""
    emit, x = call.emit, call.x
    if call.optional(2) is not None and call.wanted[2]:
        raise call.unsupported(
            "its window depends on the input, and only gradients with respect to the signal are known"
        )
    step, window = call.known(1), call.optional(2)
    if step is None:
        raise call.unsupported("its frame_step is computed at run time")
    known = call.known(3)
    sizes = (
        [int(known.reshape(-1)[0])] if known is not None else static_dims(window, [0]) if window is not None else None
    )
    if sizes is None:
        raise call.unsupported("its frame_length is not known before the model runs")
    length, real = sizes[0], _is_real(call, x)
    dy = call.dy  # (N, frames, bins, 2)
    onesided = call.attribute("onesided")
    if onesided is None:
        raise call.unsupported("ONNX infers a wrong number of bins without its attribute onesided; set it to 0 or 1")
    if onesided:
        if not real:
            raise call.unsupported("onesided=1 of a complex signal is not covered")
        dy = _resized(emit, dy, 2, length, 4)
    frames = emit.op("Mul", _transform(emit, dy, 2, 4, True, call), emit.scalar(float(length), x))
    if real:
        frames = emit.op("Slice", frames, emit.ints(0), emit.ints(1), emit.ints(3))
    if window is not None:
        frames = emit.op("Mul", frames, emit.op("Reshape", window, emit.ints(-1, 1)))
    parts = 1 if real else 2
    starts = emit.op("Mul", emit.positions(call.y, 1), emit.constant(step.reshape(-1)[0].astype(np.int64)))
    places = emit.op("Add", emit.op("Unsqueeze", starts, emit.ints(1)), emit.constant(np.arange(length)))
    flat = emit.op("Reshape", frames, shape_of(emit, extent(emit, x, 0), -1, parts))
    column = emit.op("Reshape", places, emit.ints(1, -1, 1))
    spread = emit.typed(ir.DataType.INT64, "Expand", column, shape_of(emit, extent(emit, x, 0), 1, parts))
    whole = shape_of(emit, extent(emit, x, 0), extent(emit, x, 1), parts)
    return [emit.reshape_like(scatter_add(emit, whole, spread, flat, 1), x)]
