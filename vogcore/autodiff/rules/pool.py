"""Pooling over sliding windows and over whole images."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.conv import transposed
from vogcore.autodiff.rules.shape import END, scatter_add
from vogcore.autodiff.rules.window import Window, spatial_rank, window
from vogcore.graph.shapes import static_dims


@rule("MaxPool")
def max_pool(call: Call) -> Cotangents:
    """dx = dy added up at the position of each window's maximum; among ties the first one, as in torch.

    The forward node is given its second output, Indices: positions in the flattened input. Overlapping windows may
    share a position, hence the addition.
    """
    emit, x = call.emit, call.x
    if call.attribute("storage_order", 0):
        raise call.unsupported("storage_order=1 is not covered")
    _require_true_size(call)
    if len(call.node.outputs) < 2:
        call.node.resize_outputs(2)
    indices = call.node.outputs[1]
    if not indices.name:
        indices.name = emit.name("Indices")
        indices.type = ir.TensorType(ir.DataType.INT64)
    flat = emit.ints(-1)
    sizes = static_dims(x)
    total = emit.ints(math.prod(sizes)) if sizes is not None else emit.op("Reshape", emit.size(x), flat)
    values = emit.op("Reshape", call.dy, flat)
    summed = scatter_add(emit, total, emit.op("Reshape", indices, flat), values, axis=0)
    return [emit.reshape_like(summed, x)]


@rule("AveragePool")
def average_pool(call: Call) -> Cotangents:
    """dx = dy / count, spread over each window: a transposed convolution with a kernel of ones, channel by channel."""
    emit, x = call.emit, call.x
    kernel = tuple(call.attribute("kernel_shape"))
    geometry = window(call, kernel)
    n = len(kernel)
    if call.attribute("ceil_mode", 0):
        _require_true_size(call)
        geometry = _reach_last_window(call, geometry)
    spatial = emit.op("Slice", emit.shape(x), emit.ints(2), emit.ints(END))
    counts = _counts(call, geometry, spatial)
    share = emit.op("Div", call.dy, counts)
    # All channels of all examples as one batch of single-channel images.
    out_spatial = emit.op("Slice", emit.shape(call.y), emit.ints(2), emit.ints(END))
    single = emit.op("Reshape", share, emit.op("Concat", emit.ints(-1, 1), out_spatial, axis=0))
    ones = emit.constant(np.ones((1, 1, *kernel)), x.dtype)
    like = ir.Value(name=None, shape=None, type=x.type)
    sizes = static_dims(x, range(2, 2 + n))
    if sizes is not None:
        like.shape = ir.Shape([None, 1, *sizes])
        spread = transposed(call, single, ones, geometry, 1, like)
    else:
        spread = transposed(call, single, ones, geometry, 1, x)
    return [emit.reshape_like(spread, x)]


def _require_true_size(call: Call) -> None:
    """Refuse a pooling whose inferred output size is not the one that runtimes compute.

    With ``ceil_mode`` the last window counts only if it starts inside the image or its begin padding. ONNX shape
    inference leaves that condition out below opset 22, and every size behind the node would be wrong.
    """
    geometry = window(call, tuple(call.attribute("kernel_shape")))
    axes = range(2, 2 + len(geometry.kernel))
    sizes, outputs = static_dims(call.x, axes), static_dims(call.y, axes)
    if not call.attribute("ceil_mode", 0) or sizes is None or outputs is None:
        return
    for o, i, s, b in zip(outputs, sizes, geometry.strides, geometry.begin):
        if (o - 1) * s >= i + b:
            raise call.unsupported(
                "ONNX infers a wrong output size for its ceil_mode and pads; export it with opset 22 or newer, or "
                "with explicit padding"
            )


def _reach_last_window(call: Call, geometry: Window) -> Window:
    """ceil_mode: end padding grown so that the last, partial window is an ordinary one."""
    n = len(geometry.kernel)
    sizes, outputs = static_dims(call.x, range(2, 2 + n)), static_dims(call.y, range(2, 2 + n))
    if sizes is None or outputs is None:
        raise call.unsupported("ceil_mode needs a known image size")
    end = tuple(
        max((o - 1) * s + e - i - b, p)
        for o, s, e, i, b, p in zip(outputs, geometry.strides, geometry.extent, sizes, geometry.begin, geometry.end)
    )
    return Window(geometry.kernel, geometry.strides, geometry.dilations, geometry.begin, end)


def _counts(call: Call, geometry: Window, spatial: ir.Value) -> ir.Value:
    """Number of elements that each window averages, (1, 1, *output size)."""
    emit, n = call.emit, len(geometry.kernel)
    dtype = call.x.dtype or ir.DataType.FLOAT
    declared = window(call, geometry.kernel)
    include = bool(call.attribute("count_include_pad", 0))
    if not any(geometry.pads) or (include and geometry == declared):
        return emit.scalar(float(math.prod(geometry.kernel)), call.x)
    sizes = static_dims(call.x, range(2, 2 + n))
    if sizes is not None:
        inside = np.ones(sizes)
        inside = np.pad(inside, list(zip(declared.begin, declared.end)), constant_values=float(include))
        grown = [(0, e - d) for e, d in zip(geometry.end, declared.end)]
        counts = _window_sums(np.pad(inside, grown), geometry)
        return emit.constant(counts[None, None], dtype)
    ones = emit.filled(emit.op("Concat", emit.ints(1, 1), spatial, axis=0), 1.0, dtype)
    kernel = emit.constant(np.ones((1, 1, *geometry.kernel)), dtype)
    return emit.op(
        "Conv",
        ones,
        kernel,
        strides=list(geometry.strides),
        dilations=list(geometry.dilations),
        pads=geometry.pads,
    )


def _window_sums(values: np.ndarray, geometry: Window) -> np.ndarray:
    """Sum of ``values`` under every position of the window."""
    views = np.lib.stride_tricks.sliding_window_view(values, geometry.extent)
    n = values.ndim
    picked = views[
        tuple(slice(None, None, s) for s in geometry.strides) + tuple(slice(None, None, d) for d in geometry.dilations)
    ]
    return picked.sum(axis=tuple(range(n, 2 * n)))


@rule("GlobalAveragePool")
def global_average_pool(call: Call) -> Cotangents:
    """dx = dy / (number of positions), spread over the image."""
    emit, x = call.emit, call.x
    sizes = static_dims(x, range(2, 2 + spatial_rank(call)))
    if sizes is not None:
        count: float | ir.Value = float(math.prod(sizes))
    else:
        spatial = emit.op("Slice", emit.shape(x), emit.ints(2), emit.ints(END))
        count = emit.op("ReduceProd", spatial, keepdims=0)
    return [emit.blocked(emit.expand_like(emit.share(call.dy, count), x))]


@rule("GlobalMaxPool")
def global_max_pool(call: Call) -> Cotangents:
    """dy goes to the position of the maximum; among ties to the first one (torch.nn.AdaptiveMaxPool2d)."""
    emit, x = call.emit, call.x
    flat = emit.op("Reshape", x, emit.ints(0, 0, -1))
    sizes = static_dims(x, range(2, 2 + spatial_rank(call)))
    flat.shape = ir.Shape([None, None, None if sizes is None else math.prod(sizes)])
    positions = emit.positions(flat, 2)
    first = emit.typed(ir.DataType.INT64, "ArgMax", flat, axis=2, keepdims=1)
    hit = emit.cast(emit.compare("Equal", first, positions), x.dtype or ir.DataType.FLOAT)
    spread = emit.op("Mul", hit, emit.op("Reshape", call.dy, emit.ints(0, 0, 1)))
    return [emit.reshape_like(spread, x)]
