"""What the rules of RNN, GRU and LSTM share: layouts, directions, lengths, and products over whole sequences.

Everything is computed for all steps at once wherever it does not depend on the step before: the forward operator's
output Y holds every hidden state. T is the number of steps, B the batch, D the width of the input, H that of the
hidden state, G the number of gates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call
from vogcore.autodiff.rules._cell_activations import Activation, activations
from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import dims, static_dims

__all__ = ["Layer", "Run"]

X, W, R, B, LENGTHS, INITIAL_H, INITIAL_C, P = range(8)
"""Positions of the inputs."""

END = np.iinfo(np.int64).max
_DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}


class Layer:
    """A recurrent node seen time-major, in a type wide enough for sums."""

    def __init__(self, call: Call, default: list[str]) -> None:
        self.call, self.emit = call, call.emit
        self.dtype = call.x.dtype or ir.DataType.FLOAT
        half = self.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        self.wide = ir.DataType.FLOAT if half else self.dtype
        self.batch_first = bool(call.attribute("layout", 0))
        backwards = _DIRECTIONS[call.attribute("direction", "forward")]
        self.count = len(backwards)
        hidden = static_dims(call.input(R), [2])
        self.hidden: int = call.attribute("hidden_size") or (hidden[0] if hidden else 0)
        if not self.hidden:
            raise call.unsupported("its hidden size is not known; set the attribute hidden_size")
        self.clip: float | None = call.attribute("clip")
        self.x = self.time_major(call.x)
        self.x_rows = self.rows(self.x)
        self.mask = self._mask()
        functions = activations(call, default, self.count)
        self.runs = [Run(self, d, back, functions[d]) for d, back in enumerate(backwards)]

    # -- forms -------------------------------------------------------------------------------------------------

    def wide_of(self, value: ir.Value) -> ir.Value:
        """``value`` in the type that is computed in."""
        return self.emit.cast(value, self.wide)

    def time_major(self, value: ir.Value) -> ir.Value:
        """(T, B, ...) of a value with three axes."""
        value = self.wide_of(value)
        if not self.batch_first:
            return value
        result = self.emit.op("Transpose", value, perm=[1, 0, 2])
        sizes = value.shape
        result.shape = None if sizes is None else ir.Shape([sizes[1], sizes[0], sizes[2]])
        return result

    def direction(self, value: ir.Value, index: int, axis: int) -> ir.Value:
        """The part of ``value`` that belongs to one direction; ``axis`` counts the directions."""
        value = self.wide_of(value)
        if self.count == 1:
            result = self.emit.op("Squeeze", value, self.emit.ints(axis))
        else:
            result = self.emit.op("Gather", value, self.emit.constant(index), axis=axis)
        if value.shape is not None:
            result.shape = ir.Shape([size for a, size in enumerate(value.shape) if a != axis])
        return result

    def join(self, parts: Sequence[ir.Value], axis: int, like: ir.Value) -> ir.Value:
        """The parts of all directions as one value of the form of ``like``."""
        emit = self.emit
        spread = [emit.op("Unsqueeze", part, emit.ints(axis)) for part in parts]
        return emit.cast(emit.op("Concat", *spread, axis=axis) if len(spread) > 1 else spread[0], _dtype(like))

    def rows(self, value: ir.Value) -> ir.Value:
        """(T B, width) of a value (T, B, width)."""
        emit, sizes = self.emit, static_dims(value, [2])
        if sizes is not None:
            return emit.op("Reshape", value, emit.ints(-1, sizes[0]))
        return emit.op("Reshape", value, emit.op("Concat", emit.ints(-1), emit.dim(value, 2), axis=0))

    def steps(self, rows: ir.Value, width: int) -> ir.Value:
        """(T, B, width) of rows (T B, width)."""
        emit = self.emit
        sizes = dims(self.x) or (None, None, None)
        known = [size if isinstance(size, int) else -1 for size in sizes[:2]]
        if known.count(-1) < 2:
            target = emit.ints(*known, width)
        else:
            target = emit.op(
                "Concat", emit.op("Slice", emit.shape(self.x), emit.ints(0), emit.ints(2)), emit.ints(width), axis=0
            )
        result = emit.op("Reshape", rows, target)
        result.shape = ir.Shape([*sizes[:2], width])
        return result

    def wide_shape(self, gates: int) -> ir.Shape:
        """(T, B, gates H)."""
        return ir.Shape([*(dims(self.x) or (None, None))[:2], gates * self.hidden])

    def zeros(self) -> ir.Value:
        """(B, H)."""
        emit = self.emit
        sizes = dims(self.x) or (None, None, None)
        if isinstance(sizes[1], int):
            shape = emit.ints(sizes[1], self.hidden)
        else:
            shape = emit.op("Concat", emit.dim(self.x, 1), emit.ints(self.hidden), axis=0)
        result = emit.filled(shape, 0.0, self.wide)
        result.shape = ir.Shape([sizes[1], self.hidden])
        return result

    def _mask(self) -> ir.Value | None:
        """(T, B, 1) bool: the step lies within the sequence; None where all sequences have full length."""
        emit, lengths = self.emit, self.call.optional(LENGTHS)
        if lengths is None:
            return None
        known, size = self.call.known(LENGTHS), static_dims(self.x, [0])
        if known is not None and size is not None and (known == size[0]).all():
            return None
        step = emit.op("Unsqueeze", emit.positions(self.x, 0), emit.ints(1, 2))
        bound = emit.op("Unsqueeze", emit.cast(lengths, ir.DataType.INT64), emit.ints(0, 2))
        result = emit.compare("Less", step, bound)
        sizes = dims(self.x)
        result.shape = None if sizes is None else ir.Shape([*sizes[:2], 1])
        return result

    def mul(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Product of two values of the same shape."""
        return self.emit.op("Mul", left, right, like=left)

    def valid(self, value: ir.Value) -> ir.Value:
        """``value`` (T, B, width) with zeros after the end of a sequence."""
        return value if self.mask is None else self.emit.masked(self.mask, value)

    def kept(self, value: ir.Value) -> ir.Value:
        """``value`` with ones after the end of a sequence, where a state stays what it is."""
        return (
            value if self.mask is None else self.emit.select(self.mask, value, self.emit.scalar(1.0, value), like=value)
        )

    # -- cells -------------------------------------------------------------------------------------------------

    def activated(self, function: Activation, x: ir.Value, emit: Emitter | None = None) -> ir.Value:
        """The activation function at ``x``, clipped first where the node says so."""
        emit = emit or self.emit
        if self.clip is not None:
            x = emit.op("Clip", x, emit.scalar(-self.clip, x), emit.scalar(self.clip, x), like=x)
        return function.value(emit, x)

    def slope(self, function: Activation, x: ir.Value, y: ir.Value) -> ir.Value:
        """Derivative of :meth:`activated` at ``x``, where the value is ``y``."""
        slope = function.slope(self.emit, y)
        if self.clip is None:
            return slope
        inside = self.emit.compare("LessOrEqual", self.emit.op("Abs", x, like=x), self.emit.scalar(self.clip, x))
        return self.emit.masked(inside, slope)

    def add_recurrent(self, emit: Emitter, dh: ir.Value, keep: ir.Value | None, product: ir.Value) -> ir.Value:
        """Cotangent of the hidden state before: ``product``, and dh itself where the step is beyond the sequence."""
        return product if keep is None else emit.op("Add", product, emit.op("Mul", dh, keep, like=dh), like=dh)

    def beyond(self) -> ir.Value | None:
        """(T, B, 1): one after the end of a sequence, else zero; None where all sequences have full length."""
        if self.mask is None:
            return None
        return self.emit.cast(self.emit.typed(ir.DataType.BOOL, "Not", self.mask), self.wide)

    # -- results -----------------------------------------------------------------------------------------------

    def results(self) -> list[ir.Value | None]:
        """Cotangents of all inputs, from what the runs hold."""
        call, emit, runs = self.call, self.emit, self.runs
        wanted = [*call.wanted, *[False] * (P + 1 - len(call.wanted))]
        answer: list[ir.Value | None] = [None] * len(wanted)
        if wanted[X]:
            parts = [emit.op("MatMul", run.d_pre, run.w, like=self.x) for run in runs]
            total = parts[0] if len(parts) == 1 else emit.op("Add", *parts, like=self.x)
            total = emit.op("Transpose", total, perm=[1, 0, 2]) if self.batch_first else total
            total.shape = None  # it may be that of the time-major form
            answer[X] = emit.cast(total, self.dtype)
        if wanted[W]:
            parts = [self.outer(run.d_pre, self.x_rows) for run in runs]
            answer[W] = self.join(parts, 0, call.input(W))
        if wanted[R]:
            answer[R] = self.join([run.d_r() for run in runs], 0, call.input(R))
        if wanted[B]:
            parts = [emit.op("Concat", _total(emit, run.d_pre), _total(emit, run.d_recurrent), axis=0) for run in runs]
            answer[B] = self.join(parts, 0, call.input(B))
        axis = 1 if self.batch_first else 0
        if wanted[INITIAL_H]:
            answer[INITIAL_H] = self.join([run.d_h0 for run in runs], axis, call.input(INITIAL_H))
        if wanted[INITIAL_C]:
            answer[INITIAL_C] = self.join([_given(run.d_c0) for run in runs], axis, call.input(INITIAL_C))
        if wanted[P]:
            answer[P] = self.join([_given(run.d_p) for run in runs], 0, call.input(P))
        return answer[: len(call.node.inputs)]

    def outer(self, cotangent: ir.Value, rows: ir.Value) -> ir.Value:
        """Cotangent (width, inputs) of a weight matrix: sum over all steps of cotangent times input."""
        return self.emit.op("Gemm", self.rows(cotangent), rows, transA=1)


