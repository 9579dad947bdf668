"""Sums of scattered slices, put off until the loop has ended.

A loop body that reads x[k] of a tensor x from outside has, as the cotangent of x, zeros with a slice added at k. Summed
iteration by iteration that costs the size of x in each of them. The slices can be stacked up instead, and all be added
in one go behind the loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import dims

__all__ = ["Scattered", "add_scattered", "split_off"]


@dataclass(frozen=True)
class Scattered:
    """Slices that one iteration adds to a tensor (ScatterElements), or all iterations, stacked up."""

    indices: ir.Value
    updates: ir.Value
    axis: int


def split_off(emit: Emitter, value: ir.Value, whole: ir.Value) -> tuple[list[Scattered], ir.Value | None]:
    """``value``, a cotangent of ``whole``, as scattered slices and what is left, None where nothing is."""
    scattered: list[Scattered] = []
    rest: list[ir.Value] = []
    terms = [value]
    while terms:
        term = terms.pop()
        producer = term.producer()
        sized = dims(whole) is not None and dims(term) == dims(whole)
        if producer is None or producer.graph is not emit.graph or not sized:
            rest.append(term)
        elif producer.op_type == "Add" and all(v is not None and dims(v) == dims(whole) for v in producer.inputs):
            terms += [v for v in producer.inputs if v is not None]
        elif (found := _scattered(producer, len(dims(whole) or ()))) is not None:
            scattered.append(found)
        else:
            rest.append(term)
    if not scattered:
        return [], value
    total = rest[0] if rest else None
    for term in rest[1:]:
        total = emit.op("Add", total, term, like=whole)
    return scattered, total


def _scattered(node: ir.Node, rank: int) -> Scattered | None:
    reduction = node.attributes.get("reduction")
    if node.op_type != "ScatterElements" or reduction is None or reduction.as_string() != "add":
        return None
    data, indices, updates = node.inputs
    zeros = data.producer() if data is not None else None
    if indices is None or updates is None or zeros is None or zeros.op_type != "ConstantOfShape":
        return None
    content = zeros.attributes.get("value")
    if content is not None and content.as_tensor().numpy().any():
        return None
    if not _steady(updates):
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    return Scattered(indices, updates, axis % rank)


def _steady(value: ir.Value) -> bool:
    """Is the shape certainly the same in every iteration? Only then can slices be stacked up."""
    sizes, producer = dims(value), value.producer()
    if sizes is not None:
        return None not in sizes
    unsqueezed = producer is not None and producer.op_type == "Unsqueeze" and producer.inputs[0] is not None
    return unsqueezed and _steady(producer.inputs[0])  # type: ignore[union-attr, arg-type]


def add_scattered(emit: Emitter, total: ir.Value, stacks: list[Scattered]) -> ir.Value:
    """``total`` plus the slices of all iterations, which are stacked up along a new first axis."""
    rank = len(dims(total) or ())
    for stack in stacks:
        order = [*range(1, stack.axis + 1), 0, *range(stack.axis + 1, rank + 1)]
        pieces = []
        for value in (stack.indices, stack.updates):
            # Bring the iterations beside the axis that slices are added along, and make the two one.
            moved = emit.op("Transpose", value, perm=order) if stack.axis else value
            shape = emit.typed(ir.DataType.INT64, "Shape", value)
            sizes = [emit.op("Slice", shape, emit.ints(1), emit.ints(stack.axis + 1))] if stack.axis else []
            sizes.append(emit.ints(-1))
            if stack.axis + 1 < rank:
                sizes.append(emit.op("Slice", shape, emit.ints(stack.axis + 2), emit.ints(rank + 1)))
            target = emit.op("Concat", *sizes, axis=0) if len(sizes) > 1 else sizes[0]
            pieces.append(emit.op("Reshape", moved, target))
        total = emit.op("ScatterElements", total, *pieces, like=total, axis=stack.axis, reduction="add")
    return total
