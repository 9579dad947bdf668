"""Control flow: branches and loops, whose reverse sweeps are branches and loops themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.backward import path_nodes, reached, sweep
from vogcore.autodiff.registry import Call, Cotangents, inputs_with_gradient, rule
from vogcore.autodiff.subgraph import (
    Stream,
    copied,
    hoist,
    own,
    own_outputs,
    prune,
    require_repeatable,
    scan_node,
    stacked,
)
from vogcore.graph.emit import Emitter

WIDE = {ir.DataType.FLOAT16: ir.DataType.FLOAT, ir.DataType.BFLOAT16: ir.DataType.FLOAT}


@rule("If", all_outputs=True, traces=True)
def if_(call: Call) -> Cotangents:
    """The same condition chooses between the reverse sweeps of the two branches, each of which computes its branch
    again. A value that only one branch reads gets zeros from the other."""
    emit, names = call.emit, ("then_branch", "else_branch")
    copies = []
    for name in names:
        branch = call.node.attributes[name].as_graph()
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
    return _reverse(Iterations(call, body, 2, 1, count, [], [Stream(v) for v in call.node.outputs[count:]]))


@rule("Scan", all_outputs=True, traces=True)
def scan(call: Call) -> Cotangents:
    """As Loop; the slices of the scanned inputs are read, and their cotangents written, in the opposite order."""
    node, body = call.node, call.node.attributes["body"].as_graph()
    scanned = call.attribute("num_scan_inputs")
    count = len(node.inputs) - scanned
    inputs = [call.input(i) for i in range(count, len(node.inputs))]
    return _reverse(
        Iterations(
            call, body, 0, 0, count, _streams(call, "input", inputs), _streams(call, "output", node.outputs[count:])
        )
    )


def _streams(call: Call, kind: str, values: Sequence[ir.Value]) -> list[Stream]:
    axes = call.attribute(f"scan_{kind}_axes", [0] * len(values))
    directions = call.attribute(f"scan_{kind}_directions", [0] * len(values))
    return [Stream(v, axis, bool(back)) for v, axis, back in zip(values, axes, directions, strict=True)]


@dataclass
class Iterations:
    """A Loop or Scan node: where its states, its scanned inputs and its stacked outputs are."""

    call: Call
    body: ir.Graph
    first: int
    """Position of the first state among the inputs of the node, and of the body."""
    first_out: int
    """Position of the first state among the outputs of the body."""
    count: int
    """Number of states."""
    reads: list[Stream]
    writes: list[Stream]

    @property
    def initial(self) -> list[ir.Value]:
        return [self.call.input(self.first + j) for j in range(self.count)]

    @property
    def finals(self) -> list[ir.Value]:
        return list(self.call.node.outputs[: self.count])

    def states(self, body: ir.Graph) -> list[ir.Value]:
        """States at the start of an iteration, in ``body`` or a copy of it."""
        return list(body.inputs[self.first : self.first + self.count])

    def after(self, body: ir.Graph) -> list[ir.Value]:
        """States at the end of an iteration."""
        return list(body.outputs[self.first_out : self.first_out + self.count])

    def slices(self, body: ir.Graph) -> list[ir.Value]:
        """Slices of the scanned inputs."""
        return list(body.inputs[self.first + self.count :])

    def rows(self, body: ir.Graph) -> list[ir.Value]:
        """Slices of the stacked outputs."""
        return list(body.outputs[self.first_out + self.count :])


def _reverse(it: Iterations) -> Cotangents:
    call, emit = it.call, it.call.emit
    _check_types(it)
    own_outputs(emit, it.body)
    carried = _carried(it)
    constant = {j: v for j, v in enumerate(it.initial) if _passed_through(it, j)}
    copy, inner = copied(emit, it.body)
    states, slices = it.states(copy), it.slices(copy)
    _settle_loop_inputs(it, copy, emit)
    for j, value in constant.items():
        ir.convenience.replace_all_uses_with(states[j], value)
    # The cotangents that come in: of the states, carried; of the rows, read slice by slice.
    moving = [j for j in carried if j not in constant]
    incoming = {j: _body_value(inner, "cotangent", it.after(copy)[j]) for j in moving}
    reads = [
        (_body_value(inner, "cotangent", row), Stream(dy, stream.axis, not stream.backwards), row)
        for row, stream, dy in zip(it.rows(copy), it.writes, call.cotangents[it.count :], strict=True)
        if dy is not None
    ]
    seeds = {it.after(copy)[j]: value for j, value in incoming.items()} | {row: dy for dy, _, row in reads}
    outside = list(dict.fromkeys([*call.captured, *(constant[j] for j in carried if j in constant)]))
    wanted = [call.wanted[it.first + it.count + i] for i in range(len(slices))]
    sources = [*outside, *(states[j] for j in moving), *(v for v, want in zip(slices, wanted) if want)]
    gradients = sweep(inner, seeds, sources, call.options)
    # What goes out: cotangents of the states, sums for the values from outside, slices for the scanned inputs.
    sums = {v: _body_value(inner, "sum", v, WIDE) for v in outside if v in gradients}
    outputs = [gradients[states[j]] if states[j] in gradients else inner.zeros_like(states[j]) for j in moving]
    outputs += [inner.op("Add", s, inner.cast(gradients[v], _dtype(s)), like=s) for v, s in sums.items()]
    written = [i for i, value in enumerate(slices) if value in gradients]
    outputs += [gradients[slices[i]] for i in written]
    copy.outputs.clear()
    for value in outputs:
        copy.outputs.append(own(inner, value))
    before = [*incoming.values(), *sums.values()]
    candidates = list(copy.inputs)
    copy.inputs.clear()
    copy.inputs.extend(before)
    prune(copy)
    require_repeatable(call, copy)
    # What the iteration is computed again from: only what is still read.
    kept = [(value, _stream_of(it, k)) for k, value in enumerate(candidates) if value.uses()]
    kept += [(dy, stream) for dy, stream, _ in reads if dy.uses()]
    if not kept:  # a Scan needs something that tells the number of iterations
        k = 0 if it.first else it.first + it.count
        kept = [(candidates[k], _stream_of(it, k))]
    copy.inputs.extend(value for value, _ in kept)
    hoist(copy, emit)
    start = [_start(call, it, j) for j in moving] + [
        emit.cast(emit.zeros_like(value), _dtype(total)) for value, total in sums.items()
    ]
    rows = list(copy.outputs)[len(before) :]
    writes = [Stream(row, it.reads[i].axis, not it.reads[i].backwards) for i, row in zip(written, rows, strict=True)]
    results = iter(scan_node(emit, copy, start, [stream for _, stream in kept], writes))
    answer: list[ir.Value | None] = [None] * len(call.node.inputs)
    for j in moving:
        answer[it.first + j] = next(results)
    for value in sums:
        total = emit.cast(next(results), _dtype(value))
        if value in call.captured:
            call.captured[value] = total
        else:
            position = next(it.first + j for j in carried if constant.get(j) is value)
            answer[position] = total
    for i in written:
        answer[it.first + it.count + i] = next(results)
    for j in carried:
        dy = call.cotangents[j]
        if j in constant and dy is not None:
            inside = answer[it.first + j]
            answer[it.first + j] = dy if inside is None else emit.op("Add", inside, dy, like=dy)
    return answer


def _check_types(it: Iterations) -> None:
    for state, initial in zip(it.states(it.body), it.initial, strict=True):
        for value in (state, initial):
            if isinstance(value.type, ir.SequenceType | ir.OptionalType):
                raise it.call.unsupported(
                    f"its carried value {state.name!r} is a sequence or an optional; export the model with tensors, "
                    "stacked by the loop itself (scan outputs)"
                )
        state.type = state.type if state.type is not None else initial.type


def _carried(it: Iterations) -> list[int]:
    """States whose cotangents are carried: those that the input changes and that change an output in use."""
    call, body, count = it.call, it.body, it.count
    states, after = it.states(body), it.after(body)
    wanted = call.wanted[it.first + count :]
    fixed = [*call.captured, *(v for v, want in zip(it.slices(body), wanted, strict=True) if want)]
    active = {j for j in range(count) if call.wanted[it.first + j]}
    while True:
        _, values = reached(body, [*fixed, *(states[j] for j in active)])
        more = active | {j for j in range(count) if after[j] in values}
        if more == active:
            break
        active = more
    rows = [row for row, dy in zip(it.rows(body), call.cotangents[count:], strict=True) if dy is not None]
    needed = {j for j in range(count) if call.cotangents[j] is not None}
    while True:
        sinks = [*rows, *(after[j] for j in needed)]
        path = path_nodes(body, [*fixed, *(states[j] for j in active)], sinks)
        read = {value for node in path for value in inputs_with_gradient(node)}
        more = needed | {j for j in range(count) if states[j] in read}
        if more == needed:
            break
        needed = more
    return sorted(active & needed)


def _passed_through(it: Iterations, j: int) -> bool:
    """Does every iteration hand state ``j`` on as it is?"""
    value: ir.Value | None = it.after(it.body)[j]
    while value is not None and (producer := value.producer()) is not None and producer.op_type == "Identity":
        value = producer.inputs[0]
    return value is it.states(it.body)[j]


def _settle_loop_inputs(it: Iterations, copy: ir.Graph, emit: Emitter) -> None:
    """The condition that a Loop's body is given: it holds in every iteration that was run."""
    if it.first:
        ir.convenience.replace_all_uses_with(copy.inputs[1], emit.constant(np.asarray(True)))


