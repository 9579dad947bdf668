"""Which end of a score is the hard one: measured on the run itself, never assumed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vogcore.store import Direction
from vogcore.store.schema import EASIER, HARDER, UNDETERMINED

__all__ = ["Z95", "auroc", "auroc_interval", "decide", "measure_direction", "ranks", "spearman", "spearman_interval"]

Z95 = 1.959963984540054
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
    return decide(rho, area, n, n_errors)


def decide(rho: float, area: float, n: int, n_errors: int) -> Direction:
    """The direction, from a rank correlation with the loss and an AUROC that somebody has computed already.

    Args:
        rho: rank correlation of the score with the loss, or NaN.
        area: AUROC of the score for the errors, or NaN.
        n: number of examples that both were measured on.
        n_errors: number of errors among them.
    """
    low, high = spearman_interval(rho, n)
    measured = UNDETERMINED
    if n >= _FEWEST_EXAMPLES and not math.isnan(rho) and (low > 0 or high < 0):
        measured = HARDER if rho > 0 else EASIER
        if min(n_errors, n - n_errors) >= _FEWEST_OF_EACH:
            least, most = auroc_interval(area, n_errors, n - n_errors)
            opposite = most < 0.5 if rho > 0 else least > 0.5
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
    width = Z95 * math.sqrt((1 + rho * rho / 2) / (n - 3))
    z = math.atanh(rho)
    return math.tanh(z - width), math.tanh(z + width)


def auroc_interval(area: float, n_positive: int, n_negative: int) -> tuple[float, float]:
    """95% confidence interval of an AUROC (Hanley & McNeil 1982); NaN where there are no two kinds of examples.

    It is an approximation for large numbers: with fewer than ten of one kind it says little.
    """
    if math.isnan(area) or not n_positive or not n_negative:
        return math.nan, math.nan
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (n_positive - 1) * (q1 - area * area) + (n_negative - 1) * (q2 - area * area)
    margin = Z95 * math.sqrt(max(variance, 0.0) / (n_positive * n_negative))
    return max(area - margin, 0.0), min(area + margin, 1.0)
