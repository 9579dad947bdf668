"""Logits of a classifier that ends in probabilities without a Softmax operator: numbers whose softmax they are.

==============================================================  ======================
the model's probabilities                                       logits
==============================================================  ======================
(1 - s, s) with s = sigmoid(z), or s alone                      (-z/2, z/2)
e / sum(e) with e = exp(z), or exp(z - max z)                   z
exp(z - log sum exp z)                                          z
s / sum(s) with s = sigmoid(z), one z for each class            log s
==============================================================  ======================

Only the first and the last leave a choice, which adds the same number to all logits of an example and so changes
nothing but ``of="logit"`` (docs/decisions.md).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import constant, dims, rank

__all__ = ["logits_behind"]

_KEEPS_SIGN = {"Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
_NEVER_ZERO = {"Exp", "Sigmoid", "Softmax"}


def logits_behind(graph: ir.Graph, value: ir.Value) -> tuple[ir.Value, str] | None:
    """Logits of the probabilities ``value``, and the operator that made them; nodes for them go to the graph's end.

    Returns:
        None where ``value`` is not one of the forms of the table.
    """
    emit = Emitter(graph)
    emit.scope = "vogcore/logits"
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Concat":
        return _complementary(emit, node)
    if node.op_type == "Div" and (found := _normalised(emit, node)) is not None:
        return found
    if node.op_type == "Exp":
        return _log_normalised(node)
    sizes = dims(value)
    if sizes is not None and len(sizes) == 2 and sizes[1] == 1:
        z = _logistic_argument(emit, value)
        return None if z is None else (_two_classes(emit, z, False), "Sigmoid")
    return None


def _complementary(emit: Emitter, node: ir.Node) -> tuple[ir.Value, str] | None:
    """(1 - s, s) or (s, 1 - s), side by side."""
    if len(node.inputs) != 2 or node.attributes["axis"].as_int() not in (1, -1):
        return None
    first, second = node.inputs
    for other, s, turned in ((first, second, False), (second, first, True)):
        rest = _made_by(other, "Sub")
        if s is None or rest is None or rest.inputs[1] is not s or not _is_number(rest.inputs[0], 1.0):
            continue
        sizes = dims(s)
        z = _logistic_argument(emit, s) if sizes is not None and len(sizes) == 2 and sizes[1] == 1 else None
        if z is not None:
            return _two_classes(emit, z, turned), "Sigmoid"
    return None


def _two_classes(emit: Emitter, z: ir.Value, turned: bool) -> ir.Value:
    half = emit.op("Mul", z, emit.scalar(0.5, z), like=z)
    other = emit.op("Neg", half, like=z)
    result = emit.op("Concat", *((half, other) if turned else (other, half)), axis=1)
    sizes = dims(z)
    result.shape = ir.Shape([sizes[0] if sizes else None, 2])
    return result


def _normalised(emit: Emitter, node: ir.Node) -> tuple[ir.Value, str] | None:
    """s / sum(s), also where a guard replaces a row of zeros."""
    top, bottom = _without_guard(node.inputs[0]), _without_guard(node.inputs[1])
    total = _made_by(bottom, "ReduceSum")
    if top is None or total is None or not _over_classes(total):
        return None
    summed = total.inputs[0]
    if (magnitude := _made_by(summed, "Abs")) is not None:
        summed = magnitude.inputs[0]
    if summed is not top:
        return None
    if (power := _made_by(top, "Exp")) is not None:
        exponent = power.inputs[0]
        shift = _made_by(exponent, "Sub")
        largest = None if shift is None else _made_by(shift.inputs[1], "ReduceMax")
        if shift is not None and largest is not None and largest.inputs[0] is shift.inputs[0]:
            exponent = shift.inputs[0]
        return None if exponent is None else (exponent, "Softmax")
    z = _logistic_argument(emit, top)
    if z is not None:  # log sigmoid(z) = -softplus(-z), which does not underflow
        inner = emit.op("Softplus", emit.op("Neg", z, like=z), like=z)
        return emit.op("Neg", inner, like=z), "Sigmoid"
    if _is_positive(top):
        return emit.op("Log", top, like=top), "Sigmoid"
    return None


def _log_normalised(node: ir.Node) -> tuple[ir.Value, str] | None:
    """exp(z - log sum exp z)."""
    difference = _made_by(node.inputs[0], "Sub")
    if difference is None or difference.inputs[0] is None:
        return None
    subtracted = difference.inputs[1]
    while (moved := _made_by(subtracted, "Reshape", "Unsqueeze")) is not None:
        subtracted = moved.inputs[0]
    total = _made_by(subtracted, "ReduceLogSumExp")
    if total is None or total.inputs[0] is not difference.inputs[0] or not _over_classes(total):
        return None
    return difference.inputs[0], "Softmax"


def _logistic_argument(emit: Emitter, value: ir.Value) -> ir.Value | None:
    """z where ``value`` is sigmoid(z), also spelled 1 / (1 + exp(-z))."""
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Sigmoid":
        return node.inputs[0]
    if node.op_type == "Reciprocal":
        bottom = node.inputs[0]
    elif node.op_type == "Div" and _is_number(node.inputs[0], 1.0):
        bottom = node.inputs[1]
    else:
        return None
    total = _made_by(bottom, "Add")
    if total is None:
        return None
    for one, other in (total.inputs, reversed(total.inputs)):
        power = _made_by(other, "Exp")
        if power is None or not _is_number(one, 1.0) or power.inputs[0] is None:
            continue
        negative = power.inputs[0]
        if (neg := _made_by(negative, "Neg")) is not None:
            return neg.inputs[0]
        if (mul := _made_by(negative, "Mul")) is not None and _is_number(mul.inputs[1], -1.0):
            return mul.inputs[0]
        return emit.op("Neg", negative, like=negative)
    return None


def _without_guard(value: ir.Value | None) -> ir.Value | None:
    """What a guard against division by zero lets through: u in u + mask, or in Where(condition, number, u)."""
    if (total := _made_by(value, "Add")) is not None:
        for kept, added in (total.inputs, reversed(total.inputs)):
            if _is_mask(added):
                return kept
    if (choice := _made_by(value, "Where")) is not None and constant(choice.inputs[1]) is not None:
        return choice.inputs[2]
    return value


def _is_mask(value: ir.Value | None) -> bool:
    """A truth value as a number, possibly times a constant."""
    while (product := _made_by(value, "Mul")) is not None and constant(product.inputs[1]) is not None:
        value = product.inputs[0]
    cast = _made_by(value, "Cast")
    return cast is not None and cast.inputs[0] is not None and cast.inputs[0].dtype == ir.DataType.BOOL


def _is_positive(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _KEEPS_SIGN:
        return all(_is_positive(v) for v in (node.inputs if node.op_type == "Concat" else node.inputs[:1]))
    return node.op_type in _NEVER_ZERO


def _over_classes(node: ir.Node) -> bool:
    """A reduction over axis 1, where the data are (N, C)."""
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    data = node.inputs[0]
    if axes is None or axes.size != 1 or data is None:
        return False
    known = rank(data)
    return int(axes.reshape(-1)[0]) in ((1,) if known != 2 else (1, -1))


def _made_by(value: ir.Value | None, *ops: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in ops and node.domain in ("", "ai.onnx") else None


def _is_number(value: ir.Value | None, number: float) -> bool:
    known = constant(value)
    return known is not None and known.size == 1 and bool(np.all(known == number))
