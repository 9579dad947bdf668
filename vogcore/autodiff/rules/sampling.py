"""Reading an image at computed positions: GridSample, AffineGrid, RoiAlign. Formulas from the ONNX specification."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.layout import extent, shape_of
from vogcore.autodiff.rules.shape import END, scatter_add


@dataclass
class Tap:
    """One pixel that every sample reads along one axis."""

    position: ir.Value
    """Index along the axis, int64, always inside; shape (N, P)."""
    weight: ir.Value
    slope: ir.Value | None
    """Derivative of the weight by the normalised coordinate; None where it is zero."""


@rule("GridSample")
def grid_sample(call: Call) -> Cotangents:
    """y = sum over the pixels around a point of their weights times x: dX = weight dy added up at those pixels.

    dGrid = sum over channels and pixels of x dy times the derivative of the weight by the coordinate (Jaderberg et al.
    2015, eq. 6 and 7), for every interpolation (nearest: zero) and padding, in any number of dimensions.
    """
    emit, x, grid, dy = call.emit, call.x, call.input(1), call.dy
    n = call.rank_of(x) - 2
    dtype = x.dtype or ir.DataType.FLOAT
    if grid.dtype is not None and grid.dtype != dtype:
        raise call.unsupported("its grid has another type than its image")
    sizes = [extent(emit, x, 2 + axis) for axis in range(n)]
    points = emit.op("Reshape", grid, emit.ints(0, -1, n))
    taps = []
    for axis in range(n):
        # The last coordinate of a point is that of the first spatial axis.
        column = emit.op("Gather", points, emit.constant(n - 1 - axis), axis=2)
        taps.append(_taps(call, column, sizes[axis]))
    combinations = list(itertools.product(*taps))
    flat = [_flat(call, [tap.position for tap in corner], sizes) for corner in combinations]
    positions = emit.op("Concat", *(emit.op("Unsqueeze", p, emit.ints(1)) for p in flat), axis=2)
    channels = emit.op("Reshape", dy, emit.ints(0, 0, -1))  # (N, C, P)
    shape = shape_of(emit, extent(emit, x, 0), extent(emit, x, 1), 1)
    spread = emit.typed(ir.DataType.INT64, "Expand", positions, shape)  # (N, C, corners * P)
    dx = dgrid = None
    if call.wanted[0]:
        parts = [
            emit.op("Mul", channels, emit.op("Unsqueeze", _product(call, [t.weight for t in corner]), emit.ints(1)))
            for corner in combinations
        ]
        values = emit.op("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
        total = emit.constant(math.prod(s for s in sizes if isinstance(s, int)))
        for size in sizes:
            total = total if isinstance(size, int) else emit.op("Mul", total, size)
        whole = shape_of(emit, extent(emit, x, 0), extent(emit, x, 1), emit.op("Reshape", total, emit.ints(-1)))
        dx = emit.reshape_like(scatter_add(emit, whole, spread, values, 2), x)
    if call.wanted[1]:
        read = emit.op("GatherElements", emit.op("Reshape", x, emit.ints(0, 0, -1)), spread, axis=2)
        copies = emit.op("Concat", *[channels] * len(combinations), axis=2)
        strength = emit.op("ReduceSum", emit.op("Mul", read, copies), emit.ints(1), keepdims=0)  # (N, corners * P)
        columns = []
        for axis in reversed(range(n)):
            slopes = []
            for corner in combinations:
                slope = corner[axis].slope
                others = [tap.weight for a, tap in enumerate(corner) if a != axis]
                slopes.append(
                    _product(call, [slope, *others]) if slope is not None else emit.zeros_like(corner[axis].weight)
                )
            joined = emit.op("Concat", *slopes, axis=1)
            each = emit.op("Reshape", emit.op("Mul", strength, joined), emit.ints(0, len(combinations), -1))
            columns.append(emit.op("ReduceSum", each, emit.ints(1), keepdims=0))
        pairs = [emit.op("Unsqueeze", column, emit.ints(2)) for column in columns]
        dgrid = emit.reshape_like(emit.op("Concat", *pairs, axis=2), grid)
    return [dx, dgrid]


def _product(call: Call, factors: Sequence[ir.Value]) -> ir.Value:
    result = factors[0]
    for factor in factors[1:]:
        result = call.emit.op("Mul", result, factor)
    return result


def _flat(call: Call, positions: Sequence[ir.Value], sizes: Sequence[int | ir.Value]) -> ir.Value:
    """Positions in the flattened image."""
    emit = call.emit
    result = positions[0]
    for position, size in zip(positions[1:], sizes[1:], strict=True):
        step = emit.ints(size) if isinstance(size, int) else size
        result = emit.op("Add", emit.op("Mul", result, step), position)
    return result


def _taps(call: Call, coordinate: ir.Value, size: int | ir.Value) -> list[Tap]:
    """The pixels that the samples at ``coordinate``, -1 to 1 over the image, read along one axis."""
    emit, dtype = call.emit, call.x.dtype or ir.DataType.FLOAT
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(m := call.attribute("mode", "linear"), m)
    padding = call.attribute("padding_mode", "zeros")
    corners = bool(call.attribute("align_corners", 0))

    def number(value: float) -> ir.Value:
        return emit.scalar(value, call.x)

    length = number(float(size)) if isinstance(size, int) else emit.cast(size, dtype)
    last = emit.op("Sub", length, number(1.0))
    scale = emit.op("Mul", last if corners else length, number(0.5))
    # align_corners: -1 and 1 are the centres of the outer pixels; else their outer edges.
    at = emit.op("Add", emit.op("Mul", coordinate, scale), emit.op("Mul", last, number(0.5)))
    low, high = (number(0.0), last) if corners else (number(-0.5), emit.op("Sub", length, number(0.5)))
    chain = scale
    if mode != "cubic":  # padding moves the point itself
        at, chain = _moved(call, at, padding, low, high, last, scale)
    if mode == "nearest":
        at = emit.op("Round", at)  # halves to even, as in the specification
        return [_tap(call, at, number(1.0), None, padding, last, low, high)]
    floor = emit.op("Floor", at)
    part = emit.op("Sub", at, floor)
    if mode == "linear":
        weights = [emit.op("Sub", number(1.0), part), part]
        slopes = [emit.op("Neg", chain), chain]
        return [
            _tap(call, emit.op("Add", floor, number(float(k))), weights[k], slopes[k], padding, last, low, high)
            for k in (0, 1)
        ]
    if mode != "cubic":
        raise call.unsupported(f"mode={mode!r} is not known")
    taps = []
    for k in range(4):  # Keys 1981 with a = -0.75: pixels -1, 0, 1, 2 away from the floor, as polynomials of the part
        coefficients = _CUBIC[k]
        weight, slope = number(coefficients[3]), number(3 * coefficients[3])
        for power in (2, 1, 0):
            weight = emit.op("Add", emit.op("Mul", weight, part), number(coefficients[power]))
        for power in (2, 1):
            slope = emit.op("Add", emit.op("Mul", slope, part), number(power * coefficients[power]))
        place = emit.op("Add", floor, number(k - 1.0))
        taps.append(_tap(call, place, weight, emit.op("Mul", slope, chain), padding, last, low, high))
    return taps


_A = -0.75
_CUBIC = (
    (0.0, _A, -2 * _A, _A),
    (1.0, 0.0, -(_A + 3), _A + 2),
    (0.0, -_A, 2 * _A + 3, -(_A + 2)),
    (0.0, 0.0, _A, -_A),
)
"""Coefficients of 1, t, t², t³ of the four weights at a part t behind the second pixel."""


def _moved(
    call: Call, at: ir.Value, padding: str, low: ir.Value, high: ir.Value, last: ir.Value, scale: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The point as border and reflection padding move it, and its derivative by the normalised coordinate."""
    emit, dtype = call.emit, call.x.dtype or ir.DataType.FLOAT
    if padding == "zeros":
        return at, scale
    zero = emit.scalar(0.0, call.x)
    slope = scale
    if padding == "reflection":
        at, sign = _reflected(call, at, low, high)
        slope = emit.op("Mul", scale, sign)
    clipped = emit.op("Min", emit.op("Max", at, zero), last)
    # Not whether the clipped point equals the point: a runtime may hold one of the two in a wider type.
    right, left = emit.compare("GreaterOrEqual", at, zero), emit.compare("LessOrEqual", at, last)
    inside = emit.cast(emit.typed(ir.DataType.BOOL, "And", right, left), dtype)
    return clipped, emit.op("Mul", slope, inside)


