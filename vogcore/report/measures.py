"""The figures of a report: what is measured on the scores of a run, before it becomes a table or a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vogcore.scoring.direction import Z95, ranks

__all__ = [
    "Bins",
    "Ranked",
    "density",
    "emptied_classes",
    "error_bins",
    "histogram",
    "kept_accuracy",
    "mean_by_bin",
    "quantiles_by_class",
    "rank_correlations",
    "wilson_interval",
]

Float64Array = npt.NDArray[np.float64]


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95% confidence interval of a share (Wilson 1927), which stays inside 0 to 1 and holds for shares near them.

    Args:
        successes: how many of the n, 0 to n.
        n: how many there are; (NaN, NaN) where there are none.
    """
    if n == 0:
        return math.nan, math.nan
    share, z2 = successes / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    margin = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Rounding may not put the share itself outside of its interval.
    return max(min(centre - margin, share), 0.0), min(max(centre + margin, share), 1.0)


@dataclass(frozen=True)
class Bins:
    """Examples in bins of equal size by a score, lowest first.

    Attributes:
        count: (B,) examples in each bin; the first ones have one more where N is no multiple of B.
        lowest, highest: (B,) smallest and largest score there.
        errors: (B,) how many are errors.
    """

    count: npt.NDArray[np.int64]
    lowest: Float64Array
    highest: Float64Array
    errors: npt.NDArray[np.int64]

    @property
    def rate(self) -> Float64Array:
        """(B,) share of errors."""
        return self.errors / self.count

    def interval(self) -> tuple[Float64Array, Float64Array]:
        """95% confidence interval of each rate (Wilson 1927)."""
        both = [wilson_interval(int(e), int(n)) for e, n in zip(self.errors, self.count, strict=True)]
        return np.array([low for low, _ in both]), np.array([high for _, high in both])


def error_bins(values: Float64Array, errors: npt.NDArray[np.bool_], parts: int = 10) -> Bins:
    """Errors in equal parts of the examples, from the lowest score to the highest: deciles with ten parts.

    Args:
        values: (N,) finite scores; ties keep the order of the data.
        errors: (N,) whether the example is an error.
        parts: number of bins B; fewer than ten examples give one bin for each.
    """
    bins = np.array_split(np.argsort(values, kind="stable"), max(min(parts, len(values)), 1))
    return Bins(
        count=np.array([len(b) for b in bins]),
        lowest=np.array([values[b[0]] if len(b) else math.nan for b in bins]),
        highest=np.array([values[b[-1]] if len(b) else math.nan for b in bins]),
        errors=np.array([int(errors[b].sum()) for b in bins]),
    )


def mean_by_bin(values: Float64Array, others: Sequence[npt.NDArray], parts: int = 10) -> Float64Array:
    """Mean of other measures in equal parts of the examples by a score, lowest first.

    Args:
        values: (N,) finite scores.
        others: measures (N,) each; NaN is left out of a mean.
        parts: number of bins B.

    Returns:
        (len(others), B) float64; NaN where a bin has no value.
    """
    bins = np.array_split(np.argsort(values, kind="stable"), max(min(parts, len(values)), 1))
    result = np.full((len(others), len(bins)), math.nan)
    for row, other in enumerate(others):
        for column, members in enumerate(bins):
            some = other[members].astype(np.float64)
            finite = some[np.isfinite(some)]
            if len(finite):
                result[row, column] = finite.mean()
    return result


def _kept(n: int, shares: Sequence[float]) -> list[int]:
    """How many of n are kept when each share is set aside: at least one, and never fewer than the share says."""
    return [max(n - math.floor(share * n + 1e-9), 1) for share in shares]


def kept_accuracy(
    values: Float64Array, correct: npt.NDArray[np.bool_], hard_is_high: bool, shares: Sequence[float]
) -> Float64Array:
    """Accuracy of what is kept when the hardest share of the examples is set aside.

    Args:
        values: (N,) finite scores, N at least 1.
        correct: (N,) whether the last checkpoint predicts the label.
        hard_is_high: which end of the score is the hard one.
        shares: shares to set aside, each from 0 to less than 1.

    Returns:
        (len(shares),) float64.
    """
    easiest_first = np.argsort(values if hard_is_high else -values, kind="stable")
    right = np.cumsum(correct[easiest_first], dtype=np.int64)
    return np.array([right[kept - 1] / kept for kept in _kept(len(values), shares)])


def emptied_classes(
    values: Float64Array, labels: npt.NDArray[np.int64], hard_is_high: bool, shares: Sequence[float]
) -> list[int]:
    """How many classes lose all of their examples when the hardest share is set aside.

    Args:
        values: (N,) finite scores.
        labels: (N,) class index, 0 or more.
        hard_is_high: which end of the score is the hard one.
        shares: shares to set aside.
    """
    easiest_first = labels[np.argsort(values if hard_is_high else -values, kind="stable")]
    # A class is emptied as soon as its easiest example is set aside.
    _, first = np.unique(easiest_first, return_index=True)
    return [int((first >= kept).sum()) for kept in _kept(len(values), shares)]


