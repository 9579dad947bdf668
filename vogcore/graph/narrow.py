"""Compute only what is read: a selection moves up through the operators that work position by position.

A vision transformer classifies by its class token, so behind the last attention only one position of 65 (or 197) is
read, and yet the last MLP and projection run on all of them, forward and backward. The same holds for text classifiers
that read the first token.

Requires: a prepared graph, shapes inferred.
Ensures: the outputs and their gradients are the same to rounding. Where all uses of a value read only some fixed
positions along one axis, the value holds just these positions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import bodies, constant, dims, rank

__all__ = ["narrow"]


class Demand(NamedTuple):
    """The positions along one axis that are read of a value."""

    axis: int
    positions: tuple[int, ...]


class _Selection(NamedTuple):
    """What a Gather or Slice picks, in its order; ``scalar`` where the axis is dropped."""

    axis: int
    order: tuple[int, ...]
    scalar: bool


_Axes: TypeAlias = "list[int | None]"
"""For every input of a node the axis along which it can be narrowed too, None for one that is read whole."""

_UNARY = {
    "Abs", "Cast", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish",
    "Tanh",
}  # fmt: skip
_BROADCASTING = {"Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "Sub", "Sum", "Where"}


def narrow(emit: Emitter, keep: Collection[ir.Value] = ()) -> None:
    """Move selections of fixed positions (Gather, Slice) up, in place.

    Args:
        emit: emitter on the graph.
        keep: values that must stay whole.
    """
    nodes = list(emit.graph)
    selections = {node: found for node in nodes if (found := _selection(node)) is not None}
    demands, plans = _demands(emit.graph, selections, keep)
    selected: dict[tuple[ir.Value, Demand], ir.Value] = {}
    for node in nodes:
        emit.scope = node.name or "vogcore"
        source = node.inputs[0] if node.inputs else None
        demand = demands.get(node.outputs[0]) if node.outputs else None
        if node in selections:
            if source in demands:
                assert source is not None
                _reselect(emit, node, selections[node], demands[source])
            continue
        if demand is None:
            continue
        for index, axis in enumerate(plans[node]):
            value = node.inputs[index]
            if axis is None or value is None:
                continue
            wanted = Demand(axis, demand.positions)
            held = demands.get(value)
            if held != wanted:
                if (value, wanted) not in selected:
                    places = [p if held is None else held.positions.index(p) for p in wanted.positions]
                    with emit.before(node):
                        selected[value, wanted] = emit.op("Gather", value, emit.ints(*places), axis=axis)
                    _copy_shape(selected[value, wanted], value, axis, len(places))
                node.replace_input_with(index, selected[value, wanted])
        target = _target(node, demand) if node.op_type == "Reshape" else None
        if target is not None:
            node.replace_input_with(1, emit.ints(*target))
        _copy_shape(node.outputs[0], node.outputs[0], demand.axis, len(demand.positions))


def _demands(
    graph: ir.Graph, selections: Mapping[ir.Node, _Selection], keep: Collection[ir.Value]
) -> tuple[dict[ir.Value, Demand], dict[ir.Node, _Axes]]:
    """Values of which all uses read only some positions along the same axis, and how their nodes pass that on."""
    found: dict[ir.Value, Demand] = {}
    plans: dict[ir.Node, _Axes] = {}
    whole: set[ir.Value] = {*keep, *graph.inputs, *graph.initializers.values()}
    whole.update(value for value in graph.outputs)
    for node in reversed(list(graph)):
        output = node.outputs[0] if node.outputs else None
        axes: _Axes | None = None
        demand = found.get(output) if output is not None and output not in whole else None
        if node in selections:
            demand = Demand(selections[node].axis, tuple(sorted(set(selections[node].order))))
            axes = [demand.axis] + [None] * (len(node.inputs) - 1)
            whole.update(node.outputs)
        elif demand is not None and output is not None:
            size = _size(output, demand.axis)
            worth_it = size is not None and 2 * len(demand.positions) <= size and len(node.outputs) == 1
            axes = _input_axes(node, demand.axis) if worth_it else None
            if axes is not None and node.op_type == "Reshape" and _target(node, demand) is None:
                axes = None
            if axes is None:
                whole.add(output)
            else:
                plans[node] = axes
        for index, value in enumerate(node.inputs):
            if value is None or value in whole:
                continue
            axis = axes[index] if axes is not None else None
            before = found.get(value)
            if axis is None or demand is None or (before is not None and before.axis != axis):
                whole.add(value)
            else:
                both = {*demand.positions, *(before.positions if before is not None else ())}
                found[value] = Demand(axis, tuple(sorted(both)))
        for graph_ in bodies(node):  # what a branch or loop body reads from outside is left alone
            whole.update(v for inner in graph_.all_nodes() for v in inner.inputs if v is not None)
            whole.update(graph_.outputs)
    return {value: demand for value, demand in found.items() if value not in whole}, plans


def _selection(node: ir.Node) -> _Selection | None:
    """What a Gather or Slice with constant positions along one axis of known size reads."""
    value = node.inputs[0] if node.inputs else None
    n = rank(value) if value is not None else None
    if value is None or not n or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Gather":
        axis = _attribute(node, "axis", 0) % n
        indices, size = constant(node.inputs[1]), _size(value, axis)
        if indices is None or size is None or indices.ndim > 1 or indices.size == 0:
            return None
        return _Selection(axis, tuple(int(i) % size for i in indices.reshape(-1)), indices.ndim == 0)
    if node.op_type == "Slice" and len(node.inputs) > 3:
        numbers = [constant(value) for value in node.inputs[1:]]
        if any(number is None or number.size != 1 for number in numbers):
            return None
        start, end, raw, *step = (int(number.reshape(-1)[0]) for number in numbers if number is not None)
        size = _size(value, raw % n)
        if size is None or (step and step[0] < 1):
            return None
        positions = tuple(range(size)[slice(start, end, *step)])
        return _Selection(raw % n, positions, False) if positions else None
    return None


def _reselect(emit: Emitter, node: ir.Node, selection: _Selection, held: Demand) -> None:
    """Let a selection read its positions out of the narrowed value."""
    places = np.asarray([held.positions.index(position) for position in selection.order], np.int64)
    if selection.scalar and len(held.positions) == 1:
        node.op_type = "Squeeze"
        node.attributes.clear()
        node.replace_input_with(1, emit.ints(selection.axis))
        return
    node.op_type = "Gather"
    node.attributes.clear()
    node.attributes["axis"] = ir.AttrInt64("axis", selection.axis)
    node.resize_inputs(2)
    node.replace_input_with(1, emit.constant(places.reshape(()) if selection.scalar else places))


def _input_axes(node: ir.Node, axis: int) -> _Axes | None:
    """Along which axis every input can be narrowed when the output is along ``axis``; None where the node needs all."""
    if node.domain not in ("", "ai.onnx") or any(value is None or value.shape is None for value in node.outputs):
        return None
    op, n = node.op_type, rank(node.outputs[0])
    first = node.inputs[0] if node.inputs else None
    if n is None or first is None or rank(first) is None:
        return None
    rest: _Axes = [None] * (len(node.inputs) - 1)
    if op in _UNARY:
        return [axis, *rest]
    if op in _BROADCASTING:
        return _broadcast_axes(node, axis, n, range(len(node.inputs)))
    if op in ("Softmax", "LogSoftmax"):
        return [axis] if _attribute(node, "axis", -1) % n != axis else None
    if op == "LayerNormalization":
        return [axis, *rest] if axis < _attribute(node, "axis", -1) % n else None
    if op == "Transpose":
        permutation = _attribute(node, "perm", list(range(n))[::-1])
        return [permutation[axis]]
    if op == "Gemm":
        known = axis == 0 and not _attribute(node, "transA", 0) and all(rank(v) in (0, 1) for v in node.inputs[2:] if v)
        return [0, *rest] if known else None
    if op == "MatMul":
        left, right = node.inputs
        rank_left, rank_right = (rank(value) if value is not None else None for value in (left, right))
        if rank_left is None or rank_right is None or min(rank_left, rank_right) < 2 or axis == n - 1:
            return None
        if axis == n - 2:
            return [rank_left - 2, None]
        return _broadcast_axes(node, axis, n, (0, 1))
    if op == "Concat":
        return [axis] * len(node.inputs) if _attribute(node, "axis", 0) % n != axis else None
    if op == "Reshape":
        return _reshape_axes(node, axis)
    return None


def _broadcast_axes(node: ir.Node, axis: int, n: int, indices: Collection[int]) -> _Axes | None:
    """Inputs that have the axis are narrowed along it, inputs that are broadcast along it are read whole."""
    size, result = _size(node.outputs[0], axis), _none(node)
    for index in indices:
        value = node.inputs[index]
        own = rank(value) if value is not None else None
        if value is None or own is None or size is None:
            return None
        place = axis - (n - own)
        if place < 0 or _size(value, place) == 1:
            continue
        if _size(value, place) != size:
            return None
        result[index] = place
    return result


def _none(node: ir.Node) -> _Axes:
    return [None] * len(node.inputs)


def _reshape_axes(node: ir.Node, axis: int) -> _Axes | None:
    """A Reshape keeps an axis if the sizes before it, taken together, and its own size are the same on both sides."""
    before, after = dims(node.inputs[0]), dims(node.outputs[0])  # type: ignore[arg-type]
    if before is None or after is None or not isinstance(after[axis], int):
        return None
    for place, size in enumerate(before):
        if size == after[axis] and _extent(before[:place]) == _extent(after[:axis]) is not None:
            return [place, *_none(node)[1:]]
    return None


def _extent(sizes: Sequence[int | str | None]) -> tuple[int, tuple[str, ...]] | None:
    """Product of sizes as a number and symbols; None where a size is not known."""
    if None in sizes:
        return None
    product = int(np.prod([size for size in sizes if isinstance(size, int)], dtype=np.int64))
    return product, tuple(sorted(size for size in sizes if isinstance(size, str)))


def _target(node: ir.Node, demand: Demand) -> list[int] | None:
    """Target of a Reshape whose output is narrowed; None where it cannot be written down."""
    sizes = dims(node.outputs[0])
    if sizes is None or 0 in sizes or sum(not isinstance(size, int) for size in sizes) > 1:
        return None
    target = [size if isinstance(size, int) else -1 for size in sizes]
    target[demand.axis] = len(demand.positions)
    return target


def _copy_shape(value: ir.Value, like: ir.Value, axis: int, size: int) -> None:
    sizes = list(dims(like) or ())
    sizes[axis] = size
    value.shape, value.type = ir.Shape(sizes), like.type


def _size(value: ir.Value, axis: int) -> int | None:
    sizes = dims(value)
    size = sizes[axis] if sizes is not None and -len(sizes) <= axis < len(sizes) else None
    return size if isinstance(size, int) else None


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value
