"""What is differentiated: the cotangent of the logits for each choice of ``of``.

With z the logits (N, C), p = softmax(z), y the target class and e_y its one-hot row:

=================  =================================  ==========================
of                 scalar of one example              cotangent of z
=================  =================================  ==========================
logit              z_y (Agarwal et al. 2022, eq. 1)   e_y
centred-logit      z_y - mean_c z_c                   e_y - 1/C
margin             z_y - max over c != y of z_c       e_y - e_argmax
probability        p_y                                p_y (e_y - p)
log-probability    log p_y                            e_y - p
loss               -log p_y                           p - e_y
=================  =================================  ==========================

Evaluation mode keeps the examples of a batch apart, so one backward pass gives every example its own gradient.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vogcore.graph.emit import Emitter

__all__ = ["seed"]


def seed(emit: Emitter, of: str, logits: ir.Value, target: ir.Value) -> ir.Value:
    """Cotangent (N, C) of the logits for the quantity ``of`` at the class indices ``target`` (N,) int64."""
    emit.scope = f"vogcore/{of}"
    chosen = _one_hot(emit, logits, target)
    if of == "logit":
        return chosen
    if of == "centred-logit":
        count = emit.cast(emit.as_scalar(emit.dim(logits, 1)), logits.dtype or ir.DataType.FLOAT)
        return emit.op("Sub", chosen, emit.op("Reciprocal", count), like=logits)
    if of == "margin":
        # The target's own logit is taken out of the competition by the most negative finite number.
        lowest = emit.scalar(float(np.finfo(_numpy_type(logits)).min), logits)
        is_target = emit.cast(chosen, ir.DataType.BOOL)
        others = emit.select(is_target, lowest, logits, like=logits)
        best = emit.typed(ir.DataType.INT64, "ArgMax", others, axis=1, keepdims=0)
        return emit.op("Sub", chosen, _one_hot(emit, logits, best), like=logits)
    probabilities = emit.op("Softmax", logits, axis=-1, like=logits)
    if of == "loss":
        return emit.op("Sub", probabilities, chosen, like=logits)
    difference = emit.op("Sub", chosen, probabilities, like=logits)
    if of == "log-probability":
        return difference
    picked = emit.op("Mul", probabilities, chosen, like=logits)
    probability = emit.op("ReduceSum", picked, emit.ints(1), keepdims=1)
    return emit.op("Mul", probability, difference, like=logits)


def _one_hot(emit: Emitter, logits: ir.Value, target: ir.Value) -> ir.Value:
    # Equal against 0..C-1 rather than OneHot, which the CPU provider lacks for some types.
    column = emit.op("Unsqueeze", target, emit.ints(1))
    hit = emit.compare("Equal", column, emit.positions(logits, 1))
    hit.shape = logits.shape
    result = emit.cast(hit, logits.dtype or ir.DataType.FLOAT)
    emit.one_hots[result] = target
    return result


def _numpy_type(value: ir.Value) -> np.dtype:
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    return np.dtype(dtype) if np.dtype(dtype).kind == "f" else np.dtype(np.float32)
