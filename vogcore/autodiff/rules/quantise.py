"""Quantisation: the straight-through gradient, on request only.

Rounding is piecewise constant, so the true gradient of a quantised model is zero. The straight-through estimator
(Bengio, Leonard & Courville 2013) leaves the rounding out. It stops where a value lies outside the range of the
integers, as torch's FakeQuantize does. Cotangents of the integers are float32 tensors: the integers stand for real
numbers.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.graph.shapes import rank, static_dims


def _wide(value: ir.Value) -> ir.DataType:
    """Type in which a scale and what it scales are multiplied."""
    return ir.DataType.DOUBLE if value.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT


def _spread(call: Call, parameter: ir.Value, x: ir.Value) -> ir.Value:
    """Scale or zero point in a shape that broadcasts against ``x``: of the tensor, of each slice, or of each block."""
    emit, known = call.emit, rank(parameter)
    if known == 0 or static_dims(parameter) == (1,):
        return emit.as_scalar(parameter) if known else parameter
    n = call.rank_of(x)
    axis = call.attribute("axis", 1) % n
    block = call.attribute("block_size", 0)
    if block:
        size = static_dims(x, [axis])
        if size is not None:
            places = emit.constant(np.arange(size[0], dtype=np.int64) // block)
        else:
            places = emit.op("Div", emit.positions(x, axis), emit.constant(block))
        return emit.op("Gather", parameter, places, axis=axis)
    if known != 1:
        raise call.unsupported("its scale is neither one number nor a vector, and it has no block_size")
    return emit.op("Reshape", parameter, emit.ints(*(-1 if a == axis else 1 for a in range(n))))


@rule("QuantizeLinear")
def quantize_linear(call: Call) -> Cotangents:
    """y = clip(round(x / scale) + zero point): on request, straight through: dx = dy / scale inside the range."""
    if not call.options.straight_through:  # the engine has refused it by now
        raise call.unsupported("it rounds")
    emit, x, wide = call.emit, call.x, ir.DataType.FLOAT
    scale = emit.cast(_spread(call, call.input(1), x), wide)
    dtype = call.y.dtype
    if dtype is None:
        raise call.unsupported("the type of its output is not known; run ONNX shape inference on the model")
    low, high = float(dtype.min), float(dtype.max)
    level = emit.op("Div", emit.cast(x, wide), scale)
    if dtype.is_integer():
        level = emit.op("Round", level)
    zero = call.optional(2)
    if zero is not None and not _is_zero(call.known(2)):
        level = emit.op("Add", level, emit.cast(_spread(call, zero, x), wide))
    above = emit.compare("GreaterOrEqual", level, emit.scalar(low, level))
    below = emit.compare("LessOrEqual", level, emit.scalar(high, level))
    inside = emit.typed(ir.DataType.BOOL, "And", above, below)
    dx = emit.masked(inside, emit.op("Div", emit.cast(call.dy, wide), scale))
    return [emit.cast(dx, x.dtype or wide)]


def _is_zero(known: np.ndarray | None) -> bool:
    return known is not None and not known.astype(np.float32).any()


@rule("DynamicQuantizeLinear")
def dynamic_quantize_linear(call: Call) -> Cotangents:
    """y = round(x / scale) + zero point, both from the range of x: on request dx = dy / scale, scale held fixed."""
    if not call.options.straight_through:
        raise call.unsupported("it rounds")
    return [call.emit.op("Div", call.dy, call.node.outputs[1], like=call.x)]


@rule("DequantizeLinear")
def dequantize_linear(call: Call) -> Cotangents:
    """y = (x - zero point) scale: dx = dy scale, dscale = sum of dy (x - zero point)."""
    emit, x, scale = call.emit, call.x, call.input(1)
    wide = _wide(scale)
    spread = emit.cast(_spread(call, scale, x), wide)
    dy = emit.cast(call.dy, wide)
    dx = emit.op("Mul", dy, spread) if call.wanted[0] else None
    dscale = None
    if call.wanted[1]:
        if call.attribute("block_size", 0):
            raise call.unsupported("its scale depends on the input, which is not covered for blocks")
        level = emit.cast(x, wide)
        if call.optional(2) is not None:
            level = emit.op("Sub", level, emit.cast(_spread(call, call.input(2), x), wide))
        parts = emit.op("Mul", dy, level)
        n = call.rank_of(x)
        kept = call.attribute("axis", 1) % n if rank(scale) and math.prod(static_dims(scale) or (0,)) != 1 else None
        axes = [axis for axis in range(n) if axis != kept]
        total = emit.op("ReduceSum", parts, emit.ints(*axes), keepdims=0) if axes else parts
        dscale = emit.reshape_like(emit.cast(total, scale.dtype or wide), scale)
    return [dx, dscale]