def _reflected(call: Call, at: ir.Value, low: ir.Value, high: ir.Value) -> tuple[ir.Value, ir.Value]:
    """``at`` reflected at ``low`` and ``high`` until it lies between them, and the sign of its derivative."""
    emit = call.emit
    span = emit.op("Sub", high, low)
    # A span of zero (one pixel, align_corners) leaves one place only.
    some = emit.select(emit.compare("Equal", span, emit.scalar(0.0, span)), emit.scalar(1.0, span), span, like=span)
    distance = emit.op("Sub", at, low)
    period = emit.op("Mul", some, emit.scalar(2.0, some))
    turns = emit.op("Floor", emit.op("Div", distance, period))
    within = emit.op("Sub", distance, emit.op("Mul", turns, period))  # 0 to two spans
    back = emit.compare("Greater", within, some)
    folded = emit.select(back, emit.op("Sub", period, within), within, like=at)
    sign = emit.select(back, emit.scalar(-1.0, at), emit.scalar(1.0, at), like=at)
    return emit.op("Add", low, folded), sign


def _tap(
    call: Call,
    place: ir.Value,
    weight: ir.Value,
    slope: ir.Value | None,
    padding: str,
    last: ir.Value,
    low: ir.Value,
    high: ir.Value,
) -> Tap:
    """A tap at ``place``, a whole number that may lie outside the image."""
    emit, dtype = call.emit, call.x.dtype or ir.DataType.FLOAT
    if padding == "reflection":
        place, _ = _reflected(call, place, low, high)
    inside = emit.op("Min", emit.op("Max", place, emit.scalar(0.0, call.x)), last)
    if padding == "zeros":
        present = emit.cast(emit.compare("Equal", inside, place), dtype)
        weight = emit.op("Mul", weight, present)
        slope = emit.op("Mul", slope, present) if slope is not None else None
    else:  # of the shape of the points, also where it is a constant
        weight = emit.op("Add", weight, emit.op("Sub", place, place))
    return Tap(emit.cast(emit.op("Round", inside), ir.DataType.INT64), weight, slope)


