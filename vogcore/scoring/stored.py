"""Class statistics of another score file: a test or out-of-distribution set against its training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError
from vogcore.scoring.settings import Settings
from vogcore.store import CheckpointInfo, Scores, open_scores

__all__ = ["AS_MADE", "check_statistics", "open_statistics", "require_statistics"]

AS_MADE = "as the gradients were made"
"""What is recorded where gradients were given and nothing says how they were made."""
_COMPARED = ("of", "target", "wrt", "channels", "reduction", "scale")


def open_statistics(settings: Settings) -> Scores | None:
    """The score file with the statistics, where the settings name one.

    Raises:
        StoreError: it cannot be read.
    """
    return open_scores(settings.statistics) if settings.statistics is not None else None


def check_statistics(
    stored: Scores,
    settings: Settings,
    record: Mapping[str, Any],
    classes: Sequence[str],
    checkpoints: Sequence[CheckpointInfo],
    stages: Mapping[str, npt.NDArray[np.int64]],
    *,
    exact: bool,
) -> list[str]:
    """Refuse statistics of scores that mean something else, before any gradient is computed.

    Args:
        stored: the file with the statistics.
        settings: how this run makes scores.
        record: the settings as this run records them.
        classes: class names of this run.
        checkpoints: those of this run.
        stages: stage name to indices of checkpoints.
        exact: how many classes there are is known; labels alone do not tell, since the last ones may be missing.

    Returns:
        The class names to use: this run's, or the file's where this run has none or too few.

    Raises:
        SettingsError: the message names what differs.
    """
    where = settings.statistics
    for key in _COMPARED:
        theirs, ours = stored.settings.get(key), record.get(key)
        both = {theirs, ours}
        if theirs == ours or AS_MADE in both or (key == "target" and both == {"label", "predicted"}):
            continue
        raise SettingsError(f"The statistics in {where} were made with {key}={theirs!r}, but this run has {ours!r}.")
    made = stored.stage("all").normalise
    if made != settings.normalise and "robust" in (made, settings.normalise):
        raise SettingsError(
            f"The statistics in {where} were made with normalise={made!r}, but this run has {settings.normalise!r}; "
            "one of them is the median and the other the mean."
        )
    _check_checkpoints(stored, where, checkpoints, stages)
    return _check_classes(list(stored.classes), list(classes), where, exact)


def _check_classes(theirs: list[str], ours: list[str], where: str | None, exact: bool) -> list[str]:
    numbers = [str(index) for index in range(max(len(theirs), len(ours)))]
    if len(theirs) < len(ours) or (exact and len(theirs) > len(ours)):
        raise SettingsError(f"The statistics in {where} are for {len(theirs)} classes, but this run has {len(ours)}.")
    if ours in (theirs[: len(ours)], numbers[: len(ours)]):  # numbers stand for names that were not given
        return theirs
    if len(theirs) == len(ours) and theirs == numbers:
        return ours
    at = next(index for index, name in enumerate(ours) if name != theirs[index])
    raise SettingsError(
        f"The statistics in {where} call class {at} {theirs[at]!r}, but this run calls it {ours[at]!r}."
    )


def _check_checkpoints(
    stored: Scores,
    where: str | None,
    checkpoints: Sequence[CheckpointInfo],
    stages: Mapping[str, npt.NDArray[np.int64]],
) -> None:
    if len(stored.checkpoints) != len(checkpoints):
        raise SettingsError(
            f"The statistics in {where} are over {len(stored.checkpoints)} checkpoints, but this run has "
            f"{len(checkpoints)}; score both with the same checkpoints."
        )
    for theirs, ours in zip(stored.checkpoints, checkpoints):
        if theirs.sha256 and ours.sha256 and theirs.sha256 != ours.sha256:
            raise SettingsError(
                f"The statistics in {where} were made with other weights in checkpoint {theirs.name} than those of "
                f"{ours.name}; score both with the same checkpoints."
            )
    for name, indices in stages.items():
        if name not in stored.stages:
            raise SettingsError(f"The statistics in {where} have no stage {name!r}; score both with the same stages.")
        if not np.array_equal(stored.stages[name].checkpoints, indices):
            raise SettingsError(
                f"The statistics in {where} have other checkpoints in stage {name!r} than this run; score both with "
                "the same stages."
            )


def require_statistics(stored: Scores, settings: Settings, groups: npt.NDArray[np.int64]) -> None:
    """Every class that occurs must have statistics.

    Args:
        stored: the file with the statistics.
        settings: how this run makes scores.
        groups: class of every example (N,), -1 for none.

    Raises:
        SettingsError: the message names a class that has none.
    """
    empty = np.isnan(stored.stage("all").class_mean)
    lost = [stored.classes[c] for c in np.unique(groups[groups >= 0]) if empty[c]]
    if lost:
        raise SettingsError(
            f"The statistics in {settings.statistics} have no example of class {lost[0]!r}, which this run has to "
            "normalise."
        )
