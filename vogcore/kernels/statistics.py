"""Statistics of the scores of every class, and scores relative to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore._types import IntArray
from vogcore.errors import DataError
from vogcore.kernels import _cpu
from vogcore.kernels._scalar import merged_m2, merged_mean
from vogcore.kernels.devices import on_any_device, to_host

__all__ = [
    "ClassStatistics",
    "checked_spread",
    "class_statistics",
    "merge_statistics",
    "normalise",
    "robust_statistics",
]

# 1 / (quantile of the normal distribution at 3/4): makes the MAD of normal scores estimate their standard deviation.
_MAD_TO_STD = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class ClassStatistics:
    """Centre and spread of the scores of every class."""

    count: npt.NDArray[np.int64]
    """Examples of the class (C,)."""
    mean: npt.NDArray[np.float64]
    """Mean, or median (C,); NaN for a class without examples."""
    std: npt.NDArray[np.float64]
    """Population standard deviation, or scaled MAD (C,); NaN for a class without examples."""

    @property
    def m2(self) -> npt.NDArray[np.float64]:
        """Sum of squared deviations from the mean (C,), NaN for a class without examples; not for robust statistics."""
        return np.asarray(self.count * np.square(self.std), np.float64)


def _checked(
    scores: npt.ArrayLike, classes: npt.ArrayLike, n_classes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    scores = np.ascontiguousarray(scores, dtype=np.float64)
    labels: IntArray = np.asarray(classes)
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise DataError(f"scores {scores.shape} and classes {labels.shape} must be two lists of the same length.")
    if labels.size and labels.dtype.kind not in "iu":
        raise DataError(f"classes must be integers, not {labels.dtype}.")
    if labels.size and (labels.min() < -1 or labels.max() >= n_classes):
        position = int(np.flatnonzero((labels < -1) | (labels >= n_classes))[0])
        raise DataError(
            f"example {position} has class {labels[position]}, but classes go from 0 to {n_classes - 1} "
            "(-1 for an example without class)."
        )
    return scores, np.ascontiguousarray(labels, dtype=np.int64)


def checked_spread(
    mean: npt.ArrayLike, std: npt.ArrayLike, zero_spread: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Mean and spread of every class, and which of them have no spread, each (C,).

    Raises:
        DataError: if they differ in length.
    """
    means = np.ascontiguousarray(to_host(mean), dtype=np.float64)
    stds = np.ascontiguousarray(to_host(std), dtype=np.float64)
    flat = stds == 0
    if zero_spread is not None and np.shape(zero_spread) != flat.shape:
        raise DataError(f"zero_spread has shape {np.shape(zero_spread)}, but there are {flat.size} classes.")
    if means.ndim != 1 or means.shape != stds.shape:
        raise DataError(f"mean {means.shape} and std {stds.shape} must be two lists of one value for each class.")
    if zero_spread is not None:
        flat |= np.asarray(to_host(zero_spread), dtype=bool)
    return means, stds, flat


@on_any_device("scores", "classes")
def class_statistics(scores: npt.ArrayLike, classes: npt.ArrayLike, n_classes: int) -> ClassStatistics:
    """Mean and population standard deviation (ddof 0) of the scores of every class, in two passes.

    Args:
        scores: (N,) float64. A score that is not finite makes its class's statistics NaN.
        classes: (N,) integer, 0 to ``n_classes`` - 1; -1 for an example without class, which counts nowhere.
        n_classes: C.

    Returns:
        Statistics of the C classes; mean and std of an empty class are NaN, std of equal scores is exactly 0.

    Raises:
        DataError: if the lengths differ, or a class is not an integer in its range.
    """
    values, labels = _checked(scores, classes, n_classes)
    count = np.zeros(n_classes, np.int64)
    mean = np.zeros(n_classes)
    std = np.zeros(n_classes)
    _cpu.class_moments(values, labels, count, mean, std)
    return ClassStatistics(count, mean, std)


