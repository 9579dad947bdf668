"""Which class, or which part of an output, is differentiated."""

from __future__ import annotations

import operator
from typing import TypeAlias

import onnx_ir as ir

from vogcore.autodiff import OUTPUT, head
from vogcore.errors import ModelError, SettingsError
from vogcore.graph.emit import Emitter
from vogcore.graph.names import TARGET
from vogcore.graph.shapes import dims, rank

__all__ = ["SUM", "TARGETS", "Target", "choose_target", "output_seed", "target_classes"]

TARGETS = ("input", "predicted")
"""How the class of an example is found, beside a class index that is the same for all of them."""

SUM = "sum"
"""All numbers of an example's output, with ``of="output"``."""

Target: TypeAlias = str | int | None


def choose_target(of: str, target: Target) -> str | int:
    """The target with its default filled in: ``"input"``, ``"predicted"``, ``"sum"`` or a class index.

    Raises:
        SettingsError: it is none of them, or does not go with ``of``.
    """
    if target is None:
        return SUM if of == OUTPUT else "input"
    if isinstance(target, str):
        if target == SUM and of != OUTPUT:
            raise SettingsError(f"target='sum' adds up an output as it is; give of='output' with it, not of={of!r}.")
        if target in (*TARGETS, SUM):
            return target
    elif not isinstance(target, bool) and hasattr(target, "__index__") and operator.index(target) >= 0:
        return operator.index(target)
    raise SettingsError(
        f"target={target!r} is not known; choose 'input', 'predicted', the index of a class counted from 0, or, with "
        "of='output', 'sum'."
    )


def target_classes(emit: Emitter, scores: ir.Value, target: str | int, source: ir.Value) -> ir.Value:
    """Class index of every example (N,) int64, for scores (N, C).

    Raises:
        ModelError: the scores have no such class.
    """
    if target == "input":
        batch = _batch(scores) or _batch(source)
        value = ir.Value(name=TARGET, shape=ir.Shape([batch]), type=ir.TensorType(ir.DataType.INT64))
        emit.graph.inputs.append(value)
        return value
    emit.scope = "vogcore/target"
    if target == "predicted":
        return emit.typed(ir.DataType.INT64, "ArgMax", scores, axis=1, keepdims=0)
    sizes = dims(scores)
    count = sizes[1] if sizes is not None else None
    if isinstance(count, int) and int(target) >= count:
        raise ModelError(f"target={target} is no class of {scores.name!r}, which has the classes 0 to {count - 1}.")
    index = emit.ints(int(target))
    if not isinstance(count, int):
        # Read from the list of classes: an index that does not exist then fails when the model runs.
        index = emit.op("Gather", emit.positions(scores, 1), index, axis=0)
    return emit.op("Expand", index, emit.dim(scores, 0))


def output_seed(emit: Emitter, value: ir.Value, target: str | int, source: ir.Value) -> ir.Value:
    """Cotangent of an output that is taken as it is: ones, or one column of (N, D).

    Raises:
        ModelError: a column is asked for, and the output has none.
    """
    if target != SUM:
        if rank(value) != 2:
            sizes = dims(value)
            shown = ", ".join("?" if s is None else str(s) for s in sizes) if sizes is not None else "unknown"
            raise ModelError(
                f"target={target!r} chooses a column of an output (N, D), but {value.name!r} has shape ({shown}); "
                "leave the target out to add up an example's numbers, or give a cotangent of your own "
                "(vogcore.vjp_model)."
            )
        return head.seed(emit, "logit", value, target_classes(emit, value, target, source))
    emit.scope = f"vogcore/{OUTPUT}"
    ones = emit.filled(emit.shape(value), 1.0, value.dtype or ir.DataType.FLOAT)
    ones.shape = value.shape
    return ones


def _batch(value: ir.Value) -> int | str | None:
    sizes = dims(value)
    return sizes[0] if sizes else None
