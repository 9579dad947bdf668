"""Pooling by norms, and the way back from a maximum pooling. Formulas from the ONNX operator specification."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.conv import transposed
from vogcore.autodiff.rules.layout import extent, shape_of
from vogcore.autodiff.rules.window import window
from vogcore.graph.shapes import static_dims


def _share(call: Call, dy: ir.Value, y: ir.Value, p: int) -> ir.Value:
    """dy y^(1 - p), zero where y is zero."""
    emit = call.emit
    if p == 1:
        return dy
    zero, one = emit.scalar(0.0, y), emit.scalar(1.0, y)
    empty = emit.compare("Equal", y, zero)
    safe = emit.select(empty, one, y, like=y)
    power = safe if p == 2 else emit.op("Pow", safe, emit.scalar(p - 1.0, y))
    return emit.select(empty, zero, emit.op("Div", dy, power), like=y)


def _slope(call: Call, p: int) -> ir.Value:
    """sign(x) |x|^(p - 1)."""
    emit, x = call.emit, call.x
    if p == 1:
        return emit.op("Sign", x)
    if p == 2:
        return x
    size = emit.op("Abs", x)
    return emit.op("Mul", emit.op("Sign", x), emit.op("Pow", size, emit.scalar(p - 1.0, x)))


@rule("GlobalLpPool")
def global_lp_pool(call: Call) -> Cotangents:
    """y = (sum |x|^p)^(1/p) over an image: dx = dy sign(x) (|x| / y)^(p - 1), zero where y is zero."""
    p = int(call.attribute("p", 2))
    return [call.emit.op("Mul", _share(call, call.dy, call.y, p), _slope(call, p), like=call.x)]


@rule("LpPool")
def lp_pool(call: Call) -> Cotangents:
    """y = (sum |x|^p)^(1/p) over each window: dx = sign(x) |x|^(p - 1) times dy y^(1 - p), spread over the windows."""
    emit, x = call.emit, call.x
    if call.attribute("ceil_mode", 0):
        raise call.unsupported("ceil_mode=1 is not covered; export it with explicit padding")
    kernel = tuple(call.attribute("kernel_shape"))
    p, n = int(call.attribute("p", 2)), len(kernel)
    share = _share(call, call.dy, call.y, p)
    # All channels of all examples as one batch of single-channel images.
    spatial = [extent(emit, call.y, axis) for axis in range(2, 2 + n)]
    single = emit.op("Reshape", share, shape_of(emit, -1, 1, *spatial))
    like, sizes = x, static_dims(x, range(2, 2 + n))
    if sizes is not None:
        like = ir.Value(name=None, shape=ir.Shape([None, 1, *sizes]), type=x.type)
    ones = emit.constant(np.ones((1, 1, *kernel)), x.dtype)
    spread = emit.reshape_like(transposed(call, single, ones, window(call, kernel), 1, like), x)
    return [emit.op("Mul", spread, _slope(call, p), like=x)]


@rule("MaxUnpool")
def max_unpool(call: Call) -> Cotangents:
    """y = x placed at the positions (in the flattened output) that a MaxPool recorded: dx = dy there."""
    emit, indices = call.emit, call.input(1)
    if call.optional(2) is not None:
        kernel, n = call.attribute("kernel_shape"), len(call.attribute("kernel_shape"))
        strides, pads = call.attribute("strides", [1] * n), call.attribute("pads", [0] * 2 * n)
        sizes, wanted = static_dims(call.x), call.known(2)
        if sizes is None or wanted is None:
            raise call.unsupported("its output_shape, or the shape of its input, is not known before the model runs")
        axes = zip(sizes[2:], strides, kernel, pads[:n], pads[n:])
        inferred = [(i - 1) * s + k - b - e for i, s, k, b, e in axes]
        if wanted.tolist()[-n:] != inferred:
            raise call.unsupported("its output_shape is not the one that its strides give, to which the indices refer")
    flat = emit.op("Reshape", call.dy, emit.ints(-1))
    return [emit.op("Gather", flat, indices, axis=0, like=call.x)]
