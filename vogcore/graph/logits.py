"""Find the pre-softmax logits of a classifier."""

from __future__ import annotations

from typing import NamedTuple

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from vogcore.errors import ModelError
from vogcore.graph.emit import Emitter
from vogcore.graph.load import ModelLike, load_model
from vogcore.graph.prepare import node_name, prepare
from vogcore.graph.probabilities import logits_behind
from vogcore.graph.shapes import dims, is_float, rank

__all__ = ["Head", "choose_output", "find_logits", "logits_model"]

# Ops between a softmax and the output that move or rename numbers, or round them.
_TRANSPARENT = {
    "Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip


class Head(NamedTuple):
    """The end of a classifier."""

    logits: ir.Value
    """Pre-softmax scores; shape (N, C), or (N, C, 1, ...)."""
    softmax: str | None
    """"Softmax", "LogSoftmax" or "Sigmoid" where the model ends in probabilities that such an operator (or the same
    arithmetic in several) makes of the logits, else None."""


def choose_output(graph: ir.Graph, output: str | None) -> ir.Value:
    """The output that holds the class scores: the named one, or the only floating-point one."""
    names = [value.name for value in graph.outputs]
    if output is not None:
        for value in graph.outputs:
            if value.name == output:
                if value.type is not None and not is_float(value):
                    raise ModelError(
                        f"The output {output!r} has type {str(value.dtype).lower()}, but class scores are "
                        f"floating-point numbers; choose another output (outputs: {_listed(names)})."
                    )
                return value
        raise ModelError(f"The model has no output {output!r}; its outputs are {_listed(names)}.")
    floats = [value for value in graph.outputs if is_float(value)]
    if len(floats) == 1:
        return floats[0]
    if not floats:
        raise ModelError(
            f"No output of the model has a floating-point type (outputs: {_listed(names)}); export the class scores, "
            "not only the predicted class."
        )
    raise ModelError(
        f"The model has {len(floats)} floating-point outputs ({_listed([v.name for v in floats])}); "
        "choose the one with the class scores (output=..., on the command line --output-name)."
    )


def find_logits(graph: ir.Graph, output: str | None = None) -> Head:
    """Find the logits: the chosen output, or what goes into its trailing Softmax or LogSoftmax.

    The paper differentiates the score *before* the softmax (Agarwal et al. 2022, section 3), so a softmax at the end
    of an exported model is looked through. A Reshape, Flatten, Cast or the like after it does not hide it. So are the
    other ways of writing a softmax, and a sigmoid that stands for two classes, see
    :mod:`vogcore.graph.probabilities`; the logits may then be new values at the end of the graph.
    """
    value = choose_output(graph, output)
    scores = value
    while (node := value.producer()) is not None and node.domain in ("", "ai.onnx"):
        if node.op_type in ("Softmax", "LogSoftmax"):
            logits = node.inputs[0]
            if logits is None or not _normalises_classes(node, logits):
                break
            _require_classes(scores, scores.name or "output")  # (batch * tokens, C) may hide behind a Reshape
            return Head(_require_classes(logits, node_name(node)), node.op_type)
        behind = logits_behind(graph, value)
        if behind is not None:
            return Head(_require_classes(behind[0], node_name(node)), behind[1])
        if node.op_type not in _TRANSPARENT or node.inputs[0] is None:
            break
        value = node.inputs[0]
    return Head(_require_classes(scores, scores.name or "output"), None)


def flatten_classes(emit: Emitter, logits: ir.Value) -> ir.Value:
    """Logits as (N, C): trailing axes of size one are dropped."""
    if rank(logits) == 2:
        return logits
    result = emit.op("Flatten", logits, axis=1)
    sizes = dims(logits)
    if sizes is not None:
        result.shape = ir.Shape(sizes[:2])
    return result


def logits_model(model: ModelLike, output: str | None = None) -> onnx.ModelProto:
    """The forward model with the pre-softmax logits (N, C) as its only output.

    Raises:
        ModelError: the model cannot be read, or which output to use is not clear.
    """
    prepared = prepare(load_model(model))
    graph = prepared.graph
    head = find_logits(graph, output)
    logits = flatten_classes(Emitter(graph), head.logits)
    graph.outputs.clear()
    graph.outputs.append(logits)
    passes.RemoveUnusedNodesPass()(prepared)
    return ir.to_proto(prepared)


def _normalises_classes(node: ir.Node, logits: ir.Value) -> bool:
    """True when the softmax runs over the class axis (axis 1, which may also be the last)."""
    attribute = node.attributes.get("axis")
    axis = attribute.as_int() if attribute is not None else -1
    known = rank(logits)
    return axis == 1 or (known is not None and axis % known == 1) or (known is None and axis == -1)


def _require_classes(logits: ir.Value, where: str) -> ir.Value:
    sizes = dims(logits)
    if sizes is None:
        return logits
    if len(sizes) < 2 or any(size != 1 for size in sizes[2:]):
        shown = ", ".join("?" if size is None else str(size) for size in sizes)
        raise ModelError(
            f"The class scores at {where!r} have shape ({shown}), but a classifier gives one row of scores for each "
            "example, (N, C); choose another output or pool it before exporting."
        )
    return logits


def _listed(names: list[str | None]) -> str:
    return ", ".join(repr(name) for name in names)
