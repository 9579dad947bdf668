"""Scores as fields of the samples of a FiftyOne data set; tested with a stand-in, not with FiftyOne itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vogcore.errors import DataError, SettingsError

from .results import columns_of

if TYPE_CHECKING:
    from vogcore import Scores

__all__ = ["set_scores"]


def set_scores(
    samples: Any,
    scores: Scores,
    *,
    key_field: str | None = None,
    root: str | os.PathLike[str] | None = None,
    prefix: str = "",
    stage: str = "all",
    score: str = "vog",
    hard: str | None = None,
    fraction: float = 0.05,
) -> list[str]:
    """Set one field for each column of :func:`vogcore_adapters.results.columns_of` on all samples.

    Args:
        samples: a ``fiftyone`` data set or view.
        scores: the scores.
        key_field: field of the samples that holds the ids of the scores (``"filepath"``, ``"id"``); samples without a
            score get None there. None takes the samples in their order, which must be that of the scores.
        root: folder that ids are relative to, where `key_field` holds whole paths: those of an image folder.
        prefix: put in front of the names of the fields.
        stage, score, hard, fraction: as for :func:`vogcore_adapters.results.issues`.

    Returns:
        Names of the fields: ``vog``, ``vog_raw``, ``vog_relative`` where there is one, ``hard_score`` (0 to 1, lower is
        harder) and ``is_hard_issue``. A NaN is None.

    Raises:
        DataError: no ``fiftyone`` samples, another number of them, or none with the id of a score.
        SettingsError: `root` without `key_field`, and as :func:`vogcore_adapters.results.issues`.
    """
    if not hasattr(samples, "set_values") or not hasattr(samples, "values"):
        raise DataError(f"samples is a {type(samples).__name__}: pass a FiftyOne data set or view.")
    if root is not None and key_field is None:
        raise SettingsError("root has a meaning with key_field only: add key_field='filepath'.")
    columns = columns_of(scores, stage=stage, score=score, hard=hard, fraction=fraction)
    rows = _rows(samples, scores, key_field, root)
    for name, values in columns.items():
        cells = [None if cell != cell else cell for cell in values.tolist()]
        samples.set_values(prefix + name, [None if row is None else cells[row] for row in rows])
    return [prefix + name for name in columns]


def _rows(samples: Any, scores: Scores, key_field: str | None, root: Any) -> list[int | None]:
    """Position among the scores of every sample."""
    if key_field is None:
        if len(samples) != len(scores):
            raise DataError(
                f"There are {len(samples)} samples and {len(scores)} scores: pass key_field, the field that holds the "
                "ids of the scores."
            )
        return list(range(len(scores)))
    ids = scores.ids.tolist()
    if root is not None:
        # FiftyOne keeps absolute, normalised paths.
        ids = [os.path.abspath(os.path.join(os.path.expanduser(root), str(name))) for name in ids]
    position = {name: row for row, name in enumerate(ids)}
    rows = [position.get(key) for key in samples.values(key_field)]
    if all(row is None for row in rows):
        raise DataError(
            f"No sample has an id of the scores in its field {key_field!r} (the first id is {ids[0]!r}): choose "
            "another key_field, or give the root of the ids."
        )
    return rows
