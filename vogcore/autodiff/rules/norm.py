"""Normalisation layers."""

from __future__ import annotations

import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule


@rule("BatchNormalization")
def batch_normalization(call: Call) -> Cotangents:
    """In evaluation mode y = (x - mean) scale / sqrt(var + eps) + bias, so dx = dy scale / sqrt(var + eps)."""
    if any(call.wanted[1:]):
        raise call.unsupported("its statistics depend on the input, and only gradients with respect to X are known")
    emit, scale, variance = call.emit, call.input(1), call.input(4)
    # Statistics may be kept in a wider type than the data (opset 15).
    variance = emit.cast(variance, scale.dtype or ir.DataType.FLOAT)
    shifted = emit.op("Add", variance, emit.scalar(call.attribute("epsilon", 1e-5), variance))
    slope = emit.cast(emit.op("Div", scale, emit.op("Sqrt", shifted)), call.x.dtype or ir.DataType.FLOAT)
    n = call.rank_of(call.x)
    if n > 2:
        slope = emit.op("Reshape", slope, emit.ints(-1, *[1] * (n - 2)))
    return [emit.op("Mul", call.dy, slope)]


@rule("LayerNormalization")
def layer_normalization(call: Call) -> Cotangents:
    """Y = n * scale + bias, n = (x - mean) r, r = 1/sqrt(var + eps) over the axes from ``axis`` on (Ba et al. 2016).

    With g = dY * scale: dx = r (g - mean(g) - n mean(g n)), means over the normalised axes. Half-precision data are
    computed in float32, as the operator itself does (its attribute stash_type).
    """
    if any(call.wanted[1:]):
        raise call.unsupported("its scale depends on the input, and only gradients with respect to X are known")
    emit, n = call.emit, call.rank_of(call.x)
    dtype = call.x.dtype or ir.DataType.FLOAT
    wide = ir.DataType.FLOAT if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else dtype
    x, scale, dy = emit.cast(call.x, wide), emit.cast(call.input(1), wide), emit.cast(call.dy, wide)
    axes = emit.ints(*range(call.attribute("axis", -1) % n, n))
    centred = emit.op("Sub", x, emit.op("ReduceMean", x, axes, keepdims=1))
    variance = emit.op("ReduceMean", emit.op("Mul", centred, centred), axes, keepdims=1)
    shifted = emit.op("Add", variance, emit.scalar(call.attribute("epsilon", 1e-5), x))
    rate = emit.op("Reciprocal", emit.op("Sqrt", shifted))
    normal = emit.op("Mul", centred, rate)
    g = emit.op("Mul", dy, scale)
    mean_g = emit.op("ReduceMean", g, axes, keepdims=1)
    mean_gn = emit.op("ReduceMean", emit.op("Mul", g, normal), axes, keepdims=1)
    inner = emit.op("Sub", emit.op("Sub", g, mean_g), emit.op("Mul", normal, mean_gn))
    return [emit.cast(emit.op("Mul", rate, inner), dtype)]