@rule("AffineGrid")
def affine_grid(call: Call) -> Cotangents:
    """y = points of the unit grid, with a one appended, times thetaᵀ: dtheta = dyᵀ times those points."""
    emit, theta = call.emit, call.x
    sizes = call.known(1)
    shape = static = None
    if sizes is not None:
        n, static = sizes.size - 2, sizes
    else:
        n = call.rank_of(call.y) - 2
    dtype = theta.dtype or ir.DataType.FLOAT
    # ONNX Runtime has a kernel for the wide types only, and its expansion in half precision does not run.
    wide = dtype if dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    unit = emit.constant(np.eye(n, n + 1)[None], wide)
    shape = emit.ints(1, 1, *static[2:].tolist()) if static is not None else _one_image(call)
    base = emit.op("AffineGrid", unit, shape, align_corners=call.attribute("align_corners", 0))
    points = emit.cast(emit.op("Reshape", base, emit.ints(-1, n)), dtype)
    one = emit.op("Slice", emit.op("Mul", points, emit.scalar(0.0, theta)), *(emit.ints(k) for k in (0, 1, 1)))
    points = emit.op("Concat", points, emit.op("Add", one, emit.scalar(1.0, theta)), axis=1)  # (P, n + 1)
    rows = emit.op("Transpose", emit.op("Reshape", call.dy, emit.ints(0, -1, n)), perm=[0, 2, 1])
    return [emit.op("MatMul", rows, points, like=theta)]


def _one_image(call: Call) -> ir.Value:
    emit = call.emit
    return emit.op("Concat", emit.ints(1, 1), emit.op("Slice", call.input(1), emit.ints(2), emit.ints(END)), axis=0)


