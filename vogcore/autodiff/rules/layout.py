"""Operators that rearrange blocks, crop, mask or add up along an axis. Formulas from the ONNX specification."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import dims


def extent(emit: Emitter, value: ir.Value, axis: int) -> int | ir.Value:
    """Size of ``value`` along ``axis``: a number where it is known, else a vector (1,) computed at run time."""
    sizes = dims(value)
    if sizes is not None and isinstance(size := sizes[axis], int):
        return size
    return emit.dim(value, axis)


def shape_of(emit: Emitter, *sizes: int | ir.Value) -> ir.Value:
    """A shape vector from numbers and vectors."""
    if all(isinstance(size, int) for size in sizes):
        return emit.ints(*(size for size in sizes if isinstance(size, int)))
    return emit.op("Concat", *(emit.ints(size) if isinstance(size, int) else size for size in sizes), axis=0)


@rule("DepthToSpace")
def depth_to_space(call: Call) -> Cotangents:
    """y = x with blocks of channels laid out in space: dx = dy with the blocks gathered again."""
    emit, block = call.emit, call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "DCR":
        return [emit.op("SpaceToDepth", call.dy, like=call.x, blocksize=block)]
    n, height, width = (extent(emit, call.x, axis) for axis in (0, 2, 3))
    apart = emit.op("Reshape", call.dy, shape_of(emit, n, -1, height, block, width, block))
    return [emit.reshape_like(emit.op("Transpose", apart, perm=[0, 1, 3, 5, 2, 4]), call.x)]


@rule("SpaceToDepth")
def space_to_depth(call: Call) -> Cotangents:
    """y = x with blocks of space laid out in channels: dx = dy with the blocks put back."""
    if call.attribute("mode", "DCR") != "DCR":
        raise call.unsupported("only the order depth, column, row of its channels is covered")
    return [call.emit.op("DepthToSpace", call.dy, like=call.x, blocksize=call.attribute("blocksize"), mode="DCR")]


@rule("Trilu")
def trilu(call: Call) -> Cotangents:
    """y = the upper or lower triangle of x: dx = the same triangle of dy."""
    return [call.emit.op("Trilu", call.dy, call.optional(1), like=call.x, upper=call.attribute("upper", 1))]


@rule("CumSum")
def cum_sum(call: Call) -> Cotangents:
    """y_i = x_1 + ... + x_i along an axis: dx is the same sum of dy, in the opposite direction."""
    emit, dtype = call.emit, call.x.dtype or ir.DataType.FLOAT
    wide = ir.DataType.FLOAT if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else dtype
    attributes = {"exclusive": call.attribute("exclusive", 0), "reverse": 1 - call.attribute("reverse", 0)}
    return [emit.cast(emit.op("CumSum", emit.cast(call.dy, wide), call.input(1), **attributes), dtype)]


@rule("CenterCropPad")
def center_crop_pad(call: Call) -> Cotangents:
    """y = x cropped or padded around its centre: dx = dy padded or cropped by the opposite amounts."""
    emit, x, y = call.emit, call.x, call.y
    n = call.rank_of(x)
    axes = [axis % n for axis in call.attribute("axes", range(n))]
    # The amounts of all axes, as in shape.pad_axis.
    begins: list[int | ir.Value] = [0] * n
    ends: list[int | ir.Value] = [0] * n
    wanted = call.known(1)
    for index, axis in enumerate(axes):
        size = extent(emit, x, axis)
        if isinstance(size, int) and wanted is not None:
            missing = size - int(wanted[index])  # above zero: it was cropped, so the cotangent is padded
            # Halves are rounded towards zero, for crops and pads alike.
            begins[axis] = int(missing / 2)
            ends[axis] = missing - int(missing / 2)
            continue
        there = emit.op("Sub", emit.dim(x, axis), emit.op("Slice", emit.shape(y), emit.ints(axis), emit.ints(axis + 1)))
        half = emit.op("Div", there, emit.ints(2))  # integer division in ONNX is towards zero, too
        begins[axis], ends[axis] = half, emit.op("Sub", there, half)
    return [emit.op("Pad", call.dy, shape_of(emit, *begins, *ends), emit.scalar(0.0, x), like=x)]


@rule("Col2Im")
def col_to_im(call: Call) -> Cotangents:
    """y = columns added up at the places of sliding blocks: dx = dy cut into such blocks.

    The cut is a convolution of every channel with unit kernels, one for each position of the block.
    """
    emit, image, block = call.emit, call.known(1), call.known(2)
    if image is None or block is None:
        raise call.unsupported("its image_shape and block_shape are computed at run time")
    count, n = math.prod(block.tolist()), block.size
    kernel = emit.constant(np.eye(count).reshape(count, 1, *block.tolist()), call.x.dtype)
    single = emit.op("Reshape", call.dy, emit.ints(-1, 1, *image.tolist()))
    blocks = emit.op(
        "Conv",
        single,
        kernel,
        strides=call.attribute("strides", [1] * n),
        dilations=call.attribute("dilations", [1] * n),
        pads=call.attribute("pads", [0] * 2 * n),
    )
    return [emit.reshape_like(blocks, call.x)]
