"""Numbers and tables of the benchmark reports: pure functions of scores and records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SCORES", "decile_errors", "json_ready", "markdown_table", "stage_results", "wrong_predictions"]

SCORES = ("vog", "vog_relative")
"""The paper's class-normalised score and the relative score (raw VoG over the example's mean absolute gradient)."""

DECILES = 10


def decile_errors(scores: npt.NDArray[np.floating], wrong: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Fraction of wrong predictions in each decile of a score.

    Args:
        scores: (N,) finite.
        wrong: (N,) True where the prediction is not the label.

    Returns:
        (10,) float64, lowest scores first. Examples with equal scores stay in their order; where N is not a multiple
        of ten the first deciles hold one example more; an empty decile is NaN.

    Raises:
        ValueError: the lengths differ or a score is not finite.
    """
    if scores.shape != wrong.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape} and predictions {wrong.shape} must be two lists of one length")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} scores are not finite, so they have no decile")
    parts = np.array_split(wrong[np.argsort(scores, kind="stable")], DECILES)
    return np.array([part.mean() if len(part) else math.nan for part in parts])


def wrong_predictions(scores: Any) -> npt.NDArray[np.bool_]:
    """Where the last checkpoint's prediction is not the label, of a ``vogcore.Scores``.

    Raises:
        ValueError: the score file holds no predictions.
    """
    if scores.predictions_class is None:
        raise ValueError("the score file holds no predictions, so errors cannot be counted")
    return scores.predictions_class[-1] != scores.labels


def stage_results(scores: Any, with_errors: bool) -> dict[str, Any]:
    """For every stage the checkpoints in it, the measured directions and, if asked for, the error of each decile.

    Args:
        scores: a ``vogcore.Scores``.
        with_errors: whether to count errors per decile; needs stored predictions.
    """
    results: dict[str, Any] = {}
    wrong = wrong_predictions(scores) if with_errors else None
    for name, stage in scores.stages.items():
        entry: dict[str, Any] = {
            "checkpoints": stage.checkpoints,
            "directions": {score: dataclasses.asdict(direction) for score, direction in stage.directions.items()},
        }
        if wrong is not None:
            values = {score: getattr(stage, score) for score in SCORES}
            entry["decile_errors"] = {
                score: decile_errors(value, wrong) for score, value in values.items() if value is not None
            }
        results[name] = entry
    return results


def json_ready(value: Any) -> Any:
    """The same value in types JSON has: NumPy arrays and scalars become lists and numbers, NaN and infinity None."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers are right-aligned, None is a dash."""
    rows = [["-" if cell is None else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(header), rule, *rows]) + "\n"
