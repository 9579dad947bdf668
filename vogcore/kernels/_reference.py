"""What the kernels compute, written as plainly as NumPy allows: float64, two passes, everything in memory.

The oracle of the tests and of the self-test; nothing else in the package calls it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["mean_abs_gradient", "pixel_moments", "pixel_values", "vog"]


def _widened(gradients: npt.NDArray) -> npt.NDArray[np.float64]:
    """Gradients as float64; uint16 are the bits of bfloat16, the upper half of a float32."""
    if gradients.dtype == np.uint16:
        return (gradients.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return gradients.astype(np.float64)


def pixel_values(
    gradients: npt.NDArray, channel_axis: int | None = None, channels: str = "mean"
) -> npt.NDArray[np.float64]:
    """S (K, B, P) of gradients (K, B, ...); ``channel_axis`` counts without K, so axis 0 is the batch."""
    wide = _widened(gradients)
    axis = None if channel_axis is None or channels == "none" else channel_axis + 1
    if axis is None:
        reduced = wide if channels in ("mean", "none") else np.abs(wide)
    elif channels == "mean":
        reduced = wide.mean(axis=axis)
    elif channels == "magnitude":
        reduced = np.abs(wide).mean(axis=axis)
    else:
        reduced = np.sqrt(np.square(wide).sum(axis=axis))
    return reduced.reshape(*gradients.shape[:2], math.prod(reduced.shape[2:]))


def pixel_moments(
    gradients: npt.NDArray, channel_axis: int | None = None, channels: str = "mean"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and sum of squared deviations (B, P) over the checkpoints of gradients (K, B, ...)."""
    values = pixel_values(gradients, channel_axis, channels)
    mean = values.mean(axis=0)
    return mean, np.square(values - mean).sum(axis=0)


def vog(
    gradients: npt.NDArray, channel_axis: int | None = None, channels: str = "mean", reduction: str = "std"
) -> npt.NDArray[np.float64]:
    """Raw variance of gradients (B,) of gradients (K, B, ...): mean over the pixels of std or var (ddof 0)."""
    _, m2 = pixel_moments(gradients, channel_axis, channels)
    variance = m2 / len(gradients)
    return (np.sqrt(variance) if reduction == "std" else variance).mean(axis=1)


def mean_abs_gradient(
    gradients: npt.NDArray, channel_axis: int | None = None, channels: str = "mean"
) -> npt.NDArray[np.float64]:
    """Mean of |S| over the pixels (K, B) of gradients (K, B, ...)."""
    return np.abs(pixel_values(gradients, channel_axis, channels)).mean(axis=2)
