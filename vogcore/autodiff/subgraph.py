"""Graphs inside nodes: copies of branches and loop bodies for the reverse sweep, and Scan nodes around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vogcore.autodiff.registry import Call, qualified_name
from vogcore.graph.emit import Emitter
from vogcore.graph.prepare import node_name
from vogcore.graph.shapes import bodies

__all__ = [
    "Stream",
    "branches",
    "copied",
    "hoist",
    "own",
    "own_outputs",
    "prune",
    "require_repeatable",
    "scan",
    "scan_node",
    "stacked",
]

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


@dataclass(frozen=True)
class Stream:
    """A tensor that a Scan node reads slice by slice, or stacks up from slices."""

    value: ir.Value
    """The whole tensor, outside; of a stream that is written, its slice inside."""
    axis: int = 0
    backwards: bool = False
    """The first iteration has the last slice."""


def stacked(slice_: ir.Value, length: int | str | None = None) -> ir.Shape | None:
    """Shape of slices stacked along a new first axis."""
    return None if slice_.shape is None else ir.Shape([length, *slice_.shape])


def copied(emit: Emitter, graph: ir.Graph) -> tuple[ir.Graph, Emitter]:
    """A copy of a branch or loop body under new names, and an emitter that appends to it.

    Values of the graphs around it are the same in the copy. Inputs and outputs correspond by position.
    """
    copy = graph.clone(allow_outer_scope_values=True)
    inner = Emitter(copy, emit)
    _rename(inner, copy)
    return copy, inner


def _rename(emit: Emitter, graph: ir.Graph) -> None:
    for value in graph.inputs:
        value.name = emit.name(_stem(value))
    for node in graph:
        node.name = node_name(node)  # messages call it as the forward model does
        for value in node.outputs:
            value.name = emit.name(_stem(value)) if value.name else value.name
        for nested in bodies(node):
            _rename(emit, nested)


def _stem(value: ir.Value) -> str:
    return (value.name or "value").rpartition("/")[2]


def own(emit: Emitter, value: ir.Value) -> ir.Value:
    """``value``, or a copy of it where it is not computed in the emitter's graph: what a body may return.

    ONNX Runtime refuses a body that returns a value from outside.
    """
    if _made_in(emit.graph, value) and not value.is_graph_output():
        return value
    return emit.op("Identity", value, like=value)


def own_outputs(emit: Emitter, graph: ir.Graph) -> None:
    """Make every output of a forward body the output of a node of its own, so that a copy of the body has it too."""
    inner = Emitter(graph, emit)
    seen: set[ir.Value] = set()
    for index, value in enumerate(graph.outputs):
        if not _made_in(graph, value) or value in seen:
            graph.outputs[index] = inner.op("Identity", value, like=value)
        seen.add(value)


def prune(graph: ir.Graph) -> None:
    """Remove the nodes that the outputs do not need, what their own bodies read included."""
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            _release(node)
            graph.remove(node, safe=True)


def _release(node: ir.Node) -> None:
    for body in bodies(node):
        body.outputs.clear()
        prune(body)


def hoist(graph: ir.Graph, emit: Emitter) -> None:
    """Move nodes that do not change from one iteration to the next out of a loop body, in front of the loop."""
    inputs = set(graph.inputs)
    for node in list(graph):
        if any(True for _ in bodies(node)) or any(value.is_graph_output() for value in node.outputs):
            continue
        if any(value in inputs or _made_in(graph, value) for value in node.inputs if value is not None):
            continue
        graph.remove(node)
        node.name = emit.name(node.op_type)  # that of the node it is a copy of may be taken there
        emit.graph.append(node)


def _made_in(graph: ir.Graph, value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.graph is graph


def require_repeatable(call: Call, graph: ir.Graph) -> None:
    """Refuse a body that draws random numbers: computing it a second time would draw others."""
    for node in graph.all_nodes():
        if qualified_name(node) in _RANDOM:
            raise call.unsupported(
                f"its body draws random numbers ({node.op_type}); export the model in evaluation mode"
            )


def scan_node(
    emit: Emitter, body: ir.Graph, states: Sequence[ir.Value], reads: Sequence[Stream], writes: Sequence[Stream]
) -> tuple[ir.Value, ...]:
    """Append a Scan node.

    Args:
        emit: emitter on the graph around it.
        body: inputs: states, then a slice of each of ``reads``; outputs: states, then a slice of each of ``writes``.
        states: initial states.
        reads, writes: how slices lie in the tensors.

    Returns:
        The final states, then the tensors written.
    """
    attributes = {
        "body": body,
        "num_scan_inputs": len(reads),
        "scan_input_axes": [stream.axis for stream in reads],
        "scan_input_directions": [int(stream.backwards) for stream in reads],
    }
    if writes:
        attributes["scan_output_axes"] = [stream.axis for stream in writes]
        attributes["scan_output_directions"] = [int(stream.backwards) for stream in writes]
    inputs = [*states, *(stream.value for stream in reads)]
    results = emit.multi("Scan", inputs, len(states) + len(writes), attributes)
    for result, state in zip(results, states):
        result.shape, result.type = state.shape, state.type
    for result, stream in zip(results[len(states) :], writes):
        result.type = stream.value.type
        result.shape = stacked(stream.value) if stream.axis == 0 else None
    return results


def branches(
    emit: Emitter,
    condition: ir.Value,
    yes: Callable[[Emitter], Sequence[ir.Value]],
    no: Callable[[Emitter], Sequence[ir.Value]],
) -> tuple[ir.Value, ...]:
    """Append an If node; ``yes`` and ``no`` emit its branches and return as many values of the same types."""
    graphs = []
    for build in (yes, no):
        graph = ir.Graph([], [], nodes=[], name=emit.name("branch"))
        inner = Emitter(graph, emit)
        values = build(inner)
        for value in values:
            graph.outputs.append(own(inner, value))
        graphs.append(graph)
    results = emit.multi("If", [condition], len(values), {"then_branch": graphs[0], "else_branch": graphs[1]})
    for result, value in zip(results, values):
        result.shape, result.type = value.shape, value.type
    return results


Step = Callable[[Emitter, Sequence[ir.Value], Sequence[ir.Value]], tuple[Iterable[ir.Value], Iterable[ir.Value]]]
"""(emitter on the body, states, slices) -> (new states, slices to stack up)."""


def scan(
    emit: Emitter, step: Step, states: Sequence[ir.Value], sequences: Sequence[ir.Value], backwards: bool = False
) -> tuple[ir.Value, ...]:
    """Run ``step`` along the first axis of ``sequences``, from its end if ``backwards``.

    Returns:
        The final states, then what the steps returned, stacked up in the order of ``sequences``.
    """
    body = ir.Graph([], [], nodes=[], name=emit.name("body"))
    inner = Emitter(body, emit)
    before = [ir.Value(name=inner.name("state"), shape=v.shape, type=v.type) for v in states]
    slices = [
        ir.Value(name=inner.name("slice"), shape=None if v.shape is None else ir.Shape(v.shape[1:]), type=v.type)
        for v in sequences
    ]
    body.inputs.extend([*before, *slices])
    after, rows = step(inner, before, slices)
    for value in [*after, *rows]:
        body.outputs.append(own(inner, value))
    written = [Stream(value, backwards=backwards) for value in list(body.outputs)[len(states) :]]
    return scan_node(emit, body, states, [Stream(v, backwards=backwards) for v in sequences], written)
