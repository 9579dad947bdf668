"""Convolution: the gradient with respect to its input.

For Y = conv(X, W) with stride s, dilation d, padding p and groups g, dX is the transposed convolution of dY with W
(Dumoulin & Visin 2016, section 4). With stride 1 that is again an ordinary convolution, of dY with W flipped in space
and with its input and output channels exchanged, which ONNX Runtime runs faster on the CPU; with a larger stride it is
several such convolutions (phases.py). CUDA has a fast transposed convolution, so there it is one. The flipped weights
are written as nodes on the weights themselves: ONNX Runtime folds them when it loads the graph, and the file holds
every weight once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, Deferred, rule
from vogcore.autodiff.rules.conv_weights import weight_cotangent
from vogcore.autodiff.rules.phases import FEW_CHANNELS, few_channel_cotangent, phase_cotangents
from vogcore.autodiff.rules.shape import END
from vogcore.autodiff.rules.window import Window, window
from vogcore.graph.shapes import dims, static_dims


def transposed(call: Call, dy: ir.Value, weight: ir.Value, geometry: Window, group: int, like: ir.Value) -> ir.Value:
    """Transposed convolution of ``dy`` whose result has the spatial size of ``like``."""
    emit, n = call.emit, len(geometry.kernel)
    common: dict[str, Any] = {"strides": list(geometry.strides), "dilations": list(geometry.dilations), "group": group}
    sizes = static_dims(like, range(2, 2 + n))
    if sizes is not None:
        # Positions at the end that no window reached because the stride did not divide.
        rest = [
            (i + b + e - x) % s
            for i, b, e, x, s in zip(sizes, geometry.begin, geometry.end, geometry.extent, geometry.strides)
        ]
        ends = [e - r for e, r in zip(geometry.end, rest)]
        if call.options.lowering == "cuda" and list(geometry.begin) != (ends if min(ends) >= 0 else [*geometry.end]):
            return _symmetric(call, dy, weight, geometry, ends, sizes, common)
        if min(ends) >= 0:  # giving up end padding instead of asking for output_padding keeps every provider's kernel
            return emit.op("ConvTranspose", dy, weight, pads=[*geometry.begin, *ends], **common)
        return emit.op("ConvTranspose", dy, weight, pads=geometry.pads, output_padding=rest, **common)
    full = emit.op("ConvTranspose", dy, weight, **common)
    spatial = emit.op("Slice", emit.shape(like), emit.ints(2), emit.ints(END))
    reached = emit.op("Slice", emit.shape(full), emit.ints(2), emit.ints(END))
    begin, end = emit.ints(*geometry.begin), emit.ints(*geometry.end)
    padded = emit.op("Add", emit.op("Add", spatial, begin), end)
    # The amounts of all axes, as in shape.pad_axis.
    missing = emit.op("Concat", emit.ints(*[0] * (n + 4)), emit.op("Sub", padded, reached), axis=0)
    grown = emit.op("Pad", full, missing, emit.scalar(0.0, like))
    return emit.op("Slice", grown, begin, emit.op("Add", begin, spatial), emit.ints(*range(2, 2 + n)))


def _symmetric(
    call: Call,
    dy: ir.Value,
    weight: ir.Value,
    geometry: Window,
    ends: list[int],
    sizes: tuple[int, ...],
    common: dict[str, Any],
) -> ir.Value:
    """Transposed convolution with equal padding at both ends, the only one that CUDA has a kernel for; cut after it."""
    emit, n = call.emit, len(sizes)
    both = [min(b, max(e, 0)) for b, e in zip(geometry.begin, ends)]
    result = emit.op("ConvTranspose", dy, weight, pads=both * 2, **common)
    axes = emit.ints(*range(2, 2 + n))
    if min(ends) < 0:  # positions that no window reached
        result = emit.op("Pad", result, emit.ints(*[0] * n, *(max(-e, 0) for e in ends)), emit.scalar(0.0, dy), axes)
    starts = [b - p for b, p in zip(geometry.begin, both)]
    stops = [start + size for start, size in zip(starts, sizes)]
    return emit.op("Slice", result, emit.ints(*starts), emit.ints(*stops), axes)


def _flipped(call: Call, weight: ir.Value, group: int) -> ir.Value:
    """Weights (M, C/g, k...) as (C, M/g, k...), reversed along every spatial axis."""
    emit = call.emit
    sizes = static_dims(weight)
    n = call.rank_of(weight) - 2
    if group == 1:
        swapped = emit.op("Transpose", weight, perm=[1, 0, *range(2, n + 2)])
    else:
        assert sizes is not None
        m, c, *kernel = sizes
        apart = emit.op("Reshape", weight, emit.ints(group, m // group, c, *kernel))
        exchanged = emit.op("Transpose", apart, perm=[0, 2, 1, *range(3, n + 3)])
        swapped = emit.op("Reshape", exchanged, emit.ints(group * c, m // group, *kernel))
    if sizes is not None and all(size == 1 for size in sizes[2:]):
        return swapped
    axes = range(2, n + 2)
    lowest = np.iinfo(np.int64).min
    return emit.op(
        "Slice", swapped, emit.ints(*[-1] * n), emit.ints(*[lowest] * n), emit.ints(*axes), emit.ints(*[-1] * n)
    )


def _input_cotangent(call: Call, geometry: Window, group: int) -> ir.Value | Deferred:
    emit, weight, like = call.emit, call.input(1), call.x
    pads = [e - 1 - p for e, p in zip(geometry.extent * 2, geometry.pads)]
    if min(pads) < 0 or (group > 1 and static_dims(weight) is None):
        return emit.blocked(transposed(call, call.dy, weight, geometry, group, like))
    flipped = _flipped(call, weight, group)
    if call.x is call.options.averaged and group == 1 and (sizes := dims(call.x)) is not None:
        # The mean over the channels is linear, so the weights can be averaged instead.
        flipped = emit.op("ReduceMean", flipped, emit.ints(0), keepdims=1)
        like = ir.Value(name=None, shape=ir.Shape([sizes[0], 1, *sizes[2:]]), type=call.x.type)
    channels, on_cpu = static_dims(like, [1]), call.options.lowering == "cpu"
    result: ir.Value | Deferred | None = None
    if on_cpu and group == 1 and channels is not None and channels[0] < FEW_CHANNELS:
        result = few_channel_cotangent(emit, call.dy, flipped, geometry, like)
    if result is None and all(s == 1 for s in geometry.strides):
        result = emit.op(
            "Conv",
            call.dy,
            flipped,
            dilations=list(geometry.dilations),
            group=group,
            pads=pads,
            kernel_shape=list(geometry.kernel),
            like=like,
        )
    if result is None and on_cpu:
        result = phase_cotangents(emit, call.dy, flipped, geometry, group, like)
    # The last resort, and what is fast on CUDA: not averaged, which the caller sees by its shape.
    return result or emit.blocked(transposed(call, call.dy, weight, geometry, group, call.x))


@rule("Conv")
def conv(call: Call) -> Cotangents:
    """dX = transposed convolution of dY with W; dW = convolution of X with dY; dB = dY summed over all positions."""
    emit, weight = call.emit, call.input(1)
    sizes = static_dims(weight)
    kernel = call.attribute("kernel_shape") or (sizes[2:] if sizes is not None else None)
    if kernel is None:
        raise call.unsupported("the shape of its weights is not known")
    group = call.attribute("group", 1)
    geometry = window(call, tuple(kernel))
    dx = dw = db = None
    if call.wanted[0]:
        dx = _input_cotangent(call, geometry, group)
    if call.wanted[1]:
        dw = weight_cotangent(call, call.x, call.dy, geometry, group, weight)
    if len(call.wanted) > 2 and call.wanted[2]:
        db = emit.op("ReduceSum", call.dy, emit.ints(0, *range(2, 2 + len(kernel))), keepdims=0)
    return [dx, dw, db][: len(call.node.inputs)]


@rule("ConvTranspose")
def conv_transpose(call: Call) -> Cotangents:
    """Y is a transposed convolution of X, so dX is the ordinary convolution of dY with the same weights.

    dW is that of this ordinary convolution, with X and dY in each other's place; dB = dY summed.
    """
    emit, weight = call.emit, call.input(1)
    sizes = static_dims(weight)
    kernel = call.attribute("kernel_shape") or (sizes[2:] if sizes is not None else None)
    if kernel is None:
        raise call.unsupported("the shape of its weights is not known")
    n, group = len(kernel), call.attribute("group", 1)
    geometry = _transposed_window(call, tuple(kernel))
    dy, pads = call.dy, geometry.pads
    if min(pads) < 0:
        cut = [max(-p, 0) for p in geometry.end]
        axes = [axis + 2 for axis, c in enumerate(cut) if c]
        dy = emit.op("Slice", dy, emit.ints(*[0] * len(axes)), emit.ints(*(-c for c in cut if c)), emit.ints(*axes))
        pads = [max(p, 0) for p in pads]
    results: list[ir.Value | None] = [None] * len(call.node.inputs)
    if call.wanted[0]:
        results[0] = emit.op(
            "Conv",
            dy,
            weight,
            strides=list(geometry.strides),
            dilations=list(geometry.dilations),
            group=group,
            pads=pads,
        )
    if call.wanted[1]:
        window_ = Window(geometry.kernel, geometry.strides, geometry.dilations, tuple(pads[:n]), tuple(pads[n:]))
        results[1] = weight_cotangent(call, dy, call.x, window_, group, weight)
    if len(call.wanted) > 2 and call.wanted[2]:
        results[2] = emit.op("ReduceSum", call.dy, emit.ints(0, *range(2, 2 + n)), keepdims=0)
    return results


def _transposed_window(call: Call, kernel: tuple[int, ...]) -> Window:
    """The window of the ordinary convolution that a ConvTranspose is the adjoint of.

    Its end padding is negative where the output has positions at its end that came from no window.
    """
    n = len(kernel)
    strides, dilations = (tuple(call.attribute(name, [1] * n)) for name in ("strides", "dilations"))
    pads, extra = call.attribute("pads", [0] * 2 * n), call.attribute("output_padding", [0] * n)
    auto, wanted = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    begin, end = pads[:n], pads[n:]
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    totals = None
    if wanted:
        sizes = static_dims(call.x, range(2, 2 + n))
        if sizes is None:
            raise call.unsupported("output_shape needs a known image size; export it with explicit pads")
        totals = [s * (i - 1) + o + e - w for s, i, o, e, w in zip(strides, sizes, extra, extents, wanted[-n:])]
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        if any(extra):
            raise call.unsupported(
                f"ONNX and ONNX Runtime disagree on output_padding with auto_pad={auto}; export it with explicit pads"
            )
        totals = [max(e - s, 0) for e, s in zip(extents, strides)]
    elif auto == "VALID":
        begin, end = [0] * n, [0] * n
    if totals is not None:
        halves = [max(total, 0) // 2 for total in totals]
        begin = halves if auto == "SAME_UPPER" else [max(t, 0) - h for t, h in zip(totals, halves)]
        end = [total - b for total, b in zip(totals, begin)]
    # output_padding added positions at the end that came from no window, too.
    return Window(kernel, strides, dilations, tuple(begin), tuple(e - o for e, o in zip(end, extra)))
