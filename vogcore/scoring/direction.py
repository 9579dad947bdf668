"""Which end of a score is the hard one: measured on the run itself, never assumed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vogcore.store import Direction
from vogcore.store.schema import EASIER, HARDER, UNDETERMINED

__all__ = ["auroc", "measure_direction", "ranks", "spearman", "spearman_interval"]

_Z95 = 1.959963984540054
_FEWEST_EXAMPLES = 10
_FEWEST_OF_EACH = 10


def ranks(values: npt.NDArray) -> npt.NDArray[np.float64]:
    """Ranks from 1, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2.0)[inverse.reshape(-1)]


def spearman(first: npt.NDArray, second: npt.NDArray) -> float:
    """Rank correlation (Spearman 1904); NaN where one of the two is constant."""
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    # Rounding can carry a perfect correlation beyond 1, where Fisher's z has no value.
    return float(np.clip(float(a @ b) / norm, -1.0, 1.0)) if norm > 0 else math.nan


def auroc(scores: npt.NDArray, positive: npt.NDArray[np.bool_]) -> float:
    """Chance that a positive example scores higher than a negative one, ties counting half (Mann & Whitney 1947)."""
    n_positive = int(positive.sum())
    n_negative = len(scores) - n_positive
    if not n_positive or not n_negative:
        return math.nan
    total = float(ranks(scores)[positive].sum())
    return (total - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def measure_direction(
    scores: npt.NDArray[np.float64], loss: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]
) -> Direction:
    """Compare a score with the loss and the errors of the last checkpoint.

    The direction is the sign of the rank correlation with the loss where its 95% confidence interval (Fisher's z with
    the standard error of Bonett & Wright 2000) excludes zero. Where the AUROC for errors (interval of Hanley & McNeil
    1982; at least ten errors and ten correct examples) clearly says the opposite, or where the interval includes
    zero, the direction is undetermined.

    Args:
        scores: (N,) float64; entries that are not finite are left out.
        loss: (N,) cross-entropy with the label at the last checkpoint; NaN where there is no label.
        correct: (N,) whether the last checkpoint predicts the label.
    """
    usable = np.isfinite(scores) & np.isfinite(loss)
    scores, loss, errors = scores[usable], loss[usable], ~correct[usable]
    n, n_errors = len(scores), int(errors.sum())
    rho, area = (spearman(scores, loss), auroc(scores, errors)) if n else (math.nan, math.nan)
    low, high = spearman_interval(rho, n)
    measured = UNDETERMINED
    if n >= _FEWEST_EXAMPLES and not math.isnan(rho) and (low > 0 or high < 0):
        measured = HARDER if rho > 0 else EASIER
        if min(n_errors, n - n_errors) >= _FEWEST_OF_EACH:
            margin = _Z95 * _auroc_error(area, n_errors, n - n_errors)
            opposite = area + margin < 0.5 if rho > 0 else area - margin > 0.5
            measured = UNDETERMINED if opposite else measured
    return Direction(
        claimed=HARDER,
        measured=measured,
        spearman_loss=rho,
        spearman_low=low,
        spearman_high=high,
        auroc_errors=area,
        n_errors=n_errors,
        n_examples=n,
    )


def spearman_interval(rho: float, n: int) -> tuple[float, float]:
    """95% confidence interval of a rank correlation over n examples (Fisher's z, Bonett & Wright 2000)."""
    if math.isnan(rho) or n <= 3:
        return math.nan, math.nan
    if abs(rho) >= 1.0:
        return rho, rho
    width = _Z95 * math.sqrt((1 + rho * rho / 2) / (n - 3))
    z = math.atanh(rho)
    return math.tanh(z - width), math.tanh(z + width)


def _auroc_error(area: float, n_positive: int, n_negative: int) -> float:
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (n_positive - 1) * (q1 - area * area) + (n_negative - 1) * (q2 - area * area)
    return math.sqrt(max(variance, 0.0) / (n_positive * n_negative))
