"""Fourier transforms. They are linear: the cotangent goes through the conjugate transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.shape import pad_axis, scatter_along_axis
from vogcore.graph.shapes import dims

_AXIS_IS_INPUT = 20
"""Opset from which on the axis of a DFT is an input."""


@rule("DFT")
def dft(call: Call) -> Cotangents:
    """y = F x, F of size N; complex numbers are pairs: dx = conj(F) dy, which is N times the inverse transform, and
    for the inverse dx = 1/N times the transform of dy.

    Bins left out (onesided) count as zero. For the inverse of one half, every bin but the first, and but the last of
    an even N, counts twice. What was cut off x gets zero.
    """
    emit, x, dy = call.emit, call.x, call.dy
    n = call.rank_of(x)
    axis = _axis(call) % n
    inverse, onesided = bool(call.attribute("inverse", 0)), bool(call.attribute("onesided", 0))
    length = _length(call, axis, inverse and onesided)
    count = emit.cast(length, x.dtype or ir.DataType.FLOAT)
    if inverse:
        dx = emit.op("Div", _transform(call, dy, length, axis, inverse=False, onesided=onesided), count)
        if onesided:
            dx = emit.op("Mul", dx, _twice_inside(call, length, axis, n))
    else:
        dx = emit.op("Mul", _transform(call, dy, length, axis, inverse=True, onesided=False), count)
    return [_fitted(call, _real_where_x_is(call, dx), axis)]


@rule("STFT")
def stft(call: Call) -> Cotangents:
    """y = F (w x) for each frame of the signal, w the window: dx = w conj(F) dy, added up where frames overlap."""
    emit, x = call.emit, call.x
    dtype = x.dtype or ir.DataType.FLOAT
    if len(call.wanted) > 2 and call.wanted[2]:
        raise call.unsupported("its window depends on the input, and only gradients for the signal are known")
    parts = (dims(x) or [None] * 3)[2]
    if not isinstance(parts, int):
        raise call.unsupported("whether its signal is real or complex is not known; fix the size of its last axis")
    window, given = call.optional(2), call.optional(3)
    if given is not None:
        length = emit.as_scalar(given)
    else:
        length = emit.as_scalar(emit.dim(x, 1) if window is None else emit.dim(window, 0))
    frames = _transform(call, call.dy, length, 2, inverse=True, onesided=False)
    frames = _real_where_x_is(call, emit.op("Mul", frames, emit.cast(length, dtype)))
    if window is not None:
        frames = emit.op("Mul", frames, emit.op("Reshape", window, emit.ints(-1, 1)))
    # Position of sample j of frame f: f step + j.
    starts = emit.op("Mul", emit.positions(call.y, 1), emit.as_scalar(call.input(1)))
    starts = emit.op("Unsqueeze", emit.cast(starts, ir.DataType.INT64), emit.ints(1))
    inside = emit.typed(ir.DataType.INT64, "Range", emit.constant(0), length, emit.constant(1))
    positions = emit.op("Reshape", emit.op("Add", starts, inside), emit.ints(-1))
    flat = emit.op("Reshape", frames, emit.ints(0, -1, parts))
    return [scatter_along_axis(call, x, 1, positions, flat)]


def _opset(call: Call) -> int:
    imports = call.emit.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", _AXIS_IS_INPUT))


def _axis(call: Call) -> int:
    if _opset(call) < _AXIS_IS_INPUT:
        return int(call.attribute("axis", 1))
    if call.optional(2) is None:
        return -2
    known = call.known(2)
    if known is None:
        raise call.unsupported("its axis is computed by the model; make it a constant")
    return int(known.reshape(-1)[0])


def _length(call: Call, axis: int, half: bool) -> ir.Value:
    """Number of points of the transform, a scalar int64; ``half``: x holds half of the bins."""
    emit, given = call.emit, call.optional(1)
    if given is not None:
        return emit.cast(emit.as_scalar(given), ir.DataType.INT64)
    size = emit.as_scalar(emit.dim(call.x, axis))
    return emit.op("Mul", emit.op("Sub", size, emit.constant(1)), emit.constant(2)) if half else size


def _transform(call: Call, value: ir.Value, length: ir.Value, axis: int, *, inverse: bool, onesided: bool) -> ir.Value:
    emit = call.emit
    kind: dict[str, Any] = {"inverse": int(inverse), "onesided": int(onesided)}
    if _opset(call) < _AXIS_IS_INPUT:
        return emit.op("DFT", value, length, axis=axis, **kind)
    return emit.op("DFT", value, length, emit.constant(axis), **kind)


def _real_where_x_is(call: Call, value: ir.Value) -> ir.Value:
    """The real part where x is real, that is, where its last axis has size one."""
    emit = call.emit
    return emit.op("Slice", value, emit.ints(0), emit.dim(call.x, -1), emit.ints(-1))


def _twice_inside(call: Call, length: ir.Value, axis: int, n: int) -> ir.Value:
    """Weights of the bins of one half: one at the first, and at the last of an even number of points, else two."""
    emit = call.emit
    bins = emit.op("Add", emit.op("Div", length, emit.constant(2)), emit.constant(1))
    places = emit.typed(ir.DataType.INT64, "Range", emit.constant(0), bins, emit.constant(1))
    mirror = emit.op("Sub", length, places)
    alone = emit.typed(
        ir.DataType.BOOL,
        "Or",
        emit.compare("Equal", places, emit.constant(0)),
        emit.compare("Equal", places, mirror),
    )
    one, two = (emit.constant(np.asarray(number), call.x.dtype) for number in (1.0, 2.0))
    weights = emit.select(alone, one, two, like=ir.Value(name=None, type=call.x.type))
    return emit.op("Reshape", weights, emit.ints(*(-1 if a == axis else 1 for a in range(n))))


def _fitted(call: Call, value: ir.Value, axis: int) -> ir.Value:
    """``value`` cut, or filled up with zeros, to the size of x along ``axis``."""
    emit = call.emit
    size = emit.dim(call.x, axis)
    cut = emit.op("Slice", value, emit.ints(0), size, emit.ints(axis))
    have = emit.op("Slice", emit.typed(ir.DataType.INT64, "Shape", cut), emit.ints(axis), emit.ints(axis + 1))
    return pad_axis(call, cut, axis, emit.ints(0), emit.op("Sub", size, have))
