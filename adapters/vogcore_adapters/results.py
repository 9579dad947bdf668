"""Scores as other tools take them: an issues table, sampler weights, a curriculum, a pruning mask.

Each of them needs to know which end of the score is the hard one. That is taken from what the run measured; where the
run could not tell, it must be said with ``hard="high"`` or ``hard="low"``.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError, VogcoreWarning
from vogcore.store.schema import ALL, SCORE_NAMES

from ._require import require

if TYPE_CHECKING:
    import pandas

    from vogcore import Scores

__all__ = ["columns_of", "curriculum", "hard_score", "issues", "keep_mask", "sampler_weights"]

_MOST_NAMES = 5


def hard_score(
    scores: Scores, *, stage: str = ALL, score: str = "vog", hard: str | None = None
) -> npt.NDArray[np.float64]:
    """Rank of every example from the hard end, in cleanlab's sense: 0 to 1, lower is harder.

    Args:
        scores: the scores of a run.
        stage: window of checkpoints.
        score: ``"vog"``, ``"vog_raw"`` or ``"vog_relative"``.
        hard: ``"high"`` or ``"low"``, which end is the hard one; None takes what the run measured for this score.

    Returns:
        (N,) float64: (mean rank from the hard end - 1/2) / M among the M scores that are not NaN, equal scores sharing
        theirs; NaN where the score is NaN.

    Raises:
        SettingsError: there is no such stage or score, or the run did not tell which end is hard and `hard` is None.
    """
    values = _hardness(scores, stage, score, hard)
    known = ~np.isnan(values)
    out = np.full(len(values), np.nan)
    _, inverse, counts = np.unique(-values[known], return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2  # mean rank of equal values, less 1/2
    out[known] = middle[inverse] / max(int(known.sum()), 1)
    return out


def _hardness(scores: Scores, stage: str, score: str, hard: str | None) -> npt.NDArray[np.float64]:
    """The score turned so that higher is harder."""
    chosen = scores.stage(stage)
    direction = chosen.direction(score)
    if hard not in (None, "high", "low"):
        raise SettingsError(f"hard={hard!r} is unknown: give 'high' or 'low', or None for the end that was measured.")
    if hard is None and not direction.decided:
        raise SettingsError(
            f"The direction of {score} (stage {stage}) is {direction.measured} on this run, so say with hard='high' "
            "or hard='low' which end is the hard one, or choose another score."
        )
    values: npt.NDArray[np.float64] | None = getattr(chosen, score)
    if values is None:
        raise SettingsError(f"Stage {stage!r} has no {score}; choose another score.")
    high = direction.hard_is_high if hard is None else hard == "high"
    return values if high else -values


def columns_of(
    scores: Scores, *, stage: str = ALL, score: str = "vog", hard: str | None = None, fraction: float = 0.05
) -> dict[str, npt.NDArray]:
    """Columns for the table of another tool: the scores of a stage, ``hard_score`` and ``is_hard_issue``.

    Args, Raises: as :func:`issues`.

    Returns:
        Arrays (N,): ``vog``, ``vog_raw`` and ``vog_relative`` where there is one (float64), ``hard_score`` (float64)
        and ``is_hard_issue`` (bool).
    """
    if not 0 <= fraction <= 1:
        raise SettingsError(f"fraction={fraction} is not possible: give a number from 0 to 1.")
    rank = hard_score(scores, stage=stage, score=score, hard=hard)
    chosen = scores.stage(stage)
    found = {name: getattr(chosen, name) for name in SCORE_NAMES}
    kept = {name: values for name, values in found.items() if values is not None}
    return {**kept, "hard_score": rank, "is_hard_issue": rank < fraction}  # NaN is smaller than nothing


def issues(
    scores: Scores, *, stage: str = ALL, score: str = "vog", hard: str | None = None, fraction: float = 0.05
) -> pandas.DataFrame:
    """A table of issues as cleanlab has them, one row for each example in the order of the data.

    Args:
        scores, stage, score, hard: as for :func:`hard_score`.
        fraction: share of the examples, the hardest, that are issues.

    Returns:
        Columns ``is_hard_issue`` (bool), ``hard_score`` (0 to 1, lower is worse; NaN without a score, and then no
        issue), ``id``, ``label`` (-1 for none) and the scores of the stage; the index is the position.

    Raises:
        VogcoreError: pandas is not installed.
        SettingsError: as :func:`hard_score`, or a `fraction` outside of 0 to 1.
    """
    pd = require("pandas", "pandas", "A table of issues")
    columns = columns_of(scores, stage=stage, score=score, hard=hard, fraction=fraction)
    first = {name: columns.pop(name) for name in ("is_hard_issue", "hard_score")}
    table: pandas.DataFrame = pd.DataFrame(
        {**first, "id": scores.ids, "label": scores.labels, **columns},
        index=pd.RangeIndex(len(scores), name="position"),
    )
    return table


def sampler_weights(
    scores: Scores,
    *,
    prefer: str = "hard",
    power: float = 1.0,
    stage: str = ALL,
    score: str = "vog",
    hard: str | None = None,
) -> npt.NDArray[np.float64]:
    """Weights for ``torch.utils.data.WeightedRandomSampler(weights, num_samples=len(weights))``.

    The weight is the rank from the other end, (0, 1), to the given power, scaled to a mean of 1; ranks and not scores,
    so that a few extreme scores do not take all draws.

    Args:
        scores, stage, score, hard: as for :func:`hard_score`.
        prefer: ``"hard"`` or ``"easy"``, which examples are drawn more often.
        power: 0 draws evenly, 1 in proportion to the rank, more emphasises more.

    Returns:
        (N,) float64, positive; 1 where the score is NaN.

    Raises:
        SettingsError: as :func:`hard_score`, an unknown `prefer`, or a `power` that is negative or not finite.
    """
    _one_of("prefer", prefer)
    if not (np.isfinite(power) and power >= 0):
        raise SettingsError(f"power={power} is not possible: give a number from 0 on.")
    rank = hard_score(scores, stage=stage, score=score, hard=hard)
    # Of a power the logarithm, so that no weight becomes 0 and leaves its example out for good.
    log = power * np.log(rank if prefer == "easy" else 1 - rank)
    known = ~np.isnan(rank)
    weights = np.ones(len(rank))
    if known.any():
        weights[known] = np.exp(np.maximum(log[known] - log[known].max(), -300))
        weights[known] /= weights[known].mean()
    return weights


def curriculum(
    scores: Scores, *, hardest_first: bool = False, stage: str = ALL, score: str = "vog", hard: str | None = None
) -> npt.NDArray[np.int64]:
    """Positions of all examples from easy to hard.

    Args:
        scores, stage, score, hard: as for :func:`hard_score`.
        hardest_first: from hard to easy instead.

    Returns:
        (N,) int64; equal scores keep the order of the data, NaN scores come last.

    Raises:
        SettingsError: as :func:`hard_score`.
    """
    values = _hardness(scores, stage, score, hard)
    return np.argsort(-values if hardest_first else values, kind="stable").astype(np.int64, copy=False)


def keep_mask(
    scores: Scores,
    keep: float,
    *,
    drop: str,
    per_class: bool = True,
    stage: str = ALL,
    score: str = "vog",
    hard: str | None = None,
) -> npt.NDArray[np.bool_]:
    """Which examples to keep when a data set is pruned.

    Which end to drop is for the user to say: with much data it is the easy one, with little the hard one (Sorscher et
    al., "Beyond neural scaling laws", NeurIPS 2022).

    Args:
        scores, stage, score, hard: as for :func:`hard_score`.
        keep: fraction to keep, 0 to 1, of each class or of the whole; the number is rounded to the nearest.
        drop: ``"hard"`` or ``"easy"``, which examples go first. Those with a NaN score go last.
        per_class: keep the fraction of every class, by label (examples without a label are a class of their own).

    Returns:
        (N,) bool, True for those to keep.

    Raises:
        SettingsError: as :func:`hard_score`, a fraction outside of 0 to 1, or an unknown `drop`.

    Warns:
        VogcoreWarning: no example of some class is kept.
    """
    _one_of("drop", drop)
    if not 0 <= keep <= 1:
        raise SettingsError(f"keep={keep} is not possible: give a fraction from 0 to 1.")
    values = _hardness(scores, stage, score, hard)
    # In the order in which examples stay: NaN is put first by its infinite value, ties in the order of the data.
    order = np.argsort(np.where(np.isnan(values), -np.inf, values if drop == "hard" else -values), kind="stable")
    groups = scores.labels if per_class else np.zeros(len(scores), np.int64)
    mask = np.zeros(len(scores), np.bool_)
    for group in np.unique(groups):
        members = order[groups[order] == group]
        mask[members[: int(np.floor(keep * len(members) + 0.5))]] = True
    emptied = np.setdiff1d(scores.labels[scores.labels >= 0], scores.labels[mask])
    if len(emptied):
        names = [scores.classes[i] if i < len(scores.classes) else str(i) for i in emptied.tolist()]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        warnings.warn(
            f"Pruning to {keep:g} keeps no example of {', '.join(names[:_MOST_NAMES])}{more}: keep more of them.",
            VogcoreWarning,
            stacklevel=2,
        )
    return mask


def _one_of(name: str, value: str) -> None:
    if value not in ("hard", "easy"):
        raise SettingsError(f"{name}={value!r} is unknown: give 'hard' or 'easy'.")
