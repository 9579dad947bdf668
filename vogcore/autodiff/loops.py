"""Loop and Scan nodes in reverse: what is carried, what is kept, and the Scan node that runs backwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.backward import path_nodes, reached, sweep
from vogcore.autodiff.registry import Call, Cotangents, inputs_with_gradient
from vogcore.autodiff.scatters import Scattered, add_scattered, split_off
from vogcore.autodiff.subgraph import (
    Stream,
    branches,
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
from vogcore.graph.loop_shapes import trips

__all__ = ["Iterations", "reverse"]

WIDE = {ir.DataType.FLOAT16: ir.DataType.FLOAT, ir.DataType.BFLOAT16: ir.DataType.FLOAT}
"""Types that sums over the iterations are kept in."""


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


def reverse(it: Iterations) -> Cotangents:
    """Emit the reverse loop.

    Returns:
        Cotangents of the node's inputs; those of captured values are put into the call.
    """
    _check_types(it)
    own_outputs(it.call.emit, it.body)
    body = _BodySweep(it)
    answer: list[ir.Value | None] = [None] * len(it.call.node.inputs)
    if body.gradients or body.moving:
        answer = body.run()
    for j in body.constant:
        dy, inside = it.call.cotangents[j], answer[it.first + j]
        if j in body.carried and dy is not None:
            answer[it.first + j] = dy if inside is None else it.call.emit.op("Add", inside, dy, like=dy)
    return answer


class _BodySweep:
    """A copy of the body, followed by its reverse sweep; then the Scan node around them."""

    def __init__(self, it: Iterations) -> None:
        self.it, call = it, it.call
        self.carried = _carried(it)
        self.constant = {j: v for j, v in enumerate(it.initial) if _passed_through(it, j)}
        self.copy, self.inner = copied(call.emit, it.body)
        self.states, self.slices = it.states(self.copy), it.slices(self.copy)
        if it.first:  # a Loop tells its body the condition, which holds in every iteration that was run
            ir.convenience.replace_all_uses_with(self.copy.inputs[1], call.emit.constant(np.asarray(True)))
        for j, value in self.constant.items():
            ir.convenience.replace_all_uses_with(self.states[j], value)
        # The cotangents that come in: of the states, carried; of the rows, read slice by slice.
        after = it.after(self.copy)
        self.moving = [j for j in self.carried if j not in self.constant]
        self.incoming = {j: _body_value(self.inner, "cotangent", after[j]) for j in self.moving}
        self.reads: list[tuple[ir.Value, Stream]] = []
        seeds = {after[j]: value for j, value in self.incoming.items()}
        for row, stream, dy in zip(it.rows(self.copy), it.writes, call.cotangents[it.count :], strict=True):
            if dy is not None:
                seeds[row] = _body_value(self.inner, "cotangent", row)
                self.reads.append((seeds[row], Stream(dy, stream.axis, not stream.backwards)))
        handed_on = [self.constant[j] for j in self.carried if j in self.constant]
        self.outside = [*dict.fromkeys([*call.captured, *handed_on])]
        wanted = call.wanted[it.first + it.count :]
        sources = [*self.outside, *(self.states[j] for j in self.moving)]
        sources += [value for value, want in zip(self.slices, wanted, strict=True) if want]
        self.gradients = sweep(self.inner, seeds, sources, call.options)

    def run(self) -> list[ir.Value | None]:
        """Emit the Scan node; cotangents of the node's inputs."""
        it, emit, inner, copy = self.it, self.it.call.emit, self.inner, self.copy
        gradients, outside = self.gradients, [value for value in self.outside if value in self.gradients]
        parts = {value: split_off(inner, gradients[value], value) for value in outside}
        sums = {v: _body_value(inner, "sum", v, WIDE) for v, (_, rest) in parts.items() if rest is not None}
        carried_on = [
            gradients[self.states[j]] if self.states[j] in gradients else inner.zeros_like(self.states[j])
            for j in self.moving
        ]
        for value, total in sums.items():
            rest = inner.cast(_given(parts[value][1]), _dtype(total))
            carried_on.append(inner.op("Add", total, rest, like=total))
        written = [i for i, value in enumerate(self.slices) if value in gradients]
        rows = [gradients[self.slices[i]] for i in written]
        rows += [v for scattered, _ in parts.values() for piece in scattered for v in (piece.indices, piece.updates)]
        start = [_start(it, j) for j in self.moving]
        start += [emit.cast(emit.zeros_like(value), _dtype(total)) for value, total in sums.items()]
        reads = self._close([*self.incoming.values(), *sums.values()], [*carried_on, *rows])
        streams = [(it.reads[i].axis, not it.reads[i].backwards) for i in written]
        streams += [(0, False)] * (len(rows) - len(streams))
        writes = [Stream(v, *how) for v, how in zip(list(copy.outputs)[len(carried_on) :], streams, strict=True)]

        def emit_loop(at: Emitter) -> list[ir.Value]:
            results = iter(scan_node(at, copy, start, reads, writes))
            states = [next(results) for _ in self.moving]
            totals = {value: at.cast(next(results), _dtype(value)) for value in sums}
            slices = [next(results) for _ in written]
            for value in outside:
                total = totals[value] if value in totals else at.zeros_like(value)
                totals[value] = add_scattered(at, total, [*_stacks(parts[value][0], results)])
            return [*states, *slices, *(totals[value] for value in outside)]

        def emit_nothing(at: Emitter) -> list[ir.Value]:
            return [*start[: len(self.moving)], *(at.zeros_like(value) for value in outside)]

        if self._certainly_runs():
            results = iter(emit_loop(emit))
        else:  # ONNX Runtime's Scan fails where there is nothing to scan
            steps = emit.as_scalar(emit.dim(reads[0].value, reads[0].axis))
            some = emit.compare("Greater", steps, emit.constant(0))
            results = iter(branches(emit, some, emit_loop, emit_nothing))
        answer: list[ir.Value | None] = [None] * len(it.call.node.inputs)
        for j in self.moving:
            answer[it.first + j] = next(results)
        for i in written:
            answer[it.first + it.count + i] = next(results)
        for value in outside:
            if value in it.call.captured:
                it.call.captured[value] = next(results)
            else:
                answer[it.first + next(j for j in self.carried if self.constant.get(j) is value)] = next(results)
        return answer

    def _certainly_runs(self) -> bool:
        node = self.it.call.node
        return node.op_type == "Scan" or (trips(node, self.it.body) or 0) > 0

    def _close(self, states: list[ir.Value], outputs: list[ir.Value]) -> list[Stream]:
        """Give the copy its inputs and outputs; the tensors that it reads slice by slice."""
        it, copy = self.it, self.copy
        candidates = list(copy.inputs)
        copy.outputs.clear()
        for value in outputs:
            copy.outputs.append(own(self.inner, value))
        copy.inputs.clear()
        copy.inputs.extend(states)
        prune(copy)
        require_repeatable(it.call, copy)
        # Only what the iteration is still computed again from has to be kept.
        kept = [(value, _stream_of(it, k)) for k, value in enumerate(candidates) if value.uses()]
        kept += [(dy, stream) for dy, stream in self.reads if dy.uses()]
        if not kept:  # a Scan needs something that tells the number of iterations
            k = 0 if it.first else it.first + it.count
            kept = [(candidates[k], _stream_of(it, k))]
        copy.inputs.extend(value for value, _ in kept)
        hoist(copy, it.call.emit)
        return [stream for _, stream in kept]


def _stacks(scattered: list[Scattered], results: Iterator[ir.Value]) -> Iterator[Scattered]:
    for piece in scattered:
        yield Scattered(next(results), next(results), piece.axis)


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


def _start(it: Iterations, j: int) -> ir.Value:
    """Cotangent of the final value of state ``j``."""
    dy, final = it.call.cotangents[j], it.finals[j]
    if dy is not None:
        return dy
    final.name = final.name or it.call.emit.name("final")
    return it.call.emit.zeros_like(final)


def _given(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _body_value(
    emit: Emitter, stem: str, like: ir.Value, types: dict[ir.DataType, ir.DataType] | None = None
) -> ir.Value:
    dtype = _dtype(like)
    return ir.Value(name=emit.name(stem), shape=like.shape, type=ir.TensorType((types or {}).get(dtype, dtype)))


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.FLOAT