def quantiles_by_class(
    values: Float64Array, labels: npt.NDArray[np.int64], classes: int, shares: Sequence[float]
) -> Float64Array:
    """Quantiles of a score in each class, linear between the two nearest values (NumPy's default).

    Args:
        values: (N,) scores; those that are not finite are left out.
        labels: (N,) class index, -1 for none.
        classes: number of classes C.
        shares: which quantiles, from 0 to 1.

    Returns:
        (C, len(shares)) float64; NaN for a class without values.
    """
    usable = np.isfinite(values) & (labels >= 0)
    values, labels = values[usable], labels[usable]
    ordered = values[np.lexsort((values, labels))]
    count = np.bincount(labels, minlength=classes)[:classes]
    start = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)
    result = np.full((classes, len(shares)), math.nan)
    there = count > 0
    for column, share in enumerate(shares):
        place = (count[there] - 1) * share
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, count[there] - 1)
        low, high = ordered[start[there] + below], ordered[start[there] + above]
        result[there, column] = low + (high - low) * (place - below)
    return result


def histogram(values: Float64Array, bins: int = 40, tail: float = 0.005) -> tuple[npt.NDArray[np.int64], Float64Array]:
    """Counts of a score between its outer quantiles; what lies outside is counted in the first and the last bin.

    Without that, a few outliers would leave a single bar.

    Args:
        values: (N,) finite scores, N at least 1.
        bins: number of bins.
        tail: share of the examples on each side that may lie outside of the range.

    Returns:
        Counts (bins,) and edges (bins + 1,).
    """
    low, high = np.quantile(values, [tail, 1 - tail])
    if not low < high:
        low, high = values.min(), values.max()
    if not low < high:
        low, high = low - 0.5, high + 0.5
    count, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    return count, edges


def density(
    first: Float64Array, second: Float64Array, bins: int = 60
) -> tuple[npt.NDArray, Float64Array, Float64Array]:
    """Counts of pairs in a grid between the outer quantiles of both; those outside are counted at the border.

    Args:
        first, second: (N,) finite values.
        bins: cells along each axis.

    Returns:
        Counts (bins of ``second``, bins of ``first``), and the edges of both.
    """
    x, y = histogram(first, bins)[1], histogram(second, bins)[1]
    inside = np.clip(first, x[0], x[-1]), np.clip(second, y[0], y[-1])
    ends = ((float(x[0]), float(x[-1])), (float(y[0]), float(y[-1])))
    count, _, _ = np.histogram2d(inside[0], inside[1], bins=bins, range=ends)
    return count.T.astype(np.int64), x, y


class Ranked:
    """A measure of the examples and its ranks, which several figures need and which cost a sort.

    Args:
        values: (N,) numbers or truth values.

    Attributes:
        values: (N,) float64.
        finite: (N,) which of them are finite.
        complete: whether all are.
    """

    def __init__(self, values: npt.NDArray) -> None:
        self.values = np.asarray(values).astype(np.float64)
        self.finite = np.isfinite(self.values)
        self.complete = bool(self.finite.all())
        self._centred: Float64Array | None = None
        self._length = 0.0

    @property
    def n(self) -> int:
        """How many of the values are finite."""
        return int(self.finite.sum())

    def centred(self) -> Float64Array:
        """(n,) ranks of the finite values, less their mean, of length one; zeros where all values are the same."""
        if self._centred is None:
            self._centred, self._length = _unit(ranks(self.values[self.finite]))
        return self._centred

    def spearman(self, other: Ranked) -> float:
        """Rank correlation on the examples where both are finite; NaN where one of them is constant there."""
        if (self.complete and other.complete) or np.array_equal(self.finite, other.finite):
            a, b = self.centred(), other.centred()
        else:
            both = self.finite & other.finite
            a, b = (_unit(ranks(r.values[both]))[0] for r in (self, other))
        if len(a) < 2 or not a.any() or not b.any():
            return math.nan
        return float(np.clip(a @ b, -1.0, 1.0))

    def auroc(self, positive: npt.NDArray[np.bool_]) -> float:
        """AUROC for the positive ones among the finite values, (n,); NaN where all or none are positive.

        The sum of the ranks of the positive examples is a linear function of it (Mann & Whitney 1947).
        """
        n, k = len(positive), int(positive.sum())
        if k == 0 or k == n:
            return math.nan
        above = float(self.centred()[positive].sum()) * self._length  # of the sum that k average ranks would have
        return 0.5 + above / (k * (n - k))


def _unit(values: Float64Array) -> tuple[Float64Array, float]:
    """Values less their mean, of length one, and the length that they had; zeros where all are the same."""
    centred = values - values.mean() if len(values) else values
    length = math.sqrt(float(centred @ centred))
    return (centred / length if length > 0 else np.zeros_like(centred)), length


def rank_correlations(rows: Sequence[Ranked], columns: Sequence[Ranked]) -> Float64Array:
    """Rank correlation of every row with every column, each on the examples where both are finite.

    Returns:
        (len(rows), len(columns)) float64, NaN where a measure is constant.
    """
    return np.array([[row.spearman(column) for column in columns] for row in rows]).reshape(len(rows), len(columns))