def merge_statistics(*parts: ClassStatistics) -> ClassStatistics:
    """Statistics of all examples from those of disjoint parts of them (Chan, Golub & LeVeque 1983).

    Args:
        parts: one or more results of :func:`class_statistics` over the same C classes. Medians cannot be merged, so
            those of :func:`robust_statistics` give no meaningful result.

    Returns:
        What :func:`class_statistics` gives for all examples together, up to rounding; mean and std of a class without
        examples in any part are NaN, and NaN in a class that has them in a part stays.

    Raises:
        DataError: if there is no part, or parts differ in their number of classes.
    """
    if not parts:
        raise DataError("There are no class statistics to merge; give those of at least one part.")
    sizes = sorted({part.count.size for part in parts})
    if len(sizes) > 1:
        raise DataError(f"Class statistics of {sizes[0]} and of {sizes[-1]} classes cannot be merged.")
    count = parts[0].count.copy()
    # The formulas are written for single numbers and do as well for arrays.
    mean: Any = parts[0].mean.copy()
    m2: Any = parts[0].m2
    for part in parts[1:]:
        filled = part.count > 0
        both = filled & (count > 0)
        new = filled & ~both
        total = count + part.count
        weight: Any = np.divide(part.count, total, out=np.zeros(total.size), where=both)
        # Infinite scores have no deviation: NaN, as in class_statistics, and no warning.
        with np.errstate(invalid="ignore", over="ignore"):
            other_m2: Any = part.m2
            delta: Any = part.mean - mean
            mean = np.where(both, merged_mean(mean, delta, weight), np.where(new, part.mean, mean))
            m2 = np.where(both, merged_m2(m2, other_m2, delta, count * weight), np.where(new, other_m2, m2))
        count = total
    std = np.sqrt(np.divide(m2, count, out=np.full(count.size, np.nan), where=count > 0))
    return ClassStatistics(count, mean, std)


@on_any_device("scores", "classes")
def robust_statistics(scores: npt.ArrayLike, classes: npt.ArrayLike, n_classes: int) -> ClassStatistics:
    """Median and 1.4826 times the median absolute deviation of the scores of every class.

    Args:
        scores: (N,) float64. A NaN makes its class's statistics NaN.
        classes: as in :func:`class_statistics`.
        n_classes: C.

    Returns:
        Statistics of the C classes, the median as ``mean`` and the scaled deviation as ``std``; NaN for an empty
        class. The deviation estimates the standard deviation where scores are normal, and is 0 where more than half
        of the class have the same score.

    Raises:
        DataError: as in :func:`class_statistics`.
    """
    values, labels = _checked(scores, classes, n_classes)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(n_classes + 1))
    values = values[order]
    center = np.full(n_classes, np.nan)
    spread = np.full(n_classes, np.nan)
    for c in np.flatnonzero(np.diff(bounds)):
        group = values[bounds[c] : bounds[c + 1]]
        center[c] = np.median(group)
        # Two infinite scores have no deviation from each other: NaN, as in class_statistics, and no warning.
        with np.errstate(invalid="ignore"):
            spread[c] = _MAD_TO_STD * np.median(np.abs(group - center[c]))
    return ClassStatistics(np.diff(bounds).astype(np.int64), center, spread)


@on_any_device("scores", "classes")
def normalise(
    scores: npt.ArrayLike,
    classes: npt.ArrayLike,
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
    *,
    absolute: bool = False,
    zero_spread: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float64]:
    """Class-normalised scores: (score - mean of the class) / std of the class.

    Args:
        scores: (N,) float64.
        classes: (N,) integer, 0 to C - 1; -1 for an example without class.
        mean: (C,) float64, also of other data (a test set against its training set).
        std: (C,) float64.
        absolute: give the magnitude.
        zero_spread: (C,) bool, further classes whose spread is to count as zero, such as rounding noise.

    Returns:
        (N,) float64 without unit: exactly 0 where the class has no spread; NaN where there is no class, where its
        statistics are NaN (no examples of the class), or where the score is not finite and its class has no spread.

    Raises:
        DataError: if lengths differ, or a class is not an integer in its range.
    """
    means, stds, flat = checked_spread(mean, std, zero_spread)
    values, labels = _checked(scores, classes, means.size)
    out = np.empty(values.size)
    _cpu.standardise(values, labels, means, stds, flat, bool(absolute), out)
    return out
