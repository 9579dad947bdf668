"""Control flow: branches and loops, whose reverse sweeps are branches and loops themselves."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vogcore.autodiff.backward import sweep
from vogcore.autodiff.loops import Iterations, reverse
from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.subgraph import Stream, copied, own, own_outputs, prune, require_repeatable
from vogcore.errors import ModelError
from vogcore.graph.prepare import node_name


@rule("If", all_outputs=True, traces=True)
def if_(call: Call) -> Cotangents:
    """The same condition chooses between the reverse sweeps of the two branches, each of which computes its branch
    again. A value that only one branch reads gets zeros from the other."""
    emit, names = call.emit, ("then_branch", "else_branch")
    copies = []
    for name in names:
        branch = call.node.attributes[name].as_graph()
        if len(branch.outputs) != len(call.cotangents):
            raise ModelError(
                f"The branches of the If node {node_name(call.node)!r} do not have as many outputs as the node; export "
                "the model again."
            )
        own_outputs(emit, branch)
        copy, inner = copied(emit, branch)
        seeds = {value: dy for value, dy in zip(copy.outputs, call.cotangents, strict=True) if dy is not None}
        copies.append((copy, inner, sweep(inner, seeds, call.captured, call.options)))
    found = [value for value in call.captured if any(value in gradients for _, _, gradients in copies)]
    if not found:
        return []
    for copy, inner, gradients in copies:
        copy.outputs.clear()
        for value in found:
            result = gradients[value] if value in gradients else inner.zeros_like(value)
            copy.outputs.append(own(inner, result))
        prune(copy)
        require_repeatable(call, copy)
    branches = {name: copy for name, (copy, _, _) in zip(names, copies)}
    results = emit.multi("If", [call.input(0)], len(found), branches)
    for value, result in zip(found, results, strict=True):
        result.shape, result.type = value.shape, value.type
        call.captured[value] = result
    return []


@rule("Loop", all_outputs=True, traces=True)
def loop(call: Call) -> Cotangents:
    """A Scan from the last iteration to the first (Griewank and Walther 2008, chapter 12): the forward loop keeps the
    carried values at the start of each iteration, from which the reverse one computes the iteration again. Carried
    are the cotangents of the carried values, and the sums of those of what the body reads from outside."""
    body = call.node.attributes["body"].as_graph()
    count = len(call.node.inputs) - 2
    return reverse(Iterations(call, body, 2, 1, count, [], [Stream(v) for v in call.node.outputs[count:]]))


@rule("Scan", all_outputs=True, traces=True)
def scan(call: Call) -> Cotangents:
    """As Loop; the slices of the scanned inputs are read, and their cotangents written, in the opposite order."""
    node, body = call.node, call.node.attributes["body"].as_graph()
    scanned = call.attribute("num_scan_inputs")
    count = len(node.inputs) - scanned
    inputs = [call.input(i) for i in range(count, len(node.inputs))]
    return reverse(
        Iterations(
            call, body, 0, 0, count, _streams(call, "input", inputs), _streams(call, "output", node.outputs[count:])
        )
    )


def _streams(call: Call, kind: str, values: Sequence[ir.Value]) -> list[Stream]:
    axes = call.attribute(f"scan_{kind}_axes", [0] * len(values))
    directions = call.attribute(f"scan_{kind}_directions", [0] * len(values))
    return [Stream(v, axis, bool(back)) for v, axis, back in zip(values, axes, directions, strict=True)]