@rule("RoiAlign")
def roi_align(call: Call) -> Cotangents:
    """y = mean over samples of a bilinear reading, R_y X R_xᵀ for each region: dX = R_yᵀ dy R_x, added up by image.

    Bilinear weights are max(0, 1 - |distance|) (He et al. 2017).
    """
    emit, x, rois = call.emit, call.x, call.input(1)
    if call.wanted[1]:
        raise call.unsupported("its regions depend on the input, and only gradients with respect to X are known")
    if call.attribute("mode", "avg") != "avg":
        raise call.unsupported("mode='max' is not covered; export it with mode='avg'")
    samples = call.attribute("sampling_ratio", 0)
    if samples <= 0:
        raise call.unsupported(
            "sampling_ratio=0 takes another number of samples in each region; export it with a fixed sampling_ratio"
        )
    dtype = x.dtype or ir.DataType.FLOAT
    sizes = [call.attribute("output_height", 1), call.attribute("output_width", 1)]
    rows = _readings(call, rois, 1, extent(emit, x, 2), sizes[0], samples)
    columns = _readings(call, rois, 0, extent(emit, x, 3), sizes[1], samples)
    inner = emit.op("MatMul", call.dy, columns)  # (R, C, output height, W)
    regions = emit.op("MatMul", emit.op("Transpose", rows, perm=[0, 1, 3, 2]), inner)  # (R, C, H, W)
    images = emit.op("Reshape", emit.positions(x, 0), emit.ints(-1, 1))
    belongs = emit.cast(emit.compare("Equal", images, call.input(2)), dtype)  # (N, R)
    flat = emit.op("Reshape", regions, shape_of(emit, emit.dim(rois, 0), -1))
    return [emit.reshape_like(emit.op("MatMul", belongs, flat), x)]


def _readings(call: Call, rois: ir.Value, column: int, size: int | ir.Value, bins: int, samples: int) -> ir.Value:
    """Weights (R, 1, bins, size) with which the bins of every region read the pixels of one axis."""
    emit, dtype = call.emit, call.x.dtype or ir.DataType.FLOAT

    def number(value: float) -> ir.Value:
        return emit.scalar(value, call.x)

    half = call.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    scaled = emit.op("Mul", rois, number(float(call.attribute("spatial_scale", 1.0))))
    shifted = emit.op("Sub", scaled, number(0.5)) if half else scaled
    start, end = (emit.op("Slice", shifted, emit.ints(k), emit.ints(k + 1), emit.ints(1)) for k in (column, column + 2))
    length = emit.op("Sub", end, start)
    if not half:
        length = emit.op("Max", length, number(1.0))
    steps = (np.arange(bins * samples) + 0.5) / (bins * samples)
    at = emit.op("Add", start, emit.op("Mul", length, emit.constant(steps[None], dtype)))  # (R, bins * samples)
    span = number(float(size)) if isinstance(size, int) else emit.cast(size, dtype)
    near = emit.typed(
        ir.DataType.BOOL,
        "And",
        emit.compare("GreaterOrEqual", at, number(-1.0)),
        emit.compare("LessOrEqual", at, span),
    )
    inside = emit.op("Min", emit.op("Max", at, number(0.0)), emit.op("Sub", span, number(1.0)))
    axis = 2 if column == 1 else 3
    pixels = emit.cast(emit.positions(call.x, axis), dtype)
    distance = emit.op("Abs", emit.op("Sub", emit.op("Unsqueeze", inside, emit.ints(2)), pixels))
    weight = emit.op("Max", emit.op("Sub", number(1.0), distance), number(0.0))  # (R, bins * samples, size)
    weight = emit.op("Mul", weight, emit.op("Unsqueeze", emit.cast(near, dtype), emit.ints(2)))
    apart = emit.op("Reshape", weight, shape_of(emit, -1, bins, samples, size))
    mean = emit.op("ReduceMean", apart, emit.ints(2), keepdims=0)
    return emit.op("Unsqueeze", mean, emit.ints(1))
