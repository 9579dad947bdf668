"""What the plots show, as numbers, from scores alone; no matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError
from vogcore.report.measures import Bins, error_bins

if TYPE_CHECKING:
    from vogcore.store import Scores

__all__ = ["deciles", "place", "values_of"]


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


def deciles(scores: Scores, stage: str, score: str, bins: int) -> Bins:
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
    return error_bins(values[usable], ~correct.values.astype(bool)[usable], bins)


def place(scores: Scores, position: int, stage: str, score: str) -> tuple[int, int] | None:
    """How many examples are at least as hard as this one (itself included), of how many; None for a NaN score."""
    values = values_of(scores, stage, score)
    own = float(values[position])
    if math.isnan(own):
        return None
    values = values[~np.isnan(values)]
    harder = values >= own if scores.stage(stage).direction(score).hard_is_high else values <= own
    return int(harder.sum()), len(values)
