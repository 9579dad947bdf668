"""Turn slices of one value that lie side by side into one Split, whose gradient is one Concat.

Exporters take the query, key and value of attention out of one projection by three Slice or Gather nodes. The
gradient of each would be padded to full size and the three added up: five passes over memory instead of one.

Requires: a prepared graph, shapes inferred.
Ensures: where at least two nodes take disjoint, constant parts of one floating-point value along one axis of known
size, they are outputs of one Split: ranges (Slice with step 1, Gather of one position) directly, and every s-th element
(Slices with step s from different starts, as in patch merging) after a Reshape that makes the s phases an axis. The
numbers of the forward graph, its outputs and what has to be kept stay as they were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise

import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import constant, dims, is_float

__all__ = ["join_slices"]


@dataclass(frozen=True)
class Piece:
    """A node that takes ``range(start, stop, step)`` along one axis of known size."""

    node: ir.Node
    axis: int
    size: int
    start: int
    stop: int
    step: int
    drops_axis: bool
    """The axis is gone from the node's output (a Gather of one position given as a scalar)."""


def join_slices(emit: Emitter, keep: Collection[ir.Value] = ()) -> None:
    """Rewrite the graph of ``emit`` in place; nodes that make a value of ``keep`` or an output of it stay."""
    graph = emit.graph
    for value in _values(graph):
        if not is_float(value) or len(value.uses()) < 2:
            continue
        groups: dict[tuple[int, int], list[Piece]] = {}
        for node in dict.fromkeys(user for user, _ in value.uses()):
            part = node.outputs[0] if node.graph is graph else None
            if part is None or part in keep or part.is_graph_output():
                continue
            piece = _piece(node, value)
            if piece is not None:
                groups.setdefault((piece.axis, piece.step), []).append(piece)
        # One Split for a value: the largest group.
        for (axis, step), group in sorted(groups.items(), key=lambda item: -len(item[1])):
            places = {piece.node for piece in group}
            emit.scope = group[0].node.name or "vogcore"
            shape = _phases(value, axis, step) if step > 1 and len({piece.start for piece in group}) > 1 else None
            if shape is None and not (step == 1 and _disjoint(group)):
                continue
            with emit.before(next(node for node in graph if node in places)):
                if shape is None:
                    _split_ranges(emit, value, axis, group)
                else:
                    _split_phases(emit, value, axis, step, shape, group)
            graph.remove(places, safe=True)
            break


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """All values, those too that appear on the way: the phases along a second axis are taken from those of a first."""
    yield from list(graph.inputs)
    for node in graph:
        yield from node.outputs


def _piece(node: ir.Node, value: ir.Value) -> Piece | None:
    """The part of ``value`` that ``node`` takes, where it is one along one axis and known."""
    sizes = dims(value)
    if sizes is None or node.domain not in ("", "ai.onnx") or node.inputs[0] is not value:
        return None
    if sum(given is value for given in node.inputs) > 1:
        return None
    if node.op_type == "Gather":
        attribute = node.attributes.get("axis")
        axis = (attribute.as_int() if attribute is not None else 0) % len(sizes)
        size, indices = sizes[axis], constant(node.inputs[1])
        if not isinstance(size, int) or indices is None or indices.size != 1 or indices.ndim > 1:
            return None
        position = int(indices.reshape(-1)[0]) % size
        return Piece(node, axis, size, position, position + 1, 1, indices.ndim == 0)
    if node.op_type != "Slice":
        return None
    given = [constant(entry) for entry in node.inputs[1:]]
    if any(entry is None and node.inputs[i + 1] is not None for i, entry in enumerate(given)) or len(given) < 2:
        return None
    starts, ends = given[0], given[1]
    if starts is None or ends is None or starts.size != 1:
        return None
    axes = given[2] if len(given) > 2 else None
    steps = given[3] if len(given) > 3 else None
    axis = (int(axes[0]) if axes is not None else 0) % len(sizes)
    step, size = int(steps[0]) if steps is not None else 1, sizes[axis]
    if step < 1 or not isinstance(size, int):
        return None
    start, stop, _ = slice(int(starts[0]), int(ends[0]), step).indices(size)
    if step == 1:
        return Piece(node, axis, size, start, stop, 1, False) if 0 < stop - start < size else None
    # A phase: every step-th element from a start below the step, up to the end.
    return Piece(node, axis, size, start, stop, step, False) if start < step and stop > size - step + start else None


def _disjoint(group: list[Piece]) -> bool:
    """At least two different ranges, none of which overlaps with another."""
    ranges = sorted({(piece.start, piece.stop) for piece in group})
    return len(ranges) > 1 and all(before[1] <= after[0] for before, after in pairwise(ranges))


def _split_ranges(emit: Emitter, value: ir.Value, axis: int, group: list[Piece]) -> None:
    bounds = sorted({0, group[0].size, *(piece.start for piece in group), *(piece.stop for piece in group)})
    parts = _split(emit, value, axis, [after - before for before, after in pairwise(bounds)])
    by_start = dict(zip(bounds, parts))
    for drops in (False, True):
        chosen = [piece for piece in group if piece.drops_axis is drops]
        _hand_over(emit, chosen, by_start, axis if drops else None)


def _phases(value: ir.Value, axis: int, step: int) -> list[int] | None:
    """The shape with the axis as (size / step, step), for Reshape; None where it cannot be written down."""
    sizes = dims(value) or ()
    size, behind = sizes[axis], sizes[axis + 1 :]
    unknown = sum(not isinstance(other, int) for other in behind)
    if not isinstance(size, int) or size % step or 0 in sizes or unknown > 1:
        return None
    return [*[0] * axis, size // step, step, *(other if isinstance(other, int) else -1 for other in behind)]


def _split_phases(emit: Emitter, value: ir.Value, axis: int, step: int, shape: list[int], group: list[Piece]) -> None:
    sizes = list(dims(value) or ())
    apart = emit.op("Reshape", value, emit.ints(*shape))
    apart.shape = ir.Shape([*sizes[:axis], shape[axis], step, *sizes[axis + 1 :]])
    parts = _split(emit, apart, axis + 1, [1] * step)
    _hand_over(emit, group, dict(enumerate(parts)), axis + 1)


def _split(emit: Emitter, value: ir.Value, axis: int, lengths: list[int]) -> tuple[ir.Value, ...]:
    sizes = list(dims(value) or ())
    parts = emit.multi("Split", [value, emit.ints(*lengths)], len(lengths), {"axis": axis})
    for part, length in zip(parts, lengths, strict=True):
        part.shape, part.type = ir.Shape([*sizes[:axis], length, *sizes[axis + 1 :]]), value.type
    return parts


def _hand_over(emit: Emitter, group: list[Piece], parts: dict[int, ir.Value], drop: int | None) -> None:
    """Let the parts, by their start, take the places of the outputs of the nodes, without the axis ``drop``."""
    ready: dict[int, ir.Value] = {}
    for piece in group:
        part, old = parts[piece.start], piece.node.outputs[0]
        if piece.start not in ready:
            ready[piece.start] = part if drop is None else emit.op("Squeeze", part, emit.ints(drop), like=old)
        ir.convenience.replace_all_uses_with(old, ready[piece.start])
