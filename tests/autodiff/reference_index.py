"""Operators that move numbers, for the reference evaluator: those that onnx does not have or gets wrong."""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_scatter_elements import scatter_elements


class GatherElements(OpRun):
    """onnx refuses indices that are smaller than the data along another axis."""

    def _run(self, data, indices, axis=0):
        at = list(np.indices(indices.shape))
        at[axis] = indices
        return (data[tuple(at)],)


class Scatter(OpRun):
    """The name of ScatterElements before opset 11; onnx does not have it."""

    def _run(self, data, indices, updates, axis=0):
        return (scatter_elements(data, indices, updates, axis=axis),)


class Pad(OpRun):
    """onnx fails for negative padding, which cuts."""

    def _run(self, data, pads, value=None, axes=None, mode="constant"):
        axes = list(range(data.ndim)) if axes is None else [int(axis) % data.ndim for axis in axes]
        place, widths = [slice(None)] * data.ndim, [(0, 0)] * data.ndim
        for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :]):
            place[axis] = slice(max(-before, 0), data.shape[axis] - max(-after, 0))
            widths[axis] = (max(before, 0), max(after, 0))
        fill = {"constant_values": 0.0 if value is None else value} if mode == "constant" else {}
        return (np.pad(data[tuple(place)], widths, mode=mode, **fill),)


INDEX_OPS: list[type[OpRun]] = [GatherElements, Scatter, Pad]
