"""Two score files side by side: do they put the same examples at the hard end?"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError, SettingsError
from vogcore.scoring.direction import spearman, spearman_interval
from vogcore.scoring.settings import require_integer
from vogcore.store import CheckpointInfo, Direction, Scores, open_scores
from vogcore.store.schema import SCORE_NAMES

__all__ = ["Comparison", "Difference", "ScoreComparison", "compare"]


@dataclass(frozen=True)
class ScoreComparison:
    """One score at one stage, in both files.

    Attributes:
        stage: name of the stage.
        score: ``"vog"``, ``"vog_raw"`` or ``"vog_relative"``.
        n: common examples whose score is finite in both.
        spearman: rank correlation over them; NaN where one of the two is constant.
        spearman_low, spearman_high: its 95% confidence interval (Fisher's z, Bonett & Wright 2000).
        first, second: which end is hard in each file, as measured there.
        agree: whether the measured directions are the same; None where one of them was not decided.
        hardest: how many examples of each file's hard end were compared.
        overlap: how many of those are in both.
        overlap_by_chance: how many would be if the two had nothing to do with each other, ``hardest`` squared over
            ``n``.
        jaccard: overlap over union; NaN where ``hardest`` is 0.
        jaccard_by_chance: the same of ``overlap_by_chance``.
    """

    stage: str
    score: str
    n: int
    spearman: float
    spearman_low: float
    spearman_high: float
    first: Direction
    second: Direction
    agree: bool | None
    hardest: int
    overlap: int
    overlap_by_chance: float
    jaccard: float
    jaccard_by_chance: float


@dataclass(frozen=True)
class Difference:
    """A setting, checkpoint or stage in which the files differ; None for what a file does not have.

    Attributes:
        name: what differs; parts of a setting are joined by dots.
        first, second: as JSON can hold it.
    """

    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        first, second: the files, or "first" and "second" for scores without one.
        n_first, n_second: examples in each.
        common: examples in both, by id.
        only_first, only_second: ids that are in one file only, in its order.
        labels_differ: common examples with another label (by the name of the class).
        scores: every score of every stage that both have.
        only_stages: stages that one file has and the other has not.
        settings: settings that differ.
        checkpoints: checkpoints that differ, by position.
        notes: what a reader must know, one sentence each.
    """

    first: str
    second: str
    n_first: int
    n_second: int
    common: int
    only_first: npt.NDArray
    only_second: npt.NDArray
    labels_differ: int
    scores: tuple[ScoreComparison, ...]
    only_stages: tuple[Difference, ...]
    settings: tuple[Difference, ...]
    checkpoints: tuple[Difference, ...]
    notes: tuple[str, ...]


def compare(
    first: Scores | str | os.PathLike[str],
    second: Scores | str | os.PathLike[str],
    *,
    hardest: float | None = None,
) -> Comparison:
    """Compare two score files over the examples that both have, which are found by their ids.

    Each file's hard end is the one that was measured in its own run, where that is decided, else the claimed one; so
    two runs that put the same examples at opposite ends have a negative rank correlation and a large overlap.

    Args:
        first, second: scores, or paths of score files.
        hardest: how much of each hard end is compared: a share of the common examples (below 1) or a number of them
            (an integer from 1 on); a tenth by default.

    Raises:
        DataError: the two have no example in common.
        SettingsError: ``hardest`` is not possible.
        StoreError: a file cannot be read.
    """
    a, b = _open(first), _open(second)
    names = (a.path or "first", b.path or "second")
    rows_a, rows_b = _join(a, b, names)
    count = _count(hardest, len(rows_a))
    class_a, class_b = (_class_names(s, rows) for s, rows in ((a, rows_a), (b, rows_b)))
    return Comparison(
        first=names[0],
        second=names[1],
        n_first=len(a),
        n_second=len(b),
        common=len(rows_a),
        only_first=np.delete(a.ids, rows_a),
        only_second=np.delete(b.ids, rows_b),
        labels_differ=int(np.sum(class_a != class_b)),
        scores=tuple(
            _compare(a, b, rows_a, rows_b, stage, score, count)
            for stage in a.stages
            if stage in b.stages
            for score in SCORE_NAMES
            if getattr(a.stages[stage], score) is not None and getattr(b.stages[stage], score) is not None
        ),
        only_stages=_stages(a, b),
        settings=tuple(differences(a.settings, b.settings)),
        checkpoints=tuple(_checkpoints(a.checkpoints, b.checkpoints)),
        notes=tuple(_notes(a, b)),
    )


def _open(scores: Scores | str | os.PathLike[str]) -> Scores:
    return scores if isinstance(scores, Scores) else open_scores(scores)


def _join(a: Scores, b: Scores, names: tuple[str, str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the common examples in both, in the order of the first."""
    kinds = [s.ids.dtype.kind in "iu" for s in (a, b)]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"The ids in {names[0]} are {_kind(kinds[0])} and those in {names[1]} {_kind(kinds[1])}, so no example is "
            "in both; score both with the same ids."
        )
    for s, name in ((a, names[0]), (b, names[1])):
        if len(np.unique(s.ids)) < len(s.ids):
            raise DataError(f"{name} has an id twice, so its examples cannot be found by their ids; score it again.")
    _, rows_a, rows_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    if not len(rows_a):
        raise DataError(f"No id is in both {names[0]} and {names[1]}; compare scores of the same examples.")
    order = np.argsort(rows_a)
    return rows_a[order], rows_b[order]


def _kind(integers: bool) -> str:
    return "numbers" if integers else "text"


def _count(hardest: float | None, n: int) -> int:
    if hardest is None:
        return max(n // 10, 1)
    if isinstance(hardest, float) and 0 < hardest < 1:
        return max(round(hardest * n), 1)
    if isinstance(hardest, float) and not hardest.is_integer():
        raise SettingsError(f"hardest={hardest} is not possible; give a share below 1, or a number of examples.")
    count = require_integer("hardest", int(hardest) if isinstance(hardest, float) else hardest)
    if count < 1:
        raise SettingsError(f"hardest={hardest} is not possible; give a share below 1, or a number of examples.")
    return min(count, n)


def _class_names(scores: Scores, rows: npt.NDArray[np.int64]) -> npt.NDArray:
    # By name, since the index of a class depends on which classes a file has.
    names = np.array([*scores.classes, ""], dtype=object)
    return names[scores.labels[rows]]  # -1, no label, is the last one


def _compare(
    a: Scores,
    b: Scores,
    rows_a: npt.NDArray[np.int64],
    rows_b: npt.NDArray[np.int64],
    stage: str,
    score: str,
    count: int,
) -> ScoreComparison:
    x, y = getattr(a.stages[stage], score)[rows_a], getattr(b.stages[stage], score)[rows_b]
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    n = len(x)
    rho = spearman(x, y) if n else math.nan
    low, high = spearman_interval(rho, n)
    first, second = a.stages[stage].direction(score), b.stages[stage].direction(score)
    count = min(count, n)
    overlap = len(np.intersect1d(_hardest(x, first, count), _hardest(y, second, count), assume_unique=True))
    chance = count * count / n if n else math.nan
    return ScoreComparison(
        stage=stage,
        score=score,
        n=n,
        spearman=rho,
        spearman_low=low,
        spearman_high=high,
        first=first,
        second=second,
        agree=first.measured == second.measured if first.decided and second.decided else None,
        hardest=count,
        overlap=overlap,
        overlap_by_chance=chance,
        jaccard=overlap / (2 * count - overlap) if count else math.nan,
        jaccard_by_chance=chance / (2 * count - chance) if count else math.nan,
    )


def _hardest(values: npt.NDArray[np.float64], direction: Direction, count: int) -> npt.NDArray[np.int64]:
    # Stable, as Scores.hardest: ties keep the order of the first file in both.
    return np.argsort(-values if direction.hard_is_high else values, kind="stable")[:count]


def _stages(a: Scores, b: Scores) -> tuple[Difference, ...]:
    names = list(dict.fromkeys([*a.stages, *b.stages]))
    windows = [{name: stage.checkpoints.tolist() for name, stage in s.stages.items()} for s in (a, b)]
    return tuple(
        Difference(name, windows[0].get(name), windows[1].get(name))
        for name in names
        if (name in windows[0]) != (name in windows[1])
    )


def _checkpoints(first: list[CheckpointInfo], second: list[CheckpointInfo]) -> list[Difference]:
    found = []
    for index in range(max(len(first), len(second))):
        one, other = (items[index] if index < len(items) else None for items in (first, second))
        if one is not None and other is not None and one.sha256 and other.sha256:
            same = one.sha256 == other.sha256
        else:
            same = one is not None and other is not None and one.name == other.name
        if not same:
            found.append(Difference(f"checkpoint {index}", _described(one), _described(other)))
    return found


def _described(checkpoint: CheckpointInfo | None) -> dict[str, str] | None:
    return None if checkpoint is None else {"name": checkpoint.name, "sha256": checkpoint.sha256}


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Settings that differ, as score files record them; nested ones by their path ("versions.numpy")."""
    # By way of JSON, which is how they are stored.
    one, other = (_flat(json.loads(json.dumps(settings, default=str))) for settings in (first, second))
    keys = dict.fromkeys([*one, *other])
    return [Difference(key, one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)]


def _flat(settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{where}{key}.")
        else:
            flat[f"{where}{key}"] = value
    return flat


def _notes(a: Scores, b: Scores) -> list[str]:
    digests = [_data(s).get("sha256") for s in (a, b)]
    positions = [s.ids.dtype.kind in "iu" and np.array_equal(s.ids, np.arange(len(s))) for s in (a, b)]
    notes = []
    if all(positions) and None not in digests and digests[0] != digests[1]:
        notes.append(
            "The ids are positions and the data sets differ, so examples were joined by position, which need not be "
            "the same example; score both with ids of their own to be sure."
        )
    return notes


def _data(scores: Scores) -> Mapping[str, Any]:
    data = scores.settings.get("data")
    return data if isinstance(data, Mapping) else {}
