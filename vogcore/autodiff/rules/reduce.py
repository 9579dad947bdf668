"""Reductions over axes. Formulas from the ONNX operator specification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.graph.shapes import rank, static_dims


def _axes(call: Call) -> tuple[ir.Value | None, Sequence[int] | None, bool]:
    """Axes input (None = all axes), its content where constant, and whether the node reduces nothing."""
    given, known = call.optional(1), call.known(1)
    if "axes" in call.node.attributes:  # ReduceSum aside, opset 18 moved this attribute to an input
        known = np.asarray(call.attribute("axes"))
        given = call.emit.ints(*known.tolist())
    empty = given is None or (known is not None and known.size == 0)
    if empty and call.attribute("noop_with_empty_axes", 0):
        return None, (), True
    return (None, None, False) if empty else (given, None if known is None else known.tolist(), False)


def _keep(call: Call, value: ir.Value, axes: ir.Value | None) -> ir.Value:
    """``value``, of the output's shape, with the reduced axes present as size one."""
    if call.attribute("keepdims", 1):
        return value
    if axes is not None:
        return call.emit.op("Unsqueeze", value, axes)
    # A full reduction: all axes become one.
    known = rank(call.x)
    ones = call.emit.ints(*[1] * known) if known is not None else None
    if ones is None:
        ones = call.emit.filled(call.emit.op("Shape", call.emit.shape(call.x)), 1, ir.DataType.INT64)
    return call.emit.op("Reshape", value, ones)


def _parts(call: Call) -> tuple[ir.Value, ir.Value]:
    """Cotangent and output, both broadcastable against the input."""
    axes, _, nothing = _axes(call)
    if nothing:
        return call.dy, call.y
    return _keep(call, call.dy, axes), _keep(call, call.y, axes)


@rule("ReduceSum")
def reduce_sum(call: Call) -> Cotangents:
    """y = sum x: dx = dy, spread out."""
    return [call.emit.expand_like(_parts(call)[0], call.x)]


@rule("ReduceMean")
def reduce_mean(call: Call) -> Cotangents:
    """y = mean x: dx = dy / n, spread out."""
    emit, dy = call.emit, _parts(call)[0]
    whole, reduced = static_dims(call.x), static_dims(call.y)
    _, known, _ = _axes(call)
    along = static_dims(call.x, known) if known is not None else None
    if whole is not None and reduced is not None:
        count: float | ir.Value = float(np.prod(whole)) / max(float(np.prod(reduced)), 1.0)
    elif along is not None:
        count = float(np.prod(along))
    else:
        count = emit.op("Div", emit.size(call.x), emit.size(call.y))
    spread = emit.expand_like(emit.share(dy, count), call.x)
    # Over an image, as an exporter writes a global average pooling.
    return [emit.blocked(spread) if known is not None and sorted(a % 4 for a in known) == [2, 3] else spread]


@rule("ReduceMax", "ReduceMin")
def reduce_max(call: Call) -> Cotangents:
    """y = max x: dy goes to the elements that attain it, in equal parts where several do (torch.amax)."""
    emit = call.emit
    dy, y = _parts(call)
    axes, _, nothing = _axes(call)
    if nothing:
        return [dy]
    hit = emit.cast(emit.compare("Equal", call.x, y), call.x.dtype or ir.DataType.FLOAT)
    count = emit.op("ReduceSum", hit, axes, keepdims=1)
    return [emit.op("Mul", hit, emit.op("Div", dy, count))]


@rule("ReduceL1")
def reduce_l1(call: Call) -> Cotangents:
    """y = sum |x|: dx = dy sign(x)."""
    return [call.emit.op("Mul", call.emit.op("Sign", call.x), _parts(call)[0])]


@rule("ReduceL2")
def reduce_l2(call: Call) -> Cotangents:
    """y = sqrt(sum x²): dx = dy x / y, zero where y is zero (torch.linalg.vector_norm)."""
    emit = call.emit
    dy, y = _parts(call)
    zero = emit.scalar(0.0, call.x)
    scaled = emit.select(emit.compare("Equal", y, zero), zero, emit.op("Div", dy, y), like=dy)
    return [emit.op("Mul", call.x, scaled)]


@rule("ReduceSumSquare")
def reduce_sum_square(call: Call) -> Cotangents:
    """y = sum x²: dx = 2 x dy."""
    emit = call.emit
    return [emit.op("Mul", emit.op("Add", call.x, call.x), _parts(call)[0])]


@rule("ReduceLogSum")
def reduce_log_sum(call: Call) -> Cotangents:
    """y = log sum x: dx = dy exp(-y), spread out."""
    emit = call.emit
    dy, y = _parts(call)
    return [emit.expand_like(emit.op("Mul", dy, emit.op("Exp", emit.op("Neg", y))), call.x)]


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(call: Call) -> Cotangents:
    """y = log sum exp x: dx = dy exp(x - y)."""
    emit = call.emit
    dy, y = _parts(call)
    return [emit.op("Mul", emit.op("Exp", emit.op("Sub", call.x, y)), dy)]


@rule("ReduceProd")
def reduce_prod(call: Call) -> Cotangents:
    """y = prod x: dx = dy times the product of the others, also where some of them are zero."""
    emit, x = call.emit, call.x
    dy, y = _parts(call)
    axes, _, nothing = _axes(call)
    if nothing:
        return [dy]
    zero, one = emit.scalar(0.0, x), emit.scalar(1.0, x)
    is_zero = emit.compare("Equal", x, zero)
    filled = emit.select(is_zero, one, x, like=x)
    zeros = emit.op("ReduceSum", emit.cast(is_zero, x.dtype or ir.DataType.FLOAT), axes, keepdims=1)
    rest = emit.op("ReduceProd", filled, axes, keepdims=1)  # product of the non-zero ones
    # No zero: y / x. One zero: its own derivative is the product of the rest. More: all derivatives vanish.
    none, single = emit.compare("Equal", zeros, zero), emit.compare("Equal", zeros, one)
    alone = emit.typed(ir.DataType.BOOL, "And", is_zero, single)
    slope = emit.op("Add", emit.masked(none, emit.op("Div", y, filled)), emit.masked(alone, emit.expand_like(rest, x)))
    return [emit.op("Mul", dy, slope)]
