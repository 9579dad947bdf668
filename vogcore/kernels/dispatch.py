"""The functions of :mod:`vogcore.kernels`: check the arrays, choose the kernel, share the work among threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vogcore._types import FloatArray
from vogcore.errors import GradientError
from vogcore.kernels import _cpu
from vogcore.kernels.checks import MODES, check_count, check_reduction, layout_of
from vogcore.kernels.devices import empty, on_any_device, to_host
from vogcore.kernels.statistics import (
    ClassStatistics,
    class_statistics,
    merge_statistics,
    normalise,
    robust_statistics,
)
from vogcore.kernels.threads import get_threads, run_ranges, set_threads

__all__ = [
    "ClassStatistics",
    "class_statistics",
    "empty",
    "get_threads",
    "merge_moments",
    "merge_statistics",
    "normalise",
    "pixel_count",
    "robust_statistics",
    "score_from_moments",
    "set_threads",
    "to_host",
    "update_moments",
]


def pixel_count(shape: tuple[int, ...], channel_axis: int | None, channels: str) -> int:
    """Number P of pixels that an example's moments have.

    Args:
        shape: shape of one example, without the batch axis.
        channel_axis: None, or the axis of the channels counted with the batch axis, as in :func:`update_moments`:
            1 is the first axis of ``shape``.
        channels: "mean", "none", "magnitude" or "l2".

    Returns:
        The number of values of an example, divided by the number of channels unless ``channels`` is "none".

    Raises:
        SettingsError: for an unknown ``channels`` or an axis that does not exist.
        GradientError: if ``shape`` holds no values.
    """
    outer, _, inner = layout_of(tuple(shape), channel_axis, channels)
    return outer * inner


def _read_only(array: npt.NDArray) -> npt.NDArray:
    """A view that cannot be written: one compiled signature then serves memory maps and ordinary arrays."""
    view = array.view()
    view.flags.writeable = False
    return view


def _native(array: npt.NDArray) -> npt.NDArray:
    """``array`` with native byte order, C-contiguous and aligned; a copy only where it is not so already."""
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


def as_values(gradients: npt.NDArray) -> npt.NDArray:
    """Gradients in a type that kernels read: 16-bit floats as their bits, int16 for binary16, uint16 for bfloat16.

    Raises:
        GradientError: for any other type.
    """
    if gradients.dtype.name == "bfloat16":
        return gradients.view(np.uint16)
    kind = gradients.dtype.kind + str(gradients.dtype.itemsize)
    if kind not in ("f2", "f4", "f8", "u2"):
        raise GradientError(
            f"gradients must be float16, float32, float64 or bfloat16 as uint16 bits, not {gradients.dtype}."
        )
    return gradients.view(gradients.dtype.str.replace("f", "i")) if kind == "f2" else gradients


def _check_moments(name: str, array: npt.NDArray, shape: tuple[int, int], dtype: np.dtype) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise GradientError(f"{name} must be a {dtype} array of shape {shape}, but it is {found}.")
    if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable and array.dtype.isnative):
        raise GradientError(
            f"{name} is updated in place, so it must be a writable, aligned, C-contiguous array of native byte order."
        )


def _check_moment_pair(mean: npt.NDArray, m2: npt.NDArray, shape: tuple[int, int]) -> None:
    if getattr(mean, "dtype", None) not in (np.float32, np.float64):
        raise GradientError(f"moments must be float64 or float32 arrays, not {getattr(mean, 'dtype', type(mean))}.")
    _check_moments("mean", mean, shape, mean.dtype)
    _check_moments("m2", m2, shape, mean.dtype)
    if np.may_share_memory(mean, m2):
        raise GradientError("mean and m2 share memory: give two separate arrays.")


@on_any_device("gradients", "mean", "m2")
def update_moments(
    gradients: npt.NDArray,
    mean: FloatArray,
    m2: FloatArray,
    *,
    step: int,
    channel_axis: int | None = None,
    channels: str = "mean",
) -> npt.NDArray[np.float64]:
    """Add one checkpoint's gradients to the running moments of every pixel (Welford 1962).

    Channels are reduced first, in float64, to one value S for each pixel; then mean and squared deviations of S over
    the checkpoints are updated in place. An example's result does not depend on the others of the block, on the
    block's size or on the number of threads. Several threads may call this at once, on different moments.

    Args:
        gradients: (B, ...) float32, float64 or float16, or bfloat16 as uint16 bits; copied if it is not C-contiguous.
        mean: (B, P) float64, or float32 to save memory (worst error of a pixel's spread about 1e-3 after 1,000
            checkpoints whose mean is 10,000 times the spread, against 2e-12), updated in place; P as
            :func:`pixel_count` says.
        m2: sums of squared deviations, like ``mean``.
        step: 1-based number of the checkpoint in its window; 1 initialises, whatever the buffers hold.
        channel_axis: axis of ``gradients`` that holds channels, 1 or more, or None where there is none.
        channels: "mean", the signed mean over the channels (Agarwal et al. 2022); "magnitude", the mean of magnitudes;
            "l2", the root of the sum of squares; "none", every value is a pixel of its own. Without a channel axis
            there is one channel: "magnitude" and "l2" then take the magnitude.

    Returns:
        Mean of |S| over the pixels for every example (B,) float64, in the unit of the gradients. For float16,
        bfloat16 and float32 gradients it is NaN or infinite exactly where some gradient of the example is. For
        float64 gradients it is also infinite where a sum overflows: from 1e308 divided by the number of values, and
        for "l2" from 1e154, where squares overflow ("l2" is 0 below 1e-162, where they underflow); and the squared
        deviations m2 overflow from 1e154 (float32 moments: deviations from 1e19) although this mean may be finite.

    Raises:
        GradientError: if gradients or moments have another type or shape.
        SettingsError: for an unknown ``channels``, an axis that does not exist or a step below 1.
    """
    gradients = np.asarray(gradients)
    if gradients.ndim == 0:
        raise GradientError("gradients must have a batch axis, but they are a single number.")
    gradients = as_values(gradients)
    step = check_count("step", step, 1)
    outer, count, inner = layout_of(gradients.shape[1:], channel_axis, channels)
    n_examples, n_pixels = gradients.shape[0], outer * inner
    _check_moment_pair(mean, m2, (n_examples, n_pixels))

    rows = _read_only(_native(gradients).reshape(n_examples, count * n_pixels))
    n_tiles = -(-n_pixels // _cpu.TILE)
    magnitudes = np.empty((n_tiles, n_examples))
    n_bytes = rows.nbytes + 2 * (mean.nbytes + m2.nbytes)
    mode = MODES[channels]
    run_ranges(
        lambda first, last: _cpu.update_tiles(rows, count, inner, mode, mean, m2, step, first, last, magnitudes),
        n_examples * n_tiles,
        n_bytes,
    )
    return sum_of_tiles(magnitudes) / n_pixels


def sum_of_tiles(parts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sum (T, B) over T, tile after tile, so that the order of summation never depends on B."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


@on_any_device("mean", "m2", "other_mean", "other_m2")
def merge_moments(
    mean: FloatArray, m2: FloatArray, n: int, other_mean: FloatArray, other_m2: FloatArray, other_n: int
) -> None:
    """Merge the moments of disjoint sets of checkpoints into the first (Chan, Golub & LeVeque 1983).

    Args:
        mean: (B, P) float64 or float32, updated in place; what it holds is ignored where ``n`` is 0.
        m2: sums of squared deviations, like ``mean``.
        n: checkpoints in ``mean`` and ``m2``, 0 or more.
        other_mean: like ``mean``, only read.
        other_m2: like ``mean``, only read.
        other_n: checkpoints in the other moments; 0 changes nothing.

    Raises:
        GradientError: if the arrays differ in shape or type, or the first two cannot be written in place.
        SettingsError: if a count is negative.
    """
    n = check_count("n", n, 0)
    other_n = check_count("other_n", other_n, 0)
    shape = np.shape(mean)
    if len(shape) != 2:
        raise GradientError(f"moments must have the shape (examples, pixels), not {shape}.")
    _check_moment_pair(mean, m2, (shape[0], shape[1]))
    for name, array in (("other_mean", other_mean), ("other_m2", other_m2)):
        if np.shape(array) != shape or np.asarray(array).dtype != mean.dtype:
            raise GradientError(
                f"{name} must be {mean.dtype} {shape} like the moments it is merged into, but it is "
                f"{np.asarray(array).dtype} {np.shape(array)}."
            )
    if other_n == 0:
        return
    if n == 0:
        np.copyto(mean, other_mean)
        np.copyto(m2, other_m2)
        return
    total = n + other_n
    mean_weight = other_n / total
    m2_weight = n * mean_weight
    flat = [mean.reshape(-1), m2.reshape(-1)]
    other = [_read_only(_native(np.asarray(array)).reshape(-1)) for array in (other_mean, other_m2)]

    def merge(first: int, last: int) -> None:
        own = [array[first:last] for array in flat]
        _cpu.merge_range(*own, *(array[first:last] for array in other), mean_weight, m2_weight)

    run_ranges(merge, mean.size, 6 * mean.nbytes, granule=_cpu.TILE)


@on_any_device("m2")
def score_from_moments(m2: FloatArray, n: int, *, reduction: str = "std") -> npt.NDArray[np.float64]:
    """Raw variance of gradients: the mean over the pixels of their spread over the checkpoints.

    Args:
        m2: (B, P) float64 or float32, sums of squared deviations over ``n`` checkpoints.
        n: number of checkpoints, at least 1.
        reduction: "std", mean over p of sqrt(m2_p / n), as in the code of Agarwal et al. 2022; "var", mean of m2_p / n.

    Returns:
        (B,) float64, in the unit of the gradients ("std") or its square ("var"); population spread (ddof 0).

    Raises:
        GradientError: if ``m2`` has another type or shape.
        SettingsError: for an unknown ``reduction`` or ``n`` below 1.
    """
    n = check_count("n", n, 1)
    check_reduction(reduction)
    m2 = np.asarray(m2)
    if m2.ndim != 2 or m2.shape[1] == 0 or m2.dtype not in (np.float32, np.float64):
        raise GradientError(f"m2 must be float64 or float32 of shape (examples, pixels), not {m2.dtype} {m2.shape}.")
    rows = _read_only(_native(m2))
    n_examples, n_pixels = rows.shape
    n_tiles = -(-n_pixels // _cpu.TILE)
    sums = np.empty((n_tiles, n_examples))
    root = reduction == "std"
    run_ranges(
        lambda first, last: _cpu.score_tiles(rows, 1.0 / n, root, first, last, sums), n_examples * n_tiles, rows.nbytes
    )
    return sum_of_tiles(sums) / n_pixels
