"""The gradient averaged over its channels inside the graph: all that the score needs, and cheaper than the whole."""

from __future__ import annotations

import onnx_ir as ir

from vogcore.errors import SettingsError
from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import dims

__all__ = ["choose_channel_axis", "is_read_by_one_convolution", "mean_over"]


def choose_channel_axis(source: ir.Value, given: int | None) -> int:
    """The axis of ``source`` that holds the channels: the given one, or for rank 4 axis 1 or the last, if at most 4.

    Raises:
        SettingsError: there is no such axis, or it cannot be told.
    """
    sizes = dims(source)
    shown = "unknown shape" if sizes is None else f"shape ({', '.join('?' if s is None else str(s) for s in sizes)})"
    if sizes is None or len(sizes) < 2:
        raise SettingsError(f"{source.name!r} has {shown} and no channels to average over; leave channels='mean' out.")
    if given is not None:
        if not -len(sizes) < given < len(sizes) or given == 0:
            raise SettingsError(f"channel_axis={given} is no channel axis of {source.name!r}, which has {shown}.")
        return given % len(sizes)
    for axis in (1, len(sizes) - 1):
        size = sizes[axis]
        if len(sizes) == 4 and isinstance(size, int) and size <= 4:
            return axis
    raise SettingsError(
        f"Which axis of {source.name!r} holds the channels cannot be told from its {shown}; give channel_axis."
    )


def is_read_by_one_convolution(source: ir.Value) -> bool:
    """Whether the values of ``source`` go into the data input of one Conv and nowhere else.

    The mean over the channels then folds into the weights of that convolution's adjoint (rules/conv.py).
    """
    uses = [use for use in source.uses() if use.node.op_type not in ("Shape", "Size")]
    return len(uses) == 1 and uses[0].node.op_type == "Conv" and uses[0].idx == 0 and not source.is_graph_output()


def mean_over(emit: Emitter, gradient: ir.Value, axis: int) -> ir.Value:
    """The mean of ``gradient`` over ``axis``, which is dropped; where it is one long, that is all there is to do."""
    sizes = dims(gradient)
    if sizes is not None and sizes[axis] == 1:  # averaged by the rule of the first convolution, or an image in grey
        result = emit.op("Squeeze", gradient, emit.ints(axis))
    else:
        result = emit.op("ReduceMean", gradient, emit.ints(axis), keepdims=0)
    if sizes is not None:
        result.shape = ir.Shape([size for place, size in enumerate(sizes) if place != axis])
    return result
