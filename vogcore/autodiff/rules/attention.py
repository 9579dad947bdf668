"""Attention and rotary position embedding (opset 23 and newer)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.backward import unbroadcast
from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.linalg import transpose_last
from vogcore.autodiff.rules.shape import END
from vogcore.graph.shapes import dims, is_float, same_dim

_AFTER_SOFTMAX = 3
"""The qk_matmul_output_mode in which the fourth output is the probabilities."""

_LOWEST = float(np.finfo(np.float32).min)
_MINUS_INFINITY = float("-inf")

_HEADS_SECOND = [0, 2, 1, 3]
"""Permutation between (batch, position, head, feature) and (batch, head, position, feature); its own inverse."""


@rule("Attention", all_outputs=True)
def attention(call: Call) -> Cotangents:
    """O = P V, P = softmax(S + mask), S = softcap(scale Q Kᵀ), head by head (Vaswani et al. 2017, 3.2.1).

    dV = Pᵀ dO; dP = dO Vᵀ; dS = P (dP - sum(dO O)), which is dmask too (Dao et al. 2022, B.2); times 1 - (S / c)² with
    softcap c; dQ = scale dS K; dK = scale dSᵀ Q. Heads that share a key are summed. P is the operator's own fourth
    output for the CPU, and computed anew elsewhere.
    """
    if any(cotangent is not None for cotangent in call.cotangents[3:]):
        raise call.unsupported("its output qk_matmul_output lies between the input and the logits")
    emit, node = call.emit, _Attention(call)
    p, capped = node.probabilities()
    dy = node.grouped(node.alive(node.heads(call.dy, node.query_heads)), node.value_width)
    kind = ir.DataType.DOUBLE if node.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    results: list[ir.Value | None] = [None] * len(call.node.inputs)
    wanted = (*call.wanted, *[False] * 6)
    if wanted[2] or wanted[5]:
        dv = emit.op("MatMul", transpose_last(call, _rank4(p)), dy)
        node.hand_back(results, 2, dv, wanted)
    if not (wanted[0] or wanted[1] or wanted[3] or wanted[4]):
        return results
    dp = emit.cast(emit.op("MatMul", dy, transpose_last(call, _rank4(node.v))), kind)
    inner = emit.op("Sub", dp, node.grouped(node.delta(kind), 1))
    ds = emit.op("Mul", emit.cast(p, kind), inner)
    if wanted[3]:
        results[3] = node.mask_cotangent(ds)
    if capped is not None:
        slope = emit.op("Sub", emit.scalar(1.0, ds), emit.op("Mul", capped, capped))
        ds = emit.op("Mul", ds, slope)
    ds = emit.cast(ds, node.dtype)
    if wanted[0]:
        dq = node.ungrouped(emit.op("MatMul", ds, node.k), node.width)
        results[0] = node.merged(emit.op("Mul", dq, node.scale), call.x)
    if wanted[1] or wanted[4]:
        node.hand_back(results, 1, emit.op("MatMul", transpose_last(call, _rank4(ds)), node.scaled_q), wanted)
    return results


Size = int | ir.Value
"""A size: a number, or a vector of one element that is known when the model runs."""


def _rank4(value: ir.Value) -> ir.Value:
    if value.shape is None:
        value.shape = ir.Shape([None] * 4)
    return value


@dataclass
class _Masks:
    """What is added to the scores."""

    bias: ir.Value
    """Broadcasts to (batch, head, query, key); finite."""
    alive: ir.Value | None
    """(..., query, 1): one where a query may look at any key, else zero; None where every one may."""


class _Attention:
    """An Attention node with its heads apart.

    Data are (batch, key heads, positions, features); where several query heads share a key head, ``grouped`` stacks
    their positions, so that ordinary matrix products sum over them.
    """

    def __init__(self, call: Call) -> None:
        self.call, emit = call, call.emit
        self.emit = emit
        self.flat = call.rank_of(call.x) == 3
        q, k, v = (call.input(i) for i in range(3))
        self.dtype = q.dtype or ir.DataType.FLOAT
        if self.flat:
            self.query_heads: Size = call.attribute("q_num_heads")
            self.key_heads: Size = call.attribute("kv_num_heads")
            self.shared = self.query_heads != self.key_heads
        else:
            self.query_heads, self.key_heads = self.size(q, 1), self.size(k, 1)
            self.shared = not same_dim((dims(q) or [None] * 4)[1], (dims(k) or [None] * 4)[1])
        self.q = self.heads(q, self.query_heads)
        self.past = call.optional(4)
        if self.past is None:
            self.k, self.v = self.heads(k, self.key_heads), self.heads(v, self.key_heads)
        else:
            self.k, self.v = self.present(1), self.present(2)
        self.width, self.value_width = self.size(self.q, 3), self.size(self.v, 3)
        self.scale = self._scale()
        self.scaled_q = self.grouped(emit.op("Mul", self.q, self.scale, like=self.q), self.width)
        self.mask = call.optional(3)
        # With a softcap the scores have to be computed anyway.
        self.own = None if call.attribute("softcap", 0.0) else self._own_probabilities()
        self._masks: _Masks | None = None
        self._masks_made = False

    # -- shapes --------------------------------------------------------------------------------------------------

    def size(self, value: ir.Value, axis: int) -> Size:
        known = (dims(value) or [None] * 4)[axis]
        return known if isinstance(known, int) else self.emit.dim(value, axis)

    def target(self, *sizes: Size) -> ir.Value:
        """A shape for Reshape."""
        if all(isinstance(size, int) for size in sizes):
            return self.emit.ints(*(size for size in sizes if isinstance(size, int)))
        parts = [self.emit.ints(size) if isinstance(size, int) else size for size in sizes]
        return self.emit.op("Concat", *parts, axis=0)

    def split(self, value: ir.Value, heads: Size) -> ir.Value:
        """(batch, position, heads x features) as (batch, position, head, feature)."""
        result = self.emit.op("Reshape", value, self.target(0, 0, heads, -1))
        batch, length, features = dims(value) or [None] * 3
        known = isinstance(features, int) and isinstance(heads, int)
        result.shape = ir.Shape(
            [batch, length, heads if isinstance(heads, int) else None, features // heads if known else None]  # type: ignore[operator]
        )
        return result

    def heads(self, value: ir.Value, heads: Size) -> ir.Value:
        """Data of the node as (batch, head, position, feature)."""
        return self.swapped(self.split(value, heads)) if self.flat else value

    def swapped(self, value: ir.Value) -> ir.Value:
        result = self.emit.op("Transpose", value, perm=_HEADS_SECOND)
        if (sizes := dims(value)) is not None:
            result.shape = ir.Shape([sizes[axis] for axis in _HEADS_SECOND])
        return result

    def merged(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """(batch, head, position, feature) in the shape of an input of the node."""
        return self.emit.reshape_like(self.swapped(value), like) if self.flat else value

    def present(self, index: int) -> ir.Value:
        """Keys (1) or values (2), the cached ones first: an output of the node, which ONNX Runtime requires then."""
        node = self.call.node
        if len(node.outputs) < 3:
            node.resize_outputs(3)
        result = node.outputs[index]
        if not result.name:
            result.name = self.emit.name("present")
            result.type = ir.TensorType(self.dtype)
        return result

    def grouped(self, value: ir.Value, width: Size) -> ir.Value:
        """(batch, query head, query, ...) as (batch, key head, queries of all its heads, ...)."""
        return self.emit.op("Reshape", value, self.target(0, self.key_heads, -1, width)) if self.shared else value

    def ungrouped(self, value: ir.Value, width: Size) -> ir.Value:
        return self.emit.op("Reshape", value, self.target(0, self.query_heads, -1, width)) if self.shared else value

    def _scale(self) -> ir.Value:
        given = self.call.attribute("scale")
        if given is not None or isinstance(self.width, int):
            return self.emit.scalar(given if given is not None else float(self.width) ** -0.5, self.q)  # type: ignore[arg-type]
        root = self.emit.op("Sqrt", self.emit.cast(self.emit.as_scalar(self.width), self.dtype))
        return self.emit.op("Reciprocal", root)

    # -- probabilities -------------------------------------------------------------------------------------------

    def probabilities(self) -> tuple[ir.Value, ir.Value | None]:
        """P, grouped; and tanh(S / softcap) where there is a softcap."""
        if self.own is not None:
            return self.grouped(self.own, self.size(self.k, 2)), None
        emit, softcap = self.emit, self.call.attribute("softcap", 0.0)
        scores = emit.op("MatMul", self.scaled_q, transpose_last(self.call, _rank4(self.k)))
        half = self.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        scores = emit.cast(scores, ir.DataType.FLOAT if half else self.dtype)
        capped = None
        if softcap:
            cap = emit.scalar(softcap, scores)
            capped = emit.op("Tanh", emit.op("Div", scores, cap))
            scores = emit.op("Mul", capped, cap)
        masks = self.masks()
        if masks is not None:
            keys = self.size(self.k, 2)
            wide = emit.op("Add", self.ungrouped(scores, keys), emit.cast(masks.bias, scores.dtype or self.dtype))
            scores = self.grouped(wide, keys)
        return emit.cast(emit.op("Softmax", scores, axis=-1), self.dtype), capped

    def _own_probabilities(self) -> ir.Value | None:
        """The fourth output of the forward node, where it is or can be made the probabilities."""
        node = self.call.node
        outputs = node.outputs
        mode = self.call.attribute("qk_matmul_output_mode", 0)
        if len(outputs) > 3 and outputs[3].name and mode == _AFTER_SOFTMAX:
            return outputs[3]
        # The CUDA provider has faster kernels without that output, and ONNX infers a wrong shape for it with a cache.
        taken = len(outputs) > 3 and outputs[3].name
        if taken or self.past is not None or self.call.options.lowering != "cpu":
            return None
        node.resize_outputs(4)
        for index in (1, 2):
            node.outputs[index].name = node.outputs[index].name or ""
        node.attributes["qk_matmul_output_mode"] = ir.AttrInt64("qk_matmul_output_mode", _AFTER_SOFTMAX)
        p = node.outputs[3]
        p.name = self.emit.name("probabilities")
        p.type = ir.TensorType(self.dtype)
        return p

    def delta(self, kind: ir.DataType) -> ir.Value:
        """sum(dO O) over features, (batch, query head, query, 1)."""
        emit, call = self.emit, self.call
        product = emit.op("Mul", emit.cast(call.dy, kind), emit.cast(call.y, kind), like=call.y)
        product.type = ir.TensorType(kind)
        apart = self.split(product, self.query_heads) if self.flat else product
        total = emit.op("ReduceSum", apart, emit.ints(-1), keepdims=1)
        return self.swapped(total) if self.flat else total

    def alive(self, dy: ir.Value) -> ir.Value:
        """``dy`` without the queries that may look at no key; their output is zero whatever the input is."""
        if self.own is not None or (masks := self.masks()) is None or masks.alive is None:
            return dy
        return self.emit.op("Mul", dy, self.emit.cast(masks.alive, self.dtype))

    # -- masks ---------------------------------------------------------------------------------------------------

    def masks(self) -> _Masks | None:
        if not self._masks_made:
            self._masks, self._masks_made = self._make_masks(), True
        return self._masks

    def _make_masks(self) -> _Masks | None:
        emit = self.emit
        kind = ir.DataType.DOUBLE if self.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
        nothing = emit.constant(np.asarray(_MINUS_INFINITY), kind)
        zero = emit.constant(np.asarray(0.0), kind)
        raw = None if self.mask is None else self._padded(self.mask, kind, zero, nothing)
        allowed, always = self._allowed()
        if raw is None and allowed is None:
            return None
        if allowed is not None:
            raw = emit.op("Where", allowed, zero if raw is None else raw, nothing)
            raw.type = ir.TensorType(kind)
        assert raw is not None
        bias = emit.op("Max", raw, emit.constant(np.asarray(_LOWEST), kind))
        if self.mask is None and always:
            return _Masks(bias, None)
        best = emit.op("ReduceMax", raw, emit.ints(-1), keepdims=1)
        return _Masks(bias, emit.compare("Greater", best, nothing))

    def _padded(self, mask: ir.Value, kind: ir.DataType, zero: ir.Value, nothing: ir.Value) -> ir.Value:
        """The mask as numbers to add, filled up with minus infinity to the number of keys."""
        emit = self.emit
        raw = emit.cast(mask, kind) if is_float(mask) else emit.op("Where", mask, zero, nothing)
        raw.type = ir.TensorType(kind)
        have, need = self.size(mask, -1), self.size(self.k, 2)
        if have == need:
            return raw
        if isinstance(have, int) and isinstance(need, int):
            missing = emit.ints(need - have)
        else:
            missing = emit.op("Sub", *(emit.ints(n) if isinstance(n, int) else n for n in (need, have)))
        pads = emit.op("Concat", emit.ints(0), missing, axis=0)
        return emit.op("Pad", raw, pads, nothing, emit.ints(-1))

    def _allowed(self) -> tuple[ir.Value | None, bool]:
        """Which query may look at which key by their positions; and whether every query then has a key."""
        emit, call = self.emit, self.call
        lengths = call.optional(6)
        causal = bool(call.attribute("is_causal", 0))
        left, right = call.attribute("left_window_size", -1), call.attribute("right_window_size", -1)
        keys = emit.positions(self.k, 2)
        conditions: list[ir.Value] = []
        if causal or left >= 0 or right >= 0:
            queries = emit.op("Unsqueeze", emit.positions(self.q, 2), emit.ints(1))
            ahead = emit.op("Sub", keys, emit.op("Add", queries, self._offset(lengths)))  # (..., query, key)
            if causal:
                conditions.append(emit.compare("LessOrEqual", ahead, emit.constant(0)))
            if left >= 0:
                conditions.append(emit.compare("GreaterOrEqual", ahead, emit.constant(-left)))
            if right >= 0:
                conditions.append(emit.compare("LessOrEqual", ahead, emit.constant(right)))
        if lengths is not None:
            conditions.append(emit.compare("Less", keys, emit.op("Reshape", lengths, emit.ints(-1, 1, 1, 1))))
        if not conditions:
            return None, True
        result = conditions[0]
        for condition in conditions[1:]:
            result = emit.typed(ir.DataType.BOOL, "And", result, condition)
        return result, lengths is None and left < 0 and right < 0

    def _offset(self, lengths: ir.Value | None) -> ir.Value:
        """Number of keys in front of the first query."""
        emit = self.emit
        if self.past is not None:
            return emit.dim(self.past, 2)
        if lengths is None:
            return emit.constant(0)
        return emit.op("Sub", emit.op("Reshape", lengths, emit.ints(-1, 1, 1, 1)), emit.dim(self.q, 2))

    def mask_cotangent(self, ds: ir.Value) -> ir.Value:
        """``ds``, grouped, summed to the shape of the mask."""
        emit, mask = self.emit, self.call.input(3)
        whole = self.ungrouped(ds, self.size(self.k, 2))
        cut = emit.op("Slice", whole, emit.ints(0), emit.dim(mask, -1), emit.ints(-1))
        return emit.cast(unbroadcast(emit, cut, cut, emit.cast(mask, ds.dtype or self.dtype)), mask.dtype or self.dtype)

    # -- keys and values -----------------------------------------------------------------------------------------

    def hand_back(self, results: list[ir.Value | None], index: int, value: ir.Value, wanted: tuple[bool, ...]) -> None:
        """Give the cotangent of all keys (``index`` 1) or values (2) to the input and to what was cached before it."""
        emit, call = self.emit, self.call
        present = call.cotangents[index] if index < len(call.cotangents) else None
        if present is not None:
            value = emit.op("Add", value, present)
        own, before = call.input(index), call.optional(index + 3)
        if before is None:
            results[index] = self.merged(value, own)
            return
        length = emit.dim(before, 2)
        if wanted[index]:
            new = emit.op("Slice", value, length, emit.ints(END), emit.ints(2))
            results[index] = self.merged(new, own)
        if wanted[index + 3]:
            results[index + 3] = emit.op("Slice", value, emit.ints(0), length, emit.ints(2))


@rule("RotaryEmbedding")
def rotary_embedding(call: Call) -> Cotangents:
    """Pairs of features are turned by an angle that depends on the position (Su et al. 2021, 3.2.2): dx is dy turned
    back, which is the same operator with -sin.
    """
    if any(call.wanted[1:]):
        raise call.unsupported("its cos_cache or sin_cache depends on the input, and only gradients for X are known")
    emit, node = call.emit, call.node
    inputs = [call.dy, call.input(1), emit.op("Neg", call.input(2), like=call.input(2)), *node.inputs[3:]]
    (dx,) = emit.multi("RotaryEmbedding", inputs, 1, node.attributes)
    return [dx]