class Run:
    """One direction of a layer: its weights, its states in time, and the cotangents that the rule finds."""

    d_pre: ir.Value
    """(T, B, G H): cotangent of X Wᵀ."""
    d_recurrent: ir.Value
    """(T, B, G H): cotangent of H Rᵀ."""
    d_h0: ir.Value
    """(B, H)"""
    d_c0: ir.Value | None = None
    d_p: ir.Value | None = None
    reset_rows: ir.Value | None = None
    """(T B, H): what R is applied to in the last gate of a GRU with linear_before_reset 0, r h."""

    def __init__(self, layer: Layer, index: int, backwards: bool, functions: list[Activation]) -> None:
        self.layer, self.index, self.backwards, self.functions = layer, index, backwards, functions
        call, emit = layer.call, layer.emit
        self.w = layer.direction(call.input(W), index, 0)
        self.r = layer.direction(call.input(R), index, 0)
        bias = call.optional(B)
        self.bias = None if bias is None else layer.direction(bias, index, 0)
        self.h0 = self.state(call.optional(INITIAL_H))
        y = call.node.outputs[0]
        if not y.name:  # the model itself does not use it
            y.name, y.type = emit.name("Y"), call.x.type
        self.y = self.sequence(y)
        self.before = self.shifted(self.y, self.h0)
        self.before_rows = layer.rows(self.before)

    # -- parts of inputs and outputs ---------------------------------------------------------------------------

    def sequence(self, value: ir.Value) -> ir.Value:
        """(T, B, H) of a value like the output Y."""
        layer = self.layer
        result = layer.time_major(layer.direction(value, self.index, 2 if layer.batch_first else 1))
        result.shape = ir.Shape([*(dims(layer.x) or (None, None))[:2], layer.hidden])
        return result

    def state(self, value: ir.Value | None) -> ir.Value:
        """(B, H) of a value like the output Y_h, which is zero where it is left out."""
        layer = self.layer
        if value is None:
            return layer.zeros()
        result = layer.direction(value, self.index, 1 if layer.batch_first else 0)
        result.shape = ir.Shape([(dims(layer.x) or (None, None))[1], layer.hidden])
        return result

    def d_sequence(self) -> ir.Value | None:
        """Cotangent (T, B, H) of this direction's part of Y."""
        dy = self.layer.call.cotangents[0]
        return None if dy is None else self.layer.valid(self.sequence(dy))

    def d_final(self, output: int) -> ir.Value:
        """Cotangent (B, H) of the last state that output ``output`` returns."""
        layer, cotangents = self.layer, self.layer.call.cotangents
        result = self.state(cotangents[output] if output < len(cotangents) else None)
        if layer.mask is None:
            return result
        # For a sequence of length zero ONNX Runtime returns zeros, not the initial state.
        lengths = layer.emit.cast(layer.call.input(LENGTHS), ir.DataType.INT64)
        some = layer.emit.compare("Greater", lengths, layer.emit.constant(0))
        return layer.emit.masked(layer.emit.op("Unsqueeze", some, layer.emit.ints(1)), result)

    def shifted(self, sequence: ir.Value, start: ir.Value) -> ir.Value:
        """(T, B, H): the state before each step."""
        emit, layer = self.layer.emit, self.layer
        first = emit.op("Unsqueeze", start, emit.ints(0))
        if not self.backwards:
            rest = emit.op("Slice", sequence, emit.ints(0), emit.ints(-1), emit.ints(0))
            return emit.op("Concat", first, rest, axis=0, like=sequence)
        if layer.mask is not None:  # the step after a sequence's last one holds zeros
            sequence = emit.select(layer.mask, sequence, first, like=sequence)
        rest = emit.op("Slice", sequence, emit.ints(1), emit.ints(END), emit.ints(0))
        return emit.op("Concat", rest, first, axis=0, like=sequence)

    # -- products over all steps -------------------------------------------------------------------------------

    def gates(self, value: ir.Value, first: int, last: int) -> ir.Value:
        """Rows of a weight matrix, or entries of a bias, that belong to gates ``first`` to ``last`` - 1."""
        h, emit = self.layer.hidden, self.layer.emit
        return emit.op("Slice", value, emit.ints(first * h), emit.ints(last * h), emit.ints(0))

    def from_input(self, first: int, last: int, *biases: ir.Value) -> ir.Value:
        """X Wᵀ plus biases for some gates, as rows."""
        emit = self.layer.emit
        bias = list(biases)
        while len(bias) > 1:
            bias[:2] = [emit.op("Add", bias[0], bias[1])]
        return emit.op("Gemm", self.layer.x_rows, self.gates(self.w, first, last), *bias, transB=1)

    def from_state(self, rows: ir.Value, first: int, last: int, addend: ir.Value | None) -> ir.Value:
        """H Rᵀ plus ``addend`` for some gates, as rows; ``rows`` are the states H."""
        inputs = [rows, self.gates(self.r, first, last), *([] if addend is None else [addend])]
        return self.layer.emit.op("Gemm", *inputs, transB=1)

    def biases(self, first: int, last: int, *, input_: bool = True, state: bool = True) -> list[ir.Value]:
        """The biases of some gates that go with the input, with the state, or both."""
        if self.bias is None:
            return []
        count = self.layer.call.input(R).shape
        gates = count[1] // self.layer.hidden if count is not None and isinstance(count[1], int) else None
        if gates is None:
            raise self.layer.call.unsupported("the shape of its input R is not known")
        chosen = [(0, input_), (gates, state)]
        return [self.gates(self.bias, first + offset, last + offset) for offset, use in chosen if use]

    def gate(self, index: int) -> ir.Value:
        """(T, B, H): X Wᵀ + H Rᵀ + biases of one gate."""
        rows = self.from_input(index, index + 1, *self.biases(index, index + 1))
        return self.layer.steps(self.from_state(self.before_rows, index, index + 1, rows), self.layer.hidden)

    def d_r(self) -> ir.Value:
        """Cotangent of R."""
        layer, emit = self.layer, self.layer.emit
        if self.reset_rows is None:
            return layer.outer(self.d_recurrent, self.before_rows)
        sizes = emit.ints(2 * layer.hidden, layer.hidden)
        gates, new = emit.multi("Split", [layer.rows(self.d_recurrent), sizes], 2, {"axis": 1})
        parts = [emit.op("Gemm", gates, self.before_rows, transA=1), emit.op("Gemm", new, self.reset_rows, transA=1)]
        return emit.op("Concat", *parts, axis=0)


def _total(emit: Emitter, value: ir.Value) -> ir.Value:
    return emit.op("ReduceSum", value, emit.ints(0, 1), keepdims=0)


def _given(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.FLOAT
