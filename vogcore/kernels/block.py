"""Scores of a block of examples whose gradients at all checkpoints are in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vogcore.errors import GradientError, SettingsError
from vogcore.kernels import _cpu, _cpu_block
from vogcore.kernels.checks import MODES, check_reduction, layout_of
from vogcore.kernels.devices import on_any_device
from vogcore.kernels.dispatch import as_values, sum_of_tiles
from vogcore.kernels.threads import run_ranges

__all__ = ["BlockScore", "block_score"]


class BlockScore(NamedTuple):
    """What a block comes to; with windows both have a leading axis W."""

    vog: npt.NDArray[np.float64]
    """Raw VoG (B,): the mean over the pixels of their spread over the checkpoints."""
    magnitude: npt.NDArray[np.float64]
    """Mean of |S| (B,) over the same checkpoints and pixels."""


@on_any_device("gradients")
def block_score(
    gradients: npt.NDArray,
    *,
    channel_axis: int | None = None,
    channels: str = "mean",
    reduction: str = "std",
    windows: Sequence[npt.ArrayLike] | None = None,
) -> BlockScore:
    """Raw variance of gradients of a block, in one pass over its gradients; nothing of the block's size is written.

    The same scores as from :func:`update_moments` and :func:`score_from_moments`, up to rounding. The spread comes from
    differences to the first checkpoint, in float64, which loses at most a factor K of its precision (2e-16), however
    far the mean is from zero; the spread of equal gradients is exactly 0. An example's result does not depend on the
    others of the block, on the block's size or on the number of threads.

    Args:
        gradients: (K, B, ...) float32, float64 or float16, or bfloat16 as uint16 bits. Copied unless every checkpoint's
            block is C-contiguous: ``array[:, start:stop]`` of an array (K, N, ...) is not copied.
        channel_axis: axis of one checkpoint's block that holds channels, as in :func:`update_moments`: axis 0 is the
            batch, and 1 or more are possible.
        channels: "mean", "magnitude", "l2" or "none", as in :func:`update_moments`.
        reduction: "std" or "var", as in :func:`score_from_moments`.
        windows: None for all K checkpoints, or for each of W windows the indices of its checkpoints, 0 to K - 1 in any
            order. Checkpoints that several windows share are read once.

    Returns:
        Scores and mean magnitudes, (B,) or (W, B) float64, in the unit of the gradients (the score in its square for
        "var"). For float16, bfloat16 and float32 gradients both are finite exactly where all gradients of the example
        at the window's checkpoints are. For float64 gradients scores are not finite either where squares of differences
        overflow, from 1e154.

    Raises:
        GradientError: if gradients have another type, fewer than two axes, no checkpoint or no values.
        SettingsError: for an unknown ``channels`` or ``reduction``, an axis that does not exist, or a window that is
            empty, repeats a checkpoint, or names one that does not exist.
    """
    gradients = np.asarray(gradients)
    if gradients.ndim < 2 or len(gradients) == 0:
        raise GradientError(
            f"gradients must have the axes checkpoints and examples and at least one checkpoint, not shape "
            f"{gradients.shape}."
        )
    check_reduction(reduction)
    gradients = as_values(gradients)
    n_checkpoints, n_examples = gradients.shape[:2]
    outer, count, inner = layout_of(gradients.shape[2:], channel_axis, channels)
    member = _membership(windows, n_checkpoints)
    segments = _segments(member)
    slots, totals = _merged_windows(member, segments)

    n_pixels = outer * inner
    values, step = _flat(gradients)
    mode = MODES[channels]
    kernel, scale = _kernel(values.dtype, mode, outer, count, inner)
    n_tiles = -(-n_pixels // _cpu_block.TILE)
    spreads = np.empty((len(totals), n_tiles, n_examples))
    magnitudes = np.empty_like(spreads)
    arguments = (
        values, step, (inner, count, mode, count * n_pixels), n_pixels, segments,
        np.ascontiguousarray(member[:, segments[:, 0]].T), slots, totals, reduction == "std",
    )  # fmt: skip
    n_bytes = np.count_nonzero(member.any(axis=0)) * n_examples * count * n_pixels * values.itemsize
    run_ranges(lambda first, last: kernel(*arguments, first, last, spreads, magnitudes), n_examples * n_tiles, n_bytes)
    vog = np.stack([sum_of_tiles(parts) for parts in spreads]) / n_pixels
    magnitude = np.stack([sum_of_tiles(parts) for parts in magnitudes]) / (n_pixels * totals[:, None])
    vog *= scale if reduction == "std" else scale * scale
    magnitude *= scale
    return BlockScore(vog, magnitude) if windows is not None else BlockScore(vog[0], magnitude[0])


def _kernel(dtype: np.dtype, mode: int, outer: int, count: int, inner: int) -> tuple[Any, float]:
    """The kernel of a layout, and the factor from what it takes for a pixel to the pixel's value."""
    # Float64 does without loops of its own, which would take seconds to compile; 16-bit types are two to three times
    # faster with them.
    if mode == _cpu.MEAN and dtype.itemsize < 8:
        if count == 1:
            return _cpu_block.SINGLE, 1.0
        if count == 3 and inner == 1:
            return _cpu_block.ADJACENT, 1.0 / 3.0
        if count == 3 and outer == 1:
            return _cpu_block.PLANES, 1.0 / 3.0
    return _cpu_block.REDUCED, 1.0


