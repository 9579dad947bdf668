"""Operators that pick and place single numbers by computed positions. Formulas from the ONNX operator specification."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.shape import scatter_add, scatter_along_axis
from vogcore.graph.emit import Emitter

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@rule("GatherElements")
def gather_elements(call: Call) -> Cotangents:
    """y = x at ``indices`` along one axis: dx = dy added up at the places it was taken from."""
    axis = call.attribute("axis", 0) % call.rank_of(call.x)
    return [scatter_add(call.emit, call.emit.shape(call.x), call.input(1), call.dy, axis)]


@rule("GatherND")
def gather_nd(call: Call) -> Cotangents:
    """y = x at index tuples: dx = dy added up at the places it was taken from (ScatterND)."""
    emit, x, indices = call.emit, call.x, call.input(1)
    batch = call.attribute("batch_dims", 0)
    if batch:
        indices = _with_batch_positions(call, indices, batch)
    return [scatter_nd_add(emit, emit.shape(x), indices, call.dy)]


def scatter_nd_add(emit: Emitter, shape: ir.Value, indices: ir.Value, values: ir.Value) -> ir.Value:
    """Zeros of ``shape`` with ``values`` added at index tuples; half-precision values are added up in float32."""
    dtype = values.dtype or ir.DataType.FLOAT
    wide = ir.DataType.FLOAT if dtype in _HALF else dtype
    zeros = emit.filled(shape, 0.0, wide)
    return emit.cast(emit.op("ScatterND", zeros, indices, emit.cast(values, wide), reduction="add"), dtype)


def _with_batch_positions(call: Call, indices: ir.Value, batch: int) -> ir.Value:
    """Index tuples with the positions along the batch axes in front, which makes them tuples into all of x."""
    emit, n = call.emit, call.rank_of(indices)
    shape = emit.shape(indices)
    one = emit.op("Concat", emit.op("Slice", shape, emit.ints(0), emit.ints(n - 1)), emit.ints(1), axis=0)
    columns = []
    for axis in range(batch):
        along = emit.op(
            "Reshape", emit.positions(indices, axis), emit.ints(*(-1 if a == axis else 1 for a in range(n)))
        )
        columns.append(emit.op("Expand", along, one))
    return emit.op("Concat", *columns, indices, axis=n - 1)


@rule("ScatterElements")
def scatter_elements(call: Call) -> Cotangents:
    """y = data with ``updates`` placed along one axis: ddata = dy, zero where replaced; dupdates = dy at the places.

    Reductions: add passes dy to both; max and min share it among those that attain the result (torch.scatter_reduce);
    mul multiplies dy by the product of the others.
    """
    emit, indices = call.emit, call.input(1)
    axis = call.attribute("axis", 0) % call.rank_of(call.x)

    def pick(value: ir.Value) -> ir.Value:
        return emit.op("GatherElements", value, indices, axis=axis)

    def place(base: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
        return emit.op("ScatterElements", base, indices, updates, axis=axis, reduction=reduction, like=base)

    return _scatter(call, pick, place)


@rule("ScatterND")
def scatter_nd(call: Call) -> Cotangents:
    """y = data with ``updates`` placed at index tuples: the gradients are those of ScatterElements."""
    emit, indices = call.emit, call.input(1)

    def pick(value: ir.Value) -> ir.Value:
        return emit.op("GatherND", value, indices)

    def place(base: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
        return emit.op("ScatterND", base, indices, updates, reduction=reduction, like=base)

    return _scatter(call, pick, place)


Pick = Callable[[ir.Value], ir.Value]
Place = Callable[[ir.Value, ir.Value, str], ir.Value]


def _scatter(call: Call, pick: Pick, place: Place) -> Cotangents:
    """Gradients of a scattering operator, given how it reads and writes at its places."""
    emit, data, updates, dy = call.emit, call.x, call.input(2), call.dy
    dtype = data.dtype or ir.DataType.FLOAT
    reduction = call.attribute("reduction", "none")
    if reduction in ("none", "add"):
        ddata = dy
        if reduction == "none" and call.wanted[0]:
            ddata = place(dy, emit.zeros_like(updates), "none")
        return [ddata if call.wanted[0] else None, None, pick(dy) if call.wanted[2] else None]
    if dtype in _HALF:
        raise call.unsupported(f"reduction={reduction!r} of half-precision numbers is not covered; convert it to float")
    if reduction in ("max", "min"):
        at_data = emit.cast(emit.compare("Equal", data, call.y), dtype)
        at_updates = emit.cast(emit.compare("Equal", updates, pick(call.y)), dtype)
        share = emit.op("Div", dy, place(at_data, at_updates, "add"))
        # Where nothing attains the result (it cannot be: the result is one of them), the share would not be finite.
        return [emit.op("Mul", share, at_data), None, emit.op("Mul", pick(share), at_updates)]
    if reduction != "mul":
        raise call.unsupported(f"reduction={reduction!r} is not covered; use add, mul, max or min")
    zero, one = emit.scalar(0.0, data), emit.scalar(1.0, data)
    data_is_zero, update_is_zero = emit.compare("Equal", data, zero), emit.compare("Equal", updates, zero)
    filled = emit.select(data_is_zero, one, data, like=data)
    filled_updates = emit.select(update_is_zero, one, updates, like=updates)
    rest = place(filled, filled_updates, "mul")  # product of the factors that are not zero
    zeros = place(emit.cast(data_is_zero, dtype), emit.cast(update_is_zero, dtype), "add")

    def slope(is_zero: ir.Value, factor: ir.Value, rest: ir.Value, zeros: ir.Value) -> ir.Value:
        # The product of the others is zero unless every zero among the factors is this one.
        others = emit.op("Sub", zeros, emit.cast(is_zero, dtype), like=factor)
        return emit.masked(emit.compare("Equal", others, zero), emit.op("Div", rest, factor, like=factor))

    return [
        emit.op("Mul", dy, slope(data_is_zero, filled, rest, zeros)) if call.wanted[0] else None,
        None,
        emit.op("Mul", pick(dy), slope(update_is_zero, filled_updates, pick(rest), pick(zeros)))
        if call.wanted[2]
        else None,
    ]


@rule("TopK")
def top_k(call: Call) -> Cotangents:
    """y = the k largest (or smallest) along an axis: dx = dy at the positions they were taken from."""
    emit, indices = call.emit, call.node.outputs[1]
    if not indices.name:  # the forward model left it out
        indices.name = emit.name("Indices")
        indices.type = ir.TensorType(ir.DataType.INT64)
    axis = call.attribute("axis", -1) % call.rank_of(call.x)
    return [scatter_add(emit, emit.shape(call.x), indices, call.dy, axis)]


@rule("Compress")
def compress(call: Call) -> Cotangents:
    """y = the slices of x where the condition holds: dx = dy there, zeros elsewhere."""
    emit, x = call.emit, call.x
    positions = emit.op("Reshape", emit.typed(ir.DataType.INT64, "NonZero", call.input(1)), emit.ints(-1))
    axis = call.attribute("axis")
    if axis is not None:
        return [scatter_along_axis(call, x, axis % call.rank_of(x), positions, call.dy)]
    total = emit.op("Reshape", emit.size(x), emit.ints(1))
    return [emit.reshape_like(scatter_add(emit, total, positions, call.dy, 0), x)]


@rule("ReverseSequence")
def reverse_sequence(call: Call) -> Cotangents:
    """y = x with the first ``sequence_lens`` steps reversed, which undoes itself: dx = dy reversed likewise."""
    axes = {"batch_axis": call.attribute("batch_axis", 1), "time_axis": call.attribute("time_axis", 0)}
    return [call.emit.op("ReverseSequence", call.dy, call.input(1), like=call.x, **axes), None]


@rule("OneHot")
def one_hot(call: Call) -> Cotangents:
    """y = on at the index and off elsewhere, values = (off, on): d on = sum of dy at the indices, d off = the rest.

    The indices have no gradient.
    """
    emit, indices, dy = call.emit, call.input(0), call.dy
    n = call.rank_of(indices)
    axis = call.attribute("axis", -1) % (n + 1)
    results: list[ir.Value | None] = [None, None, None]
    if call.wanted[0]:  # floating-point indices: y is piecewise constant in them
        results[0] = emit.zeros_like(indices)
    if call.wanted[2]:
        row = emit.op("Unsqueeze", emit.cast(indices, ir.DataType.INT64), emit.ints(axis))
        depth = emit.dim(call.y, axis)
        stop = emit.as_scalar(depth)
        known = emit.typed(ir.DataType.INT64, "Range", emit.constant(0), stop, emit.constant(1))
        classes = emit.op("Reshape", known, emit.ints(*(-1 if a == axis else 1 for a in range(n + 1))))
        hit = emit.typed(
            ir.DataType.BOOL,
            "Or",
            emit.compare("Equal", row, classes),
            emit.compare("Equal", emit.op("Add", row, depth), classes),  # indices below zero count from the end
        )
        everything = emit.ints(*range(n + 1))
        on = emit.op("ReduceSum", emit.masked(hit, dy), everything, keepdims=0)
        off = emit.op("ReduceSum", emit.select(hit, emit.scalar(0.0, dy), dy, like=dy), everything, keepdims=0)
        pair = [emit.op("Reshape", part, emit.ints(1)) for part in (off, on)]
        results[2] = emit.op("Concat", *pair, axis=0)
    return results


def eye(emit: Emitter, value: ir.Value, axis: int, dtype: ir.DataType) -> ir.Value:
    """The unit matrix whose size is that of ``value`` along ``axis``; runtimes fold it where the size is known."""
    along = emit.positions(value, axis)
    rows = emit.op("Reshape", along, emit.ints(-1, 1))
    return emit.cast(emit.compare("Equal", rows, along), dtype)
