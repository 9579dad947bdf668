"""What the plots show, as numbers, from scores alone; no matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError

if TYPE_CHECKING:
    from vogcore.store import Scores

__all__ = ["Deciles", "deciles", "place", "values_of", "wilson"]

_Z95 = 1.959963984540054


def values_of(scores: Scores, stage: str, score: str) -> npt.NDArray[np.float64]:
    """The (N,) values of one score of a stage.

    Raises:
        SettingsError: there is no stage or score of that name.
    """
    chosen = scores.stage(stage)
    chosen.direction(score)  # refuses a name that is no score
    values: npt.NDArray[np.float64] | None = getattr(chosen, score)
    if values is None:
        raise SettingsError(f"Stage {stage!r} has no {score}; choose another score.")
    return values


@dataclass(frozen=True)
class Deciles:
    """Error rates of equally large groups of examples, from the lowest score to the highest.

    Attributes:
        count: (b,) int64, examples of each group; they differ by one at the most.
        errors: (b,) int64, how many of them the last checkpoint gets wrong.
        low, high: (b,) float64, 95% interval of each rate.
    """

    count: npt.NDArray[np.int64]
    errors: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]

    @property
    def rate(self) -> npt.NDArray[np.float64]:
        """(b,) float64, share of errors in each group."""
        return self.errors / self.count

    @property
    def overall(self) -> float:
        """Share of errors among all examples of the groups."""
        return float(self.errors.sum() / self.count.sum())


def deciles(scores: Scores, stage: str, score: str, bins: int) -> Deciles:
    """Examples with a label and a finite score, sorted by it (ties in the order of the data) and cut into ``bins``.

    Raises:
        SettingsError: no such stage or score, no record of errors, or fewer examples than groups.
    """
    values = values_of(scores, stage, score)
    correct = scores.companions.get("correct")
    if correct is None:
        raise SettingsError(
            "Error rates need to know which examples the last checkpoint gets right, and these scores have no "
            'companion "correct"; score with labels, and gradients with logits.'
        )
    usable = np.flatnonzero(np.isfinite(values) & (scores.labels >= 0))
    if bins < 1 or len(usable) < bins:
        raise SettingsError(
            f"{len(usable):,} examples with a label and a score cannot be cut into {bins} groups; choose from 1 to "
            f"{len(usable):,} with bins=."
        )
    order = usable[np.argsort(values[usable], kind="stable")]
    wrong = ~correct.values.astype(bool)[order]
    groups = np.array_split(wrong, bins)
    count = np.array([len(group) for group in groups])
    errors = np.array([int(group.sum()) for group in groups])
    low, high = wilson(errors, count)
    return Deciles(count, errors, low, high)


def wilson(
    hits: npt.NDArray[np.int64], count: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """95% interval of a rate (Wilson 1927); unlike the normal one it stays inside [0, 1] and is not empty at 0."""
    rate, z2 = hits / count, _Z95**2
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    width = _Z95 / (1 + z2 / count) * np.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2))
    return np.minimum(centre - width, rate), np.maximum(centre + width, rate)


def place(scores: Scores, position: int, stage: str, score: str) -> tuple[int, int] | None:
    """How many examples are at least as hard as this one (itself included), of how many; None for a NaN score."""
    values = values_of(scores, stage, score)
    own = float(values[position])
    if math.isnan(own):
        return None
    values = values[~np.isnan(values)]
    harder = values >= own if scores.stage(stage).direction(score).hard_is_high else values <= own
    return int(harder.sum()), len(values)