def _flat(gradients: npt.NDArray) -> tuple[npt.NDArray, int]:
    """All values from the first to the last in memory as (n,), and the distance between two checkpoints."""
    itemsize = gradients.itemsize
    step = gradients.strides[0]
    block = gradients[0].nbytes
    in_place = gradients[0].flags.c_contiguous and gradients.flags.aligned and gradients.dtype.isnative
    if not in_place or step % itemsize or (len(gradients) > 1 and step < block):
        gradients = np.require(gradients, gradients.dtype.newbyteorder("="), ["C", "A"])
        step = gradients.strides[0]
    size = ((len(gradients) - 1) * step + block) // itemsize
    values = np.lib.stride_tricks.as_strided(gradients, (size if block else 0,), (itemsize,), writeable=False)
    return values, step // itemsize


def _membership(windows: Sequence[npt.ArrayLike] | None, n_checkpoints: int) -> npt.NDArray[np.bool_]:
    """Whether a checkpoint is in a window (W, K)."""
    if windows is None:
        return np.ones((1, n_checkpoints), bool)
    if not len(windows):
        raise SettingsError("There is no window: give the checkpoints of at least one, or windows=None for all.")
    member = np.zeros((len(windows), n_checkpoints), bool)
    for row, window in zip(member, windows, strict=True):
        indices = np.asarray(window)
        if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
            raise SettingsError(f"A window must be a list of at least one checkpoint index, not {window!r}.")
        if indices.min() < 0 or indices.max() >= n_checkpoints:
            raise SettingsError(f"Window {window!r} names a checkpoint outside of 0 to {n_checkpoints - 1}.")
        if np.unique(indices).size != indices.size:
            raise SettingsError(f"Window {window!r} names a checkpoint twice.")
        row[indices] = True
    return member


def _segments(member: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """First checkpoint and length (S, 2) of the runs of checkpoints that are in the same windows, and in any."""
    changes = np.flatnonzero((member[:, 1:] != member[:, :-1]).any(axis=0)) + 1
    bounds = np.concatenate([[0], changes, [member.shape[1]]])
    used = member[:, bounds[:-1]].any(axis=0)
    return np.stack([bounds[:-1], np.diff(bounds)], axis=1)[used].astype(np.int64)


def _merged_windows(
    member: npt.NDArray[np.bool_], segments: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each window its buffer where it has several segments, else -1; and its number of checkpoints."""
    several = member[:, segments[:, 0]].sum(axis=1) > 1
    return np.where(several, np.cumsum(several) - 1, -1).astype(np.int64), member.sum(axis=1).astype(np.int64)
