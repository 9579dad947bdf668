"""Operators that move numbers without changing them: reshaping, slicing, gathering, joining, padding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import constant, dims, static_dims

END = np.iinfo(np.int64).max


def scatter_add(emit: Emitter, shape: ir.Value, indices: ir.Value, values: ir.Value, axis: int) -> ir.Value:
    """Zeros of ``shape`` with ``values`` added at ``indices`` along ``axis``; ONNX's ScatterElements.

    Half-precision values are added up in float32: the CPU provider cannot add them otherwise, and sums lose less.
    """
    dtype = values.dtype or ir.DataType.FLOAT
    wide = ir.DataType.FLOAT if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else dtype
    zeros = emit.filled(shape, 0.0, wide)
    result = emit.op("ScatterElements", zeros, indices, emit.cast(values, wide), axis=axis, reduction="add")
    return emit.cast(result, dtype)


def scatter_along_axis(call: Call, like: ir.Value, axis: int, positions: ir.Value, value: ir.Value) -> ir.Value:
    """Zeros of the shape of ``like`` except along ``axis``, where slice j of ``value`` is added at ``positions[j]``.

    The adjoint of picking ``positions`` along one axis. ``like`` has to agree with ``value`` on the other axes.
    """
    emit = call.emit
    n = call.rank_of(like)
    spread = emit.op("Reshape", positions, emit.ints(*(-1 if a == axis else 1 for a in range(n))))
    shape = emit.shape(value)
    indices = emit.typed(ir.DataType.INT64, "Expand", spread, shape)
    pieces = [emit.op("Slice", shape, emit.ints(0), emit.ints(axis))] if axis else []
    pieces.append(emit.dim(like, axis))
    if axis < n - 1:
        pieces.append(emit.op("Slice", shape, emit.ints(axis + 1), emit.ints(END)))
    whole = emit.op("Concat", *pieces, axis=0) if len(pieces) > 1 else pieces[0]
    return scatter_add(emit, whole, indices, value, axis)


def pad_axis(call: Call, value: ir.Value, axis: int, before: ir.Value, after: ir.Value) -> ir.Value:
    """``value``, of the rank of x, with zeros in front of and behind it along ``axis``."""
    emit, n = call.emit, call.rank_of(call.x)
    # The amounts of all axes, for ONNX Runtime 1.31 moves a Transpose wrongly past a Pad that names its axes.
    first, second = constant(before), constant(after)
    if first is not None and second is not None:
        pads = emit.ints(*[0] * axis, int(first[0]), *[0] * (n - 1), int(second[0]), *[0] * (n - 1 - axis))
    else:
        zeros = [emit.ints(*[0] * count) for count in (axis, n - 1, n - 1 - axis)]
        pads = emit.op("Concat", zeros[0], before, zeros[1], after, zeros[2], axis=0)
    return emit.op("Pad", value, pads, emit.scalar(0.0, value))


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(call: Call) -> Cotangents:
    """dx = dy in the shape of x."""
    return [call.emit.reshape_like(call.dy, call.x)]


@rule("Transpose")
def transpose(call: Call) -> Cotangents:
    """dx = dy with the inverse permutation."""
    permutation = call.attribute("perm")
    if permutation is None:
        return [call.emit.op("Transpose", call.dy)]
    return [call.emit.op("Transpose", call.dy, perm=[int(a) for a in np.argsort(permutation)])]


@rule("Expand", broadcasts=True)
def expand(call: Call) -> Cotangents:
    """dx = dy summed over the axes that were spread."""
    return [call.dy]


@rule("Concat")
def concat(call: Call) -> Cotangents:
    """Every input gets its part of dy."""
    emit, inputs = call.emit, [call.input(i) for i in range(len(call.node.inputs))]
    if len(inputs) == 1:
        return [call.dy]
    axis = call.attribute("axis")
    sizes = [static_dims(value, [axis]) for value in inputs]
    if all(size is not None for size in sizes):
        lengths = emit.ints(*(size[0] for size in sizes if size is not None))
    else:
        lengths = emit.op("Concat", *(emit.dim(value, axis) for value in inputs), axis=0)
    parts = emit.multi("Split", [call.dy, lengths], len(inputs), {"axis": axis})
    return [part if want else None for part, want in zip(parts, call.wanted)]


@rule("Split", all_outputs=True)
def split(call: Call) -> Cotangents:
    """dx = the cotangents of the parts, joined; zeros for a part that is not used."""
    emit = call.emit
    parts = [
        emit.zeros_like(value) if cotangent is None else cotangent
        for value, cotangent in zip(call.node.outputs, call.cotangents, strict=True)
    ]
    return [emit.op("Concat", *parts, axis=call.attribute("axis", 0))]


@rule("Slice")
def slice_(call: Call) -> Cotangents:
    """dx = dy at the places it came from, zeros elsewhere."""
    emit, x, dy = call.emit, call.x, call.dy
    starts, ends = call.known(1), call.known(2)
    count = starts.size if starts is not None else _count(call)
    axes = call.known(3) if call.optional(3) is not None else np.arange(count)
    if axes is None:
        raise call.unsupported("its axes are computed at run time")
    steps = call.known(4) if call.optional(4) is not None else np.ones(count, np.int64)
    n = call.rank_of(x)
    for i, raw in enumerate(axes.tolist()):
        axis = raw % n
        size = static_dims(x, [axis])
        if starts is not None and ends is not None and steps is not None and int(steps[i]) == 1 and size is not None:
            begin, end, _ = slice(int(starts[i]), int(ends[i]), 1).indices(size[0])
            dy = pad_axis(call, dy, axis, emit.ints(begin), emit.ints(size[0] - max(end, begin)))
            continue
        # The same slice of the positions tells where every element came from, whatever the sizes and steps.
        here = [call.input(1), call.input(2)]
        here = [emit.op("Slice", value, emit.ints(i), emit.ints(i + 1)) for value in here]
        step = call.optional(4)
        here += [emit.ints(0)] + ([emit.op("Slice", step, emit.ints(i), emit.ints(i + 1))] if step is not None else [])
        positions = emit.op("Slice", emit.positions(x, axis), *here)
        dy = scatter_along_axis(call, x, axis, positions, dy)
    return [dy]


def _count(call: Call) -> int:
    sizes = dims(call.input(1))
    if sizes is None or not isinstance(sizes[0], int):
        raise call.unsupported("the number of its axes is not known")
    return sizes[0]


@rule("Gather")
def gather(call: Call) -> Cotangents:
    """dx = dy added up at the rows it was taken from."""
    emit, x, indices = call.emit, call.x, call.input(1)
    n = call.rank_of(x)
    axis = call.attribute("axis", 0) % n
    index_rank = call.rank_of(indices)
    known, size = call.known(1), static_dims(x, [axis])
    dy = call.dy
    if known is not None and known.size == 1 and size is not None:
        position = int(known.reshape(-1)[0]) % size[0]
        if index_rank != 1:
            dy = _one_axis(call, dy, axis, index_rank)
        return [pad_axis(call, dy, axis, emit.ints(position), emit.ints(size[0] - position - 1))]
    if index_rank != 1:
        dy = _one_axis(call, dy, axis, index_rank)
    positions = emit.op("Reshape", emit.cast(indices, ir.DataType.INT64), emit.ints(-1))
    return [scatter_along_axis(call, x, axis, positions, dy)]


def _one_axis(call: Call, dy: ir.Value, axis: int, index_rank: int) -> ir.Value:
    """The axes of dy that stand for the indices, as one axis."""
    emit = call.emit
    if index_rank == 0:
        return emit.op("Unsqueeze", dy, emit.ints(axis))
    shape = emit.shape(dy)
    head = [emit.op("Slice", shape, emit.ints(0), emit.ints(axis))] if axis else []
    tail = emit.op("Slice", shape, emit.ints(axis + index_rank), emit.ints(END))
    return emit.op("Reshape", dy, emit.op("Concat", *head, emit.ints(-1), tail, axis=0))


@rule("Pad")
def pad(call: Call) -> Cotangents:
    """dx = dy without the padding; what was padded by copies (edge, reflect, wrap) flows back to its origin."""
    emit, x, dy = call.emit, call.x, call.dy
    mode = call.attribute("mode", "constant")
    n = call.rank_of(x)
    axes = call.known(3) if call.optional(3) is not None else np.arange(n)
    if axes is None:
        raise call.unsupported("its axes are computed at run time")
    count = len(axes)
    amounts = call.known(1)
    for i, raw in enumerate(axes.tolist()):
        axis = raw % n
        if amounts is not None and not amounts[i] and not amounts[count + i]:
            continue
        pads = call.input(1)
        before = emit.op("Slice", pads, emit.ints(i), emit.ints(i + 1))
        after = emit.op("Slice", pads, emit.ints(count + i), emit.ints(count + i + 1))
        if amounts is not None:
            before, after = emit.ints(int(amounts[i])), emit.ints(int(amounts[count + i]))
        if mode == "constant" and amounts is not None and min(amounts[i], amounts[count + i]) >= 0:
            stop = emit.op("Add", before, emit.dim(x, axis))
            dy = emit.op("Slice", dy, before, stop, emit.ints(axis))
            continue
        if mode == "constant":
            # Negative padding cuts; padding by the opposite amounts restores the shape, with zeros where it cut.
            dy = pad_axis(call, dy, axis, emit.op("Neg", before), emit.op("Neg", after))
            continue
        pair = emit.op("Concat", before, after, axis=0)
        positions = emit.multi("Pad", [emit.positions(x, axis), pair], 1, {"mode": mode})[0]
        dy = scatter_along_axis(call, x, axis, positions, dy)
    return [dy]


@rule("Tile")
def tile(call: Call) -> Cotangents:
    """dx = dy summed over the copies."""
    emit, n = call.emit, call.rank_of(call.x)
    repeats = call.input(1)
    pieces = []
    for axis in range(n):
        pieces += [emit.op("Slice", repeats, emit.ints(axis), emit.ints(axis + 1)), emit.dim(call.x, axis)]
    split_up = emit.op("Reshape", call.dy, emit.op("Concat", *pieces, axis=0))
    return [emit.op("ReduceSum", split_up, emit.ints(*range(0, 2 * n, 2)), keepdims=0)]
