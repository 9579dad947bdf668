"""Operators that move numbers, for the reference evaluator: those that onnx does not have or gets wrong."""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_resize, op_roi_align
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


class Upsample(OpRun):
    """onnx has the nearest pixel and whole scales only; output pixel o comes from o / scale."""

    def _run(self, x, scale=None, mode="nearest", scales=None):
        for axis, factor in enumerate(scale if scales is None else scales):
            size = x.shape[axis]
            at = np.arange(int(size * factor)) / factor
            low = np.floor(at).astype(int)
            high = np.minimum(low + 1, size - 1)
            part = (at - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)]) if mode == "linear" else 0.0
            x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
        return (x,)


class Resize(OpRun):
    """onnx does not know the form of opset 10, with scales as its second and last input."""

    def _run(self, x, roi=None, scales=None, sizes=None, **attributes):
        if scales is not None or sizes is not None:
            return op_resize.Resize._run(self, x, roi, scales, sizes, **attributes)
        for axis, scale in enumerate(roi):
            factors = [scale if a == axis else 1 for a in range(x.ndim)]
            if attributes["mode"] == "nearest" and scale < 1:
                x = np.take(x, np.ceil(np.arange(int(x.shape[axis] * scale)) / scale).astype(int), axis)
            else:
                x = Upsample._run(self, x, factors, attributes["mode"])[0]
        return (x,)


class GridSample(OpRun):
    """onnx keeps its coordinates in float32; torch, whose operator this is, keeps them in float64."""

    def _run(self, x, grid, align_corners=0, mode="linear", padding_mode="zeros"):
        import torch

        name = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
        sampled = torch.nn.functional.grid_sample(
            torch.tensor(x), torch.tensor(grid), name, padding_mode, bool(align_corners)
        )
        return (sampled.numpy(),)


class AffineGrid(OpRun):
    """onnx computes it in float32."""

    def _run(self, theta, size, align_corners=0):
        import torch

        # A batch of one may be asked for several images: the points are those of each of them.
        shape = [theta.shape[0], *size.tolist()[1:]]
        return (torch.nn.functional.affine_grid(torch.tensor(theta), shape, bool(align_corners)).numpy(),)


class RoiAlign(OpRun):
    """onnx gives the form of opset 10, which had no attribute for the coordinates, the default of later ones."""

    def _run(self, x, rois, images, coordinate_transformation_mode=None, **attributes):
        if self.run_params["opsets"][""] < 16:
            coordinate_transformation_mode = "output_half_pixel"
        mapping = coordinate_transformation_mode or "half_pixel"
        own = op_roi_align.RoiAlign(self.onnx_node, self.run_params)
        return own._run(x, rois, images, coordinate_transformation_mode=mapping, **attributes)


class GlobalLpPool(OpRun):
    """onnx does not have it."""

    def _run(self, x, p=2):
        axes = tuple(range(2, x.ndim))
        return ((np.abs(x) ** p).sum(axes, keepdims=True) ** (1 / p),)


INDEX_OPS: list[type[OpRun]] = [
    GatherElements,
    Scatter,
    Pad,
    Upsample,
    Resize,
    GridSample,
    AffineGrid,
    RoiAlign,
    GlobalLpPool,
]