def _stream_of(it: Iterations, k: int) -> Stream:
    """Input ``k`` of the body, over all iterations, in reverse: kept by the forward loop, or one that it scans."""
    position = k - it.first - it.count
    if position >= 0:
        stream = it.reads[position]
        return Stream(stream.value, stream.axis, not stream.backwards)
    return Stream(_kept(it, it.body.inputs[k]), 0, True)


def _kept(it: Iterations, value: ir.Value) -> ir.Value:
    """Let the forward node also stack up ``value``, an input of its body."""
    node, inner = it.call.node, Emitter(it.body, it.call.emit)
    it.body.outputs.append(inner.op("Identity", value, like=value))
    node.resize_outputs(len(node.outputs) + 1)
    result = node.outputs[-1]
    result.name = it.call.emit.name("kept")
    result.type, result.shape = value.type, stacked(value)
    for name in ("scan_output_axes", "scan_output_directions"):
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, [*node.attributes[name].as_ints(), 0])
    return result


def _start(call: Call, it: Iterations, j: int) -> ir.Value:
    """Cotangent of the final value of state ``j``."""
    dy, final = call.cotangents[j], it.finals[j]
    if dy is not None:
        return dy
    final.name = final.name or call.emit.name("final")
    return call.emit.zeros_like(final)


def _body_value(
    emit: Emitter, stem: str, like: ir.Value, types: dict[ir.DataType, ir.DataType] | None = None
) -> ir.Value:
    dtype = _dtype(like)
    return ir.Value(name=emit.name(stem), shape=like.shape, type=ir.TensorType((types or {}).get(dtype, dtype)))


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.FLOAT
