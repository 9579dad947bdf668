"""What ``vogcore show`` says, as data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from vogcore.store.schema import SCORE_NAMES

if TYPE_CHECKING:
    from vogcore.store import Scores

__all__ = ["as_data"]


def as_data(scores: Scores, n: int, *, stage: str, score: str, overall: bool) -> dict[str, Any]:
    """The keys that docs/command-line.md describes.

    Args:
        scores: what to show.
        n: examples in each list.
        stage, score: what to list by.
        overall: one list over all classes instead of one for each; so it is without labels in any case.

    Raises:
        SettingsError: there is no stage or score of that name.
    """
    chosen = scores.stage(stage)
    direction = chosen.direction(score)
    overall = overall or not np.any(scores.labels >= 0)
    lists: dict[str, Any] = {}
    for name, order in (("hardest", scores.hardest), ("easiest", scores.easiest)):
        rows = order(len(scores), stage=stage, score=score)
        if overall:
            lists[name] = _examples(scores, rows[:n], stage)
        else:
            lists[name] = [
                {
                    "class": index,
                    "name": label,
                    "examples": _examples(scores, rows[scores.labels[rows] == index][:n], stage),
                }
                for index, label in enumerate(scores.classes)
            ]
    return {
        "path": scores.path,
        "created": scores.created,
        "vogcore_version": scores.vogcore_version,
        "examples": len(scores),
        "checkpoints": scores.checkpoints,
        "settings": scores.settings,
        "stage": stage,
        "score": score,
        "direction": {**_direction(direction), "hard_is_high": direction.hard_is_high},
        "directions": [
            {"stage": name, "score": key, **_direction(part.direction(key))}
            for name, part in scores.stages.items()
            for key in SCORE_NAMES
            if getattr(part, key) is not None
        ],
        "classes": [
            {"name": name, "examples": scores.class_count[index], "mean": chosen.class_mean[index],
             "std": chosen.class_std[index]}
            for index, name in enumerate(scores.classes)
        ],
        "lists": "overall" if overall else "by class",
        **lists,
        "warnings": scores.warnings,
    }  # fmt: skip


def _direction(direction: Any) -> dict[str, Any]:
    from vogcore.cli._json import plain

    return {**plain(direction), "decided": direction.decided, "contradicts": direction.contradicts}


def _examples(scores: Scores, rows: Iterable[int], stage: str) -> list[dict[str, Any]]:
    chosen = scores.stage(stage)
    predicted = scores.predictions_class
    found = []
    for row in rows:
        entry = {"position": int(row), "id": scores.ids[row], "label": scores.labels[row]}
        if predicted is not None and len(predicted):
            entry["predicted"] = predicted[-1][row]
        for name in SCORE_NAMES:
            values = getattr(chosen, name)
            if values is not None:
                entry[name] = values[row]
        found.append({**entry, **{name: companion.values[row] for name, companion in scores.companions.items()}})
    return found
