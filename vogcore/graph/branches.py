"""Take the branch of an If whose condition is a constant into the graph around it.

Requires: Constant nodes lifted to initializers.
Ensures: no If with a constant condition is left, nor inside of bodies; the values that it gave keep their names;
nodes and values that came out of a branch have names that nothing else in the model has.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vogcore.graph.shapes import constant

__all__ = ["inline_constant_branches"]


def inline_constant_branches(model: ir.Model) -> bool:
    """Inline the branches in place; True when there was any."""
    changed = False
    while (chosen := _next(model)) is not None:
        _inline(model, *chosen)
        changed = True
    return changed


def _next(model: ir.Model) -> tuple[ir.Node, ir.Graph] | None:
    """The first If with a constant condition, and the branch that it takes."""
    for node in model.graph.all_nodes():
        if node.op_type == "If" and node.domain in ("", "ai.onnx"):
            condition = constant(node.inputs[0])
            if condition is not None and condition.size == 1:
                taken = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
                return node, node.attributes[taken].as_graph()
    return None


def _inline(model: ir.Model, node: ir.Node, branch: ir.Graph) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    node.attributes.clear()  # takes both branches out of the model
    taken = set(_names(model.graph))
    results, parts = list(branch.outputs), list(branch)
    weights = list(branch.initializers.values())
    branch.outputs.clear()
    branch.initializers.clear()
    branch.remove(parts)
    for part in parts:
        part.name = _free(part.name or part.op_type, taken)
        for value in part.outputs:
            value.name = _free(value.name, taken) if value.name else value.name
    for value in weights:
        value.name = _free(value.name or "constant", taken)
        graph.register_initializer(value)
    graph.insert_before(node, parts)
    for output, result in zip(node.outputs, results, strict=True):
        copy = ir.node("Identity", [result], name=_free(f"{output.name}/Identity", taken))
        copy.outputs[0].type = output.type if output.type is not None else result.type
        copy.outputs[0].shape = result.shape if result.shape is not None else output.shape
        graph.insert_before(node, copy)
        output.replace_all_uses_with(copy.outputs[0], replace_graph_outputs=True)
        copy.outputs[0].name, output.name = output.name, None
    graph.remove(node, safe=True)


def _names(graph: ir.Graph) -> Iterator[str]:
    """Names of all nodes and values, bodies included."""
    for inner in (graph, *graph.subgraphs()):
        yield from (value.name for value in inner.inputs if value.name)
        yield from inner.initializers
        for node in inner:
            yield from (name for name in (node.name, *(value.name for value in node.outputs)) if name)


def _free(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
