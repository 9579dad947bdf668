"""Turn slices of one value that lie side by side into one Split, whose gradient is one Concat.

Exporters take the query, key and value of attention out of one projection by three Slice or Gather nodes. The
gradient of each would be padded to full size and the three added up: five passes over memory instead of one.

Requires: shapes inferred as far as possible; constants as initializers.
Ensures: where at least two nodes take disjoint, constant parts of one floating-point value along one axis of known
size, they are outputs of one Split: ranges (Slice with step 1, Gather of one position) directly, and every s-th element
(Slices with step s from different starts, as in patch merging) after a Reshape that makes the s phases an axis. The
numbers of the forward graph, its value names and its outputs stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

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


def join_slices(graph: ir.Graph) -> None:
    """Rewrite the graph in place; see the module."""
    for value in _values(graph):
        if not is_float(value) or len(value.uses()) < 2:
            continue
        pieces = [piece for node in dict.fromkeys(user for user, _ in value.uses()) if (piece := _piece(node, value))]
        groups: dict[tuple[int, int], list[Piece]] = {}
        for piece in pieces:
            if piece.node.graph is graph:
                groups.setdefault((piece.axis, piece.step), []).append(piece)
        # One Split for a value: the largest group.
        for (axis, step), group in sorted(groups.items(), key=lambda item: -len(item[1])):
            if step == 1 and _disjoint(group):
                _split_ranges(graph, value, axis, group)
                break
            if step > 1 and len({piece.start for piece in group}) > 1 and (shape := _phases(value, axis, step)):
                _split_phases(graph, value, axis, step, shape, group)
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


def _split_ranges(graph: ir.Graph, value: ir.Value, axis: int, group: list[Piece]) -> None:
    bounds = sorted({0, group[0].size, *(piece.start for piece in group), *(piece.stop for piece in group)})
    lengths = [after - before for before, after in pairwise(bounds)]
    parts = _split(graph, group, value, axis, lengths)
    by_start = dict(zip(bounds, parts))
    for drops in (False, True):
        chosen = [piece for piece in group if piece.drops_axis is drops]
        _hand_over(graph, chosen, by_start, axis if drops else None)


def _phases(value: ir.Value, axis: int, step: int) -> list[int] | None:
    """The shape with the axis as (size / step, step), for Reshape; None where it cannot be written down."""
    sizes = dims(value) or ()
    size, behind = sizes[axis], sizes[axis + 1 :]
    unknown = sum(not isinstance(other, int) for other in behind)
    if not isinstance(size, int) or size % step or 0 in sizes or unknown > 1:
        return None
    return [*[0] * axis, size // step, step, *(other if isinstance(other, int) else -1 for other in behind)]


def _split_phases(graph: ir.Graph, value: ir.Value, axis: int, step: int, shape: list[int], group: list[Piece]) -> None:
    reshape = _node(graph, "Reshape", [value, _ints(graph, value, shape)], value)
    graph.insert_before(_first(graph, group), reshape)
    apart = reshape.outputs[0]
    sizes = list(dims(value) or ())
    apart.shape = ir.Shape([*sizes[:axis], shape[axis], step, *sizes[axis + 1 :]])
    parts = _split(graph, group, apart, axis + 1, [1] * step)
    _hand_over(graph, group, dict(enumerate(parts)), axis + 1)


def _split(graph: ir.Graph, group: list[Piece], value: ir.Value, axis: int, lengths: list[int]) -> tuple[ir.Value, ...]:
    """A Split in front of the first of the nodes that it stands for."""
    sizes = list(dims(value) or ())
    node = _node(graph, "Split", [value, _ints(graph, value, lengths)], value, len(lengths), {"axis": axis})
    for part, length in zip(node.outputs, lengths, strict=True):
        part.shape = ir.Shape([*sizes[:axis], length, *sizes[axis + 1 :]])
    graph.insert_before(_first(graph, group), node)
    return tuple(node.outputs)


def _hand_over(graph: ir.Graph, group: list[Piece], parts: dict[int, ir.Value], drop: int | None) -> None:
    """Let the parts, by their start, take the places of the outputs of the nodes, without the axis ``drop``."""
    taken: dict[int, ir.Value] = {}
    for piece in sorted(group, key=lambda piece: not piece.node.outputs[0].is_graph_output()):
        if piece.start in taken and not piece.node.outputs[0].is_graph_output():  # the same part once more
            ir.convenience.replace_all_uses_with(piece.node.outputs[0], taken[piece.start])
            graph.remove(piece.node, safe=True)
            continue
        part = parts[piece.start]
        # An Identity where no axis is dropped: the runtime removes it, and the value keeps its name.
        inputs = [part] if drop is None else [part, _ints(graph, part, [drop])]
        new = ir.node("Identity" if drop is None else "Squeeze", inputs, name=piece.node.name)
        ir.convenience.replace_nodes_and_values(graph, piece.node, [piece.node], [new], piece.node.outputs, new.outputs)
        taken[piece.start] = new.outputs[0]


def _node(
    graph: ir.Graph,
    op: str,
    inputs: list[ir.Value],
    like: ir.Value,
    count: int = 1,
    attributes: dict[str, int] | None = None,
) -> ir.Node:
    name = _free_name(graph, f"{like.name}/{op}")
    node = ir.node(op, inputs, attributes or {}, num_outputs=count, name=name)
    for index, value in enumerate(node.outputs):
        value.name = f"{name}_{index}"
        value.type = like.type
    return node


def _ints(graph: ir.Graph, like: ir.Value, numbers: list[int]) -> ir.Value:
    name = _free_name(graph, f"{like.name}/{'_'.join(map(str, numbers[:4]))}")
    value = ir.Value(name=name, const_value=ir.tensor(np.asarray(numbers, np.int64), name=name))
    value.shape, value.type = ir.Shape([len(numbers)]), ir.TensorType(ir.DataType.INT64)
    graph.register_initializer(value)
    return value


def _free_name(graph: ir.Graph, stem: str) -> str:
    taken = set(graph.initializers) | {node.name for node in graph} | {value.name for value in graph.inputs}
    taken |= {value.name for node in graph for value in node.outputs}
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name


def _first(graph: ir.Graph, group: list[Piece]) -> ir.Node:
    wanted = {piece.node for piece in group}
    return next(node for node in graph if node in wanted)
