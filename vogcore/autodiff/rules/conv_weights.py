"""Convolution: the gradient with respect to its weights, where they are computed from the input.

For Y[n, m, o] = sum over c, k of W[m, c, k] X[n, c, o s + k d - p] the gradient sums over examples and outputs,
dW[m, c, k] = sum over n, o of dY[n, m, o] X[n, c, k d + o s - p]: a convolution of X with dY in the place of the
weights, in which examples and channels change places, and stride and dilation too.
"""

from __future__ import annotations

import onnx_ir as ir

from vogcore.autodiff.registry import Call
from vogcore.autodiff.rules.layout import extent, shape_of
from vogcore.autodiff.rules.window import Window
from vogcore.graph.shapes import static_dims

__all__ = ["weight_cotangent"]


def weight_cotangent(
    call: Call, image: ir.Value, outputs: ir.Value, geometry: Window, group: int, weight: ir.Value
) -> ir.Value:
    """dW (M, C / group, kernel...).

    Args:
        call: the node, for its emitter and its errors.
        image: what the window slides over, (N, C, ...): X of Conv, dY of ConvTranspose.
        outputs: one value for each position of the window, (N, M, ...): dY of Conv, X of ConvTranspose.
        geometry: the window; its end padding need not be used up by the strides.
        group: number of groups of channels.
        weight: W, for its shape.
    """
    emit, n = call.emit, len(geometry.kernel)
    axes = range(2, 2 + n)
    if group == 1:
        data = emit.op("Transpose", image, perm=[1, 0, *axes])  # (C, N, ...)
    else:
        sizes = static_dims(weight, [1])
        if sizes is None:
            raise call.unsupported("its weights depend on the input, and the number of channels in a group is unknown")
        spatial = [extent(emit, image, axis) for axis in axes]
        apart = emit.op("Reshape", image, shape_of(emit, extent(emit, image, 0), group, sizes[0], *spatial))
        turned = emit.op("Transpose", apart, perm=[2, 1, 0, *(axis + 1 for axis in axes)])
        data = emit.op("Reshape", turned, shape_of(emit, sizes[0], -1, *spatial))  # (C / g, g N, ...)
    window = emit.op("Transpose", outputs, perm=[1, 0, *axes])  # (M, N, ...)
    full = emit.op(
        "Conv",
        data,
        window,
        strides=list(geometry.dilations),
        dilations=list(geometry.strides),
        pads=geometry.pads,
        group=group,
    )
    # Positions that the strides left over at the end make it longer than the kernel.
    cut = emit.op("Slice", full, emit.ints(*[0] * n), emit.ints(*geometry.kernel), emit.ints(*axes))
    return emit.op("Transpose", cut, perm=[1, 0, *axes], like=weight)
