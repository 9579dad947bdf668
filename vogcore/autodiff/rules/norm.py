"""Normalisation layers.

Those with statistics of the data share one formula. With c = x - mean(x), n = c r the normalised data, r = 1/sqrt(var +
eps) and g the cotangent of n: dx = r (g - mean(g) - c r² mean(g c)), means over the normalised axes (Ba, Kiros & Hinton
2016, section 3, differentiated). Half-precision data are computed in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.backward import unbroadcast
from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import dims

_PER_CHANNEL_SINCE = 21
"""Opset from which on GroupNormalization has a scale for each channel; before, it had one for each group."""


def wide(value: ir.Value) -> ir.DataType:
    """The type that sums over ``value`` are computed in: its own, but float32 for half precision."""
    dtype = value.dtype or ir.DataType.FLOAT
    return ir.DataType.FLOAT if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else dtype


def _narrow(emit: Emitter, value: ir.Value, like: ir.Value) -> ir.Value:
    return emit.cast(value, like.dtype or ir.DataType.FLOAT)


class _Statistics(NamedTuple):
    """What the forward pass knew about the data."""

    centred: ir.Value
    rate: ir.Value
    axes: ir.Value


def _measure(emit: Emitter, x: ir.Value, axes: ir.Value, epsilon: float) -> _Statistics:
    centred = emit.op("Sub", x, emit.op("ReduceMean", x, axes, keepdims=1), like=x)
    variance = emit.op("ReduceMean", emit.op("Mul", centred, centred), axes, keepdims=1)
    rate = emit.op("Reciprocal", emit.op("Sqrt", emit.op("Add", variance, emit.scalar(epsilon, x))))
    return _Statistics(centred, rate, axes)


def _through(emit: Emitter, known: _Statistics, g: ir.Value, curvature: ir.Value | None = None) -> ir.Value:
    """dx for the cotangent ``g`` of the normalised data; ``curvature`` is r² unless given."""
    centred, rate, axes = known
    mean_gc = emit.op("ReduceMean", emit.op("Mul", g, centred), axes, keepdims=1)
    factor = emit.op("Mul", curvature or emit.op("Mul", rate, rate), mean_gc)
    # The two parts that are taken off are added first: fewer passes over the data than one after the other.
    off = emit.op("Add", emit.op("Mul", centred, factor), emit.op("ReduceMean", g, axes, keepdims=1))
    return emit.op("Mul", emit.op("Sub", g, off), rate)


def _by_channel(emit: Emitter, vector: ir.Value, n: int) -> ir.Value:
    """A vector (C,) in the shape that broadcasts against data (N, C, ...) of rank ``n``."""
    return emit.op("Reshape", vector, emit.ints(-1, *[1] * (n - 2))) if n > 2 else vector


def _sum_by_channel(emit: Emitter, value: ir.Value, n: int) -> ir.Value:
    """Data (N, C, ...) of rank ``n`` summed to (C,)."""
    return emit.op("ReduceSum", value, emit.ints(0, *range(2, n)), keepdims=0)


@rule("BatchNormalization")
def batch_normalization(call: Call) -> Cotangents:
    """In evaluation mode y = n scale + bias, n = (x - mean) r, r = 1/sqrt(var + eps): dx = dy scale r.

    Summed over all axes but the channels: dscale = sum(dy n), dbias = sum(dy), dmean = -scale r sum(dy), dvar = -1/2
    scale r² sum(dy n).
    """
    emit, n = call.emit, call.rank_of(call.x)
    given = [call.input(i) for i in range(5)]
    # Statistics may be kept in a wider type than the data (opset 15).
    x, scale, _, mean, variance = given
    variance = _narrow(emit, variance, scale)
    shifted = emit.op("Add", variance, emit.scalar(call.attribute("epsilon", 1e-5), variance))
    slope = _narrow(emit, emit.op("Div", scale, emit.op("Sqrt", shifted)), x)
    results: list[ir.Value | None] = [None] * 5
    if call.wanted[0]:
        results[0] = emit.op("Mul", call.dy, _by_channel(emit, slope, n))
    if any(call.wanted[1:]):
        kind = wide(x)
        dy, rate = emit.cast(call.dy, kind), emit.cast(emit.op("Reciprocal", emit.op("Sqrt", shifted)), kind)
        centred = emit.op("Sub", emit.cast(x, kind), _by_channel(emit, emit.cast(mean, kind), n))
        total = _sum_by_channel(emit, dy, n)
        along = emit.op("Mul", _sum_by_channel(emit, emit.op("Mul", dy, centred), n), rate)
        slope = emit.cast(slope, kind)
        bend = emit.op("Mul", emit.op("Mul", slope, rate), emit.scalar(-0.5, slope))
        full = [along, total, emit.op("Neg", emit.op("Mul", slope, total)), emit.op("Mul", bend, along)]
        for index, value in enumerate(full, start=1):
            results[index] = _narrow(emit, value, given[index])
    return results


@rule("LayerNormalization", all_outputs=True)
def layer_normalization(call: Call) -> Cotangents:
    """Y = n * scale + bias, n = c r, c = x - mean, r = 1/sqrt(var + eps) over the axes from `axis` on (Ba et al. 2016).

    With g = dY * scale: dx = r (g - mean(g) - c r² mean(g c)), means over the normalised axes; dscale = dY n, dbias =
    dY. Mean and r are the operator's own further outputs, which the forward node is given. Where the model itself uses
    those, D elements each: dx = dMean / D and dx = -dr r³ c / D.
    """
    emit, n = call.emit, call.rank_of(call.x)
    kind = wide(call.x)
    axes = emit.ints(*range(call.attribute("axis", -1) % n, n))
    x, scale = emit.cast(call.x, kind), emit.cast(call.input(1), kind)
    known = _measure(emit, x, axes, call.attribute("epsilon", 1e-5)) if kind == ir.DataType.DOUBLE else None
    if known is None:
        # ONNX has these two outputs in float32, which is too little for float64 data.
        mean, rate = _further_outputs(call)
        known = _Statistics(emit.op("Sub", x, mean, like=x), rate, axes)
    parts: list[ir.Value] = []
    results: list[ir.Value | None] = [None, None, None]
    if call.cotangents[0] is not None:
        dy = emit.cast(call.dy, kind)
        if call.wanted[0]:
            parts.append(_through(emit, known, emit.op("Mul", dy, scale, like=x)))
        if call.wanted[1]:
            product = emit.op("Mul", dy, emit.op("Mul", known.centred, known.rate), like=x)
            results[1] = _narrow(emit, unbroadcast(emit, product, call.y, scale), call.input(1))
        bias = call.optional(2)
        if bias is not None and call.wanted[2]:
            results[2] = _narrow(emit, unbroadcast(emit, dy, call.y, emit.cast(bias, kind)), bias)
    elif any(call.wanted[1:]):
        raise call.unsupported("its scale or bias depends on the input, but only its statistics are used")
    for index, cotangent in enumerate(call.cotangents[1:], start=1):
        if cotangent is None or not call.wanted[0]:
            continue
        count = emit.cast(emit.op("Div", emit.size(x), emit.size(known.rate)), kind)
        share = emit.op("Div", emit.cast(cotangent, kind), count)
        if index == 1:
            parts.append(emit.expand_like(share, x))
        else:
            cube = emit.op("Mul", emit.op("Mul", known.rate, known.rate), known.rate)
            parts.append(emit.op("Mul", known.centred, emit.op("Neg", emit.op("Mul", cube, share)), like=x))
    if parts:
        total = parts[0]
        for part in parts[1:]:
            total = emit.op("Add", total, part, like=x)
        results[0] = _narrow(emit, total, call.x)
    return results[: len(call.node.inputs)]


def _further_outputs(call: Call) -> tuple[ir.Value, ir.Value]:
    """Mean and InvStdDev of a LayerNormalization in float32, which its node is given where it lacks them."""
    if len(call.node.outputs) < 3:
        call.node.resize_outputs(3)
    sizes = dims(call.x)
    axis = call.attribute("axis", -1)
    for value, stem in zip(call.node.outputs[1:], ("Mean", "InvStdDev"), strict=True):
        if not value.name:
            value.name = call.emit.name(stem)
            value.type = ir.TensorType(ir.DataType(call.attribute("stash_type", 1)))
            if sizes is not None:
                axis %= len(sizes)
                value.shape = ir.Shape([*sizes[:axis], *[1] * (len(sizes) - axis)])
    mean, rate = (call.emit.cast(value, ir.DataType.FLOAT) for value in call.node.outputs[1:])
    return mean, rate


@rule("RMSNormalization")
def rms_normalization(call: Call) -> Cotangents:
    """Y = x r * scale, r = 1/sqrt(mean(x²) + eps) over the axes from `axis` on (Zhang & Sennrich 2019).

    With g = dY * scale: dx = r (g - x r² mean(g x)), means over the normalised axes; dscale = dY x r.
    """
    emit, n = call.emit, call.rank_of(call.x)
    kind = wide(call.x)
    axes = emit.ints(*range(call.attribute("axis", -1) % n, n))
    x, scale, dy = (emit.cast(value, kind) for value in (call.x, call.input(1), call.dy))
    square = emit.op("ReduceMean", emit.op("Mul", x, x), axes, keepdims=1)
    shifted = emit.op("Add", square, emit.scalar(call.attribute("epsilon", 1e-5), x))
    rate = emit.op("Reciprocal", emit.op("Sqrt", shifted))
    results: list[ir.Value | None] = [None, None]
    if call.wanted[0]:
        g = emit.op("Mul", dy, scale, like=x)
        mean_gx = emit.op("ReduceMean", emit.op("Mul", g, x), axes, keepdims=1)
        off = emit.op("Mul", x, emit.op("Mul", emit.op("Mul", rate, rate), mean_gx))
        results[0] = _narrow(emit, emit.op("Mul", emit.op("Sub", g, off), rate), call.x)
    if call.wanted[1]:
        product = emit.op("Mul", dy, emit.op("Mul", x, rate), like=x)
        results[1] = _narrow(emit, unbroadcast(emit, product, call.y, scale), call.input(1))
    return results


@rule("InstanceNormalization")
def instance_normalization(call: Call) -> Cotangents:
    """Y = n * scale + bias, n = c r, statistics of each channel of each example (Ulyanov et al. 2016).

    With g = dY * scale: dx = r (g - mean(g) - c r² mean(g c)), means over the image; dscale = sum(dY n), dbias =
    sum(dY), over examples and positions.
    """
    emit, n = call.emit, call.rank_of(call.x)
    kind = wide(call.x)
    x, dy, scale = (emit.cast(value, kind) for value in (call.x, call.dy, call.input(1)))
    known = _measure(emit, x, emit.ints(*range(2, n)), call.attribute("epsilon", 1e-5))
    results: list[ir.Value | None] = [None, None, None]
    if call.wanted[0]:
        g = emit.op("Mul", dy, _by_channel(emit, scale, n), like=x)
        results[0] = _narrow(emit, _through(emit, known, g), call.x)
    _scale_and_bias(call, results, dy, emit.op("Mul", known.centred, known.rate, like=x))
    return results


@rule("GroupNormalization")
def group_normalization(call: Call) -> Cotangents:
    """Y = n * scale + bias, n = c r, statistics of each group of channels of each example (Wu & He 2018).

    Scale and bias belong to a channel (opset 21), or to a group (opset 18). With g = dY * scale: dx = r (g - mean(g) -
    c r² mean(g c)), means over the group; dscale = sum(dY n), dbias = sum(dY), over all that share them.
    """
    emit, n = call.emit, call.rank_of(call.x)
    kind = wide(call.x)
    x, dy, scale = (emit.cast(value, kind) for value in (call.x, call.dy, call.input(1)))
    groups = emit.ints(0, call.attribute("num_groups"), -1)
    known = _measure(emit, emit.op("Reshape", x, groups), emit.ints(2), call.attribute("epsilon", 1e-5))
    imports = emit.graph.opset_imports
    by_group = imports.get("", imports.get("ai.onnx", _PER_CHANNEL_SINCE)) < _PER_CHANNEL_SINCE
    if by_group:
        dy = emit.op("Reshape", dy, groups)
    g = emit.op("Mul", dy, _by_channel(emit, scale, 3 if by_group else n))
    results: list[ir.Value | None] = [None, None, None]
    if call.wanted[0]:
        dx = _through(emit, known, g if by_group else emit.op("Reshape", g, groups))
        results[0] = _narrow(emit, emit.reshape_like(dx, x), call.x)
    normal = emit.op("Mul", known.centred, known.rate)
    _scale_and_bias(call, results, dy, normal if by_group else emit.reshape_like(normal, x), 3 if by_group else n)
    return results


def _scale_and_bias(
    call: Call, results: list[ir.Value | None], dy: ir.Value, normal: ir.Value, n: int | None = None
) -> None:
    """Fill in the cotangents of scale and bias, vectors along axis 1 of data of rank ``n``."""
    emit = call.emit
    n = n or call.rank_of(call.x)
    if call.wanted[1]:
        results[1] = _narrow(emit, _sum_by_channel(emit, emit.op("Mul", dy, normal), n), call.input(1))
    if call.wanted[2]:
        results[2] = _narrow(emit, _sum_by_channel(emit, dy, n), call.input(2))


@rule("MeanVarianceNormalization")
def mean_variance_normalization(call: Call) -> Cotangents:
    """y = c / (s + 1e-9), c = x - mean, s = sqrt(mean(c²)), over `axes` (ONNX's function body).

    dx = (dy - mean(dy) - c mean(dy c) / (s (s + 1e-9))) / (s + 1e-9), means over the axes; the last term is zero where
    s is.
    """
    emit, n = call.emit, call.rank_of(call.x)
    kind = wide(call.x)
    x, dy = emit.cast(call.x, kind), emit.cast(call.dy, kind)
    axes = emit.ints(*(axis % n for axis in call.attribute("axes", [0, 2, 3])))
    centred = emit.op("Sub", x, emit.op("ReduceMean", x, axes, keepdims=1), like=x)
    spread = emit.op("Sqrt", emit.op("ReduceMean", emit.op("Mul", centred, centred), axes, keepdims=1))
    rate = emit.op("Reciprocal", emit.op("Add", spread, emit.scalar(1e-9, x)))
    curvature = emit.masked(emit.compare("Greater", spread, emit.scalar(0.0, x)), emit.op("Div", rate, spread))
    return [_narrow(emit, _through(emit, _Statistics(centred, rate, axes), dy, curvature), call.x)]


@rule("LpNormalization")
def lp_normalization(call: Call) -> Cotangents:
    """y = x / m along one axis, m the norm of order p: p = 2: dx = (dy - y sum(dy y)) / m; p = 1: dx = (dy - sign(x)
    sum(dy y)) / m. Where m is zero, y is zero by definition and so is dx.
    """
    emit = call.emit
    kind = wide(call.x)
    axis, p = emit.ints(call.attribute("axis", -1)), call.attribute("p", 2)
    x, y, dy = emit.cast(call.x, kind), emit.cast(call.y, kind), emit.cast(call.dy, kind)
    norm = emit.op("ReduceL1" if p == 1 else "ReduceL2", x, axis, keepdims=1)
    rate = emit.masked(emit.compare("Greater", norm, emit.scalar(0.0, x)), emit.op("Reciprocal", norm))
    along = emit.op("ReduceSum", emit.op("Mul", dy, y), axis, keepdims=1)
    direction = emit.op("Sign", x) if p == 1 else y
    inner = emit.op("Sub", dy, emit.op("Mul", direction, along))
    return [_narrow(emit, emit.op("Mul", inner, rate), call.x)]


@rule("LRN")
def lrn(call: Call) -> Cotangents:
    """y = x s^-beta, s = bias + alpha/size W(x²), W the sum over a window of channels (Krizhevsky et al. 2012, 3.3).

    dx = dy s^-beta - 2 alpha beta / size x W'(dy y / s), W' the sum over the mirrored window. Both sums are 1x1
    convolutions with a band of ones.
    """
    emit, x = call.emit, call.x
    n, size = call.rank_of(x), call.attribute("size")
    if n < 3:
        raise call.unsupported("its data have no positions; reshape them to (N, C, 1, 1)")
    alpha, beta = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75)
    kind = wide(x)
    x, y, dy = emit.cast(x, kind), emit.cast(call.y, kind), emit.cast(call.dy, kind)
    square = emit.op("Mul", x, x, like=x)
    total = emit.op("Conv", square, _band(call, n, size, alpha / size, kind), like=x)
    inverse = emit.op("Reciprocal", emit.op("Add", total, emit.scalar(call.attribute("bias", 1.0), x)), like=x)
    inner = emit.op("Mul", emit.op("Mul", dy, y), inverse, like=x)
    spread = emit.op("Conv", inner, _band(call, n, size, -2 * alpha * beta / size, kind, mirrored=True), like=x)
    direct = emit.op("Mul", dy, _power(emit, inverse, beta), like=x)
    return [_narrow(emit, emit.op("Add", direct, emit.op("Mul", x, spread), like=x), call.x)]


def _band(call: Call, n: int, size: int, factor: float, kind: ir.DataType, mirrored: bool = False) -> ir.Value:
    """Weights (C, C, 1, ...): ``factor`` where input channel i is in the window of output channel c, else zero.

    The window of c is from c - floor((size-1)/2) to c + ceil((size-1)/2).
    """
    emit = call.emit
    before, after = (size - 1) // 2, size // 2
    if mirrored:
        before, after = after, before
    sizes = dims(call.x)
    if sizes is not None and isinstance(count := sizes[1], int):
        offset = np.arange(count)[None, :] - np.arange(count)[:, None]
        band = factor * ((offset >= -before) & (offset <= after))
        return emit.constant(band.reshape(count, count, *[1] * (n - 2)), kind)
    places = emit.positions(call.x, 1)
    away = emit.op("Sub", places, emit.op("Unsqueeze", places, emit.ints(1)))
    low = emit.compare("GreaterOrEqual", away, emit.constant(-before))
    inside = emit.typed(ir.DataType.BOOL, "And", low, emit.compare("LessOrEqual", away, emit.constant(after)))
    zeros_and_ones = emit.cast(inside, kind)
    weights = emit.op("Mul", zeros_and_ones, emit.scalar(factor, zeros_and_ones))
    return emit.op("Unsqueeze", weights, emit.ints(*range(2, n)))


def _power(emit: Emitter, base: ir.Value, exponent: float) -> ir.Value:
    """``base`` to a power; square roots where they do, since Pow is slow on the CPU provider."""
    if exponent in (0.5, 0.75):
        half = emit.op("Sqrt", base, like=base)
        return half if exponent == 0.5 else emit.op("Mul", half, emit.op("Sqrt", half, like=base), like=base)
    if exponent == 1.0:
        return base
    return emit.op("Exp", emit.op("Mul", emit.op("Log", base), emit.scalar(exponent, base)), like=base)
