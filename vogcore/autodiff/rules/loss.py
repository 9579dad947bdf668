"""Losses that are part of the model."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.norm import wide


class _Targets(NamedTuple):
    """The classes that a loss looks at; both broadcast to (N, C, positions)."""

    hit: ir.Value
    """One at the target class of every position that counts, else zero."""
    share: ir.Value
    """What the loss of a position is multiplied by before the sum, weights included."""


@rule("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(call: Call) -> Cotangents:
    """y = -w_t x_t with the class t of each position, none where t is ignore_index; reduced as asked for.

    dx = -w_t dy at t and zero elsewhere, for the mean divided by the sum of all w_t. For the weights dw_t = -x_t dy,
    for the mean (-x_t - y) dy divided by that sum.
    """
    emit = call.emit
    kind = wide(call.x)
    targets = _targets(call, kind)
    results: list[ir.Value | None] = [None, None, None]
    if call.wanted[0]:
        results[0] = emit.cast(_scores(call, targets), call.x.dtype or ir.DataType.FLOAT)
    if call.optional(2) is not None and call.wanted[2]:
        results[2] = _weights(call, targets, emit.cast(call.x, kind))
    return results[: len(call.node.inputs)]


@rule("SoftmaxCrossEntropyLoss", all_outputs=True)
def softmax_cross_entropy_loss(call: Call) -> Cotangents:
    """The negative log-likelihood of l = log softmax(x) over axis 1: with dl the cotangent of l, which is the second
    output, dx = dl - exp(l) sum(dl).
    """
    emit, outputs = call.emit, call.node.outputs
    kind = wide(call.x)
    if len(outputs) < 2:
        call.node.resize_outputs(2)
    log_prob = call.node.outputs[1]
    if not log_prob.name:
        log_prob.name = emit.name("log_prob")
        log_prob.type, log_prob.shape = call.x.type, call.x.shape
    wide_log = emit.cast(log_prob, kind)
    results: list[ir.Value | None] = [None, None, None]
    parts: list[ir.Value] = []
    if call.cotangents[0] is not None:
        targets = _targets(call, kind)
        if call.wanted[0]:
            parts.append(_scores(call, targets))
        if call.optional(2) is not None and call.wanted[2]:
            results[2] = _weights(call, targets, wide_log)
    elif call.optional(2) is not None and call.wanted[2]:
        raise call.unsupported("its weights depend on the input, but only its log-probabilities are used")
    if call.wanted[0]:
        if len(call.cotangents) > 1 and call.cotangents[1] is not None:
            parts.append(emit.cast(call.cotangents[1], kind))
        dl = parts[0] if len(parts) == 1 else emit.op("Add", *parts)
        total = emit.op("ReduceSum", dl, emit.ints(1), keepdims=1)
        dx = emit.op("Sub", dl, emit.op("Mul", emit.op("Exp", wide_log), total))
        results[0] = emit.cast(dx, call.x.dtype or ir.DataType.FLOAT)
    return results[: len(call.node.inputs)]


def _targets(call: Call, kind: ir.DataType) -> _Targets:
    emit, target, n = call.emit, call.input(1), call.rank_of(call.x)
    column = emit.op("Unsqueeze", target, emit.ints(1))
    classes = emit.op("Reshape", emit.positions(call.x, 1), emit.ints(-1, *[1] * (n - 2)))
    column = emit.cast(column, ir.DataType.INT64)
    hit = emit.compare("Equal", column, classes)
    ignored = call.attribute("ignore_index")
    if ignored is not None:
        # It may be outside the classes, and then hits none of them anyway.
        counts = emit.typed(ir.DataType.BOOL, "Not", emit.compare("Equal", column, emit.constant(ignored)))
        hit = emit.typed(ir.DataType.BOOL, "And", hit, counts)
    hits = emit.cast(hit, kind)
    weights = call.optional(2)
    share = hits
    if weights is not None:
        by_class = emit.op("Reshape", emit.cast(weights, kind), emit.ints(-1, *[1] * (n - 2)))
        share = emit.op("Mul", hits, by_class)
    return _Targets(hits, share)


def _cotangent(call: Call, targets: _Targets) -> ir.Value:
    """The cotangent of each position's loss, (N, 1, positions) or of rank 0, in the type of the sums."""
    emit, kind = call.emit, targets.share.dtype or ir.DataType.FLOAT
    dy, reduction = emit.cast(call.dy, kind), call.attribute("reduction", "mean")
    if reduction == "none":
        return emit.op("Unsqueeze", dy, emit.ints(1))
    if reduction == "sum":
        return dy
    return emit.op("Div", dy, emit.op("ReduceSum", targets.share, keepdims=0))


def _scores(call: Call, targets: _Targets) -> ir.Value:
    """-w_t dy at the target class."""
    return call.emit.op("Mul", targets.share, call.emit.op("Neg", _cotangent(call, targets)), like=targets.share)


def _weights(call: Call, targets: _Targets, log_prob: ir.Value) -> ir.Value:
    """The cotangent of the classes' weights."""
    emit, n = call.emit, call.rank_of(call.x)
    loss = emit.op("Neg", log_prob)
    if call.attribute("reduction", "mean") == "mean":
        loss = emit.op("Sub", loss, emit.cast(call.y, log_prob.dtype or ir.DataType.FLOAT))
    each = emit.op("Mul", emit.op("Mul", targets.hit, loss), _cotangent(call, targets))
    total = emit.op("ReduceSum", each, emit.ints(0, *range(2, n)), keepdims=0)
    return emit.cast(total, call.input(2).dtype or ir.DataType.FLOAT)
