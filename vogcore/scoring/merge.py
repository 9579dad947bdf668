"""Score files over disjoint examples of one run, joined into what a single run over all of them would have written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError, SettingsError
from vogcore.scoring.assemble import Run, assemble
from vogcore.scoring.mergeable import require_mergeable
from vogcore.scoring.moments import RawScores
from vogcore.scoring.settings import Settings
from vogcore.store import Companion, Maps, Scores, open_scores

__all__ = ["ORDERS", "merge"]

ORDERS = ("auto", "given", "id")

_OF_A_PART = ("data", "gradients", "maps", "merged", "threads", "batch_size", "eps")
"""Parts of the record that each file has for itself, and that change no meaning."""
_NOTED = ("provider", "device")
_SETTINGS = ("channels", "reduction", "scale", "normalise", "statistics", "moments")
_EPS32 = 2.0**-23


def merge(files: Sequence[Scores | str | os.PathLike[str]], *, order: str = "auto") -> Scores:
    """Join score files over disjoint examples that were scored with the same checkpoints and settings.

    Class statistics, normalised scores, directions and the warnings about classes are computed anew over all examples
    (with the setting ``statistics`` those of that file stay). For shards of one data set all scores have the bits of a
    single run over the whole data set in the same order.

    Examples are found to be the same by their ids, so an id may occur once only. Where the ids of every file are the
    positions 0, 1, 2, ... of its own examples, which is what examples without ids get, the examples are numbered anew
    in the order in which the files are given.

    Args:
        files: scores or paths of score files, at least two.
        order: of the examples: ``"given"``, file after file; ``"id"``, sorted; or ``"auto"``: sorted where the ids of
            all files together are the positions 0 to N - 1, else as given.

    Returns:
        The scores; ``settings["merged"]`` names the files and the order. Maps and companions are those of the files.

    Raises:
        DataError: an id is in two files, or two files are of the same examples.
        SettingsError: an unknown order, fewer than two files, or files that differ in settings, checkpoints, stages or
            classes; the message names what differs.
        StoreError: a file cannot be read.
    """
    if order not in ORDERS:
        raise SettingsError(f"order={order!r} is not known; choose one of {', '.join(ORDERS)}.")
    if isinstance(files, str | os.PathLike | Scores) or len(files) < 2:
        raise SettingsError("One score file alone cannot be merged; give at least two.")
    parts = [part if isinstance(part, Scores) else open_scores(part) for part in files]
    names = [part.path or f"file {index}" for index, part in enumerate(parts)]
    classes = require_mergeable(parts, names)
    ids, rows, done = _order(parts, names, order)
    settings = Settings(**{key: parts[0].settings[key] for key in _SETTINGS if key in parts[0].settings})
    run = _run(parts, settings, classes, ids, rows)
    run.warnings = _kept_warnings(parts, names, settings)
    record = _record(parts, names, done)
    stored = parts[0] if settings.statistics is not None else None  # has the statistics, as all of them
    merged = assemble(run, settings, record, stored, level=3)
    merged.maps = _maps(parts, names, rows)
    if merged.maps is not None:
        merged.settings["maps"] = {"positions": len(merged.maps)}
    return merged


def _order(parts: Sequence[Scores], names: Sequence[str], order: str) -> tuple[npt.NDArray, npt.NDArray[np.int64], str]:
    """Ids (N,) of the whole, which row of all files one after the other each is, and how they were ordered."""
    if len({part.ids.dtype.kind in "iu" for part in parts}) > 1:
        raise DataError("Some files have numbers as ids and others text; score all of them with ids of one kind.")
    ids = np.concatenate([part.ids for part in parts])
    rows = np.arange(len(ids))
    if order != "id" and all(_are_positions(part.ids) for part in parts):
        _refuse_same_examples(parts, names)
        return np.arange(len(ids), dtype=np.int64), rows, "numbered"
    by_id = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[by_id][1:] == ids[by_id][:-1])
    if len(twice):
        ends = np.cumsum([len(part) for part in parts])
        one, other = (names[int(np.searchsorted(ends, row, side="right"))] for row in by_id[twice[0] : twice[0] + 2])
        raise DataError(
            f"Example {ids[by_id[twice[0]]]} is in {one} and in {other} ({len(twice):,} ids occur twice); merge files "
            "of disjoint examples."
        )
    if order == "id" or (order == "auto" and _are_positions(ids[by_id])):
        return ids[by_id], by_id, "id"
    return ids, rows, "given"


def _are_positions(ids: npt.NDArray) -> bool:
    return ids.dtype.kind in "iu" and np.array_equal(ids, np.arange(len(ids)))


def _refuse_same_examples(parts: Sequence[Scores], names: Sequence[str]) -> None:
    """Without ids of their own, the same examples twice can be told by their data, or else by their scores, alone."""
    seen: dict[Any, str] = {}
    for part, name in zip(parts, names, strict=True):
        data = part.settings.get("data")
        digest = data.get("sha256") if isinstance(data, Mapping) else None
        key = digest or part.vog_raw.tobytes()
        if key in seen:
            raise DataError(
                f"{seen[key]} and {name} are scores of the same examples; merge files of disjoint examples."
            )
        seen[key] = name


@dataclass
class _Noted:
    """What the logits said, as score files keep it; see :class:`vogcore.scoring.assemble.Notes`."""

    predicted: npt.NDArray[np.int32]
    probability: npt.NDArray[np.float32] | None
    found: dict[str, Companion]

    def companions(self) -> dict[str, Companion]:
        return self.found


def _run(
    parts: Sequence[Scores],
    settings: Settings,
    classes: list[str],
    ids: npt.NDArray,
    rows: npt.NDArray[np.int64],
) -> Run:
    """What a pass over the gradients of all parts would have collected."""

    def joined(of: Callable[[Scores], npt.NDArray]) -> npt.NDArray:
        return np.concatenate([of(part) for part in parts], axis=-1)[..., rows]

    first = parts[0]
    raw, relative = {}, {}
    for name in first.stages:
        score = joined(lambda part, name=name: part.stages[name].vog_raw)  # type: ignore[misc]
        magnitude = joined(lambda part, name=name: part.stages[name].mean_abs_gradient)  # type: ignore[misc]
        relative[name] = score
        # With a relative scale the file has the quotient only; the product is for judging what is rounding.
        raw[name] = RawScores(score * magnitude if settings.scale == "relative" else score, magnitude)
    labels = joined(lambda part: part.labels)
    noted = None
    if first.predictions_class is not None:
        noted = _Noted(
            predicted=joined(lambda part: part.predictions_class),  # type: ignore[arg-type,return-value]
            probability=None
            if first.predictions_label_probability is None
            else joined(lambda part: part.predictions_label_probability),  # type: ignore[arg-type,return-value]
            found={
                name: Companion(
                    joined(lambda part, name=name: part.companions[name].values),  # type: ignore[misc]
                    companion.direction,
                    companion.range,
                    companion.source,
                )
                for name, companion in first.companions.items()
            },
        )
    target = _targets(first.settings, labels, noted)
    how = first.settings.get("classes_from", "labels")
    groups = labels if how == "labels" else np.zeros(len(labels), np.int64) if how == "none" else target
    if groups is None:
        raise SettingsError(
            "The files are normalised by the class at which each gradient was taken, which they do not hold; score "
            "them again with this version."
        )
    return Run(
        labels=labels,
        groups=groups,
        ids=ids,
        classes=classes,
        checkpoints=list(first.checkpoints),
        stages={name: stage.checkpoints for name, stage in first.stages.items()},
        raw=raw,
        eps=max(float(part.settings.get("eps") or _EPS32) for part in parts),
        # On given gradients a run does not use what it may know of the targets (vogcore.scoring.given).
        targets=None if "gradients" in first.settings else target,
        logits=noted,
        relative=relative if settings.scale == "relative" else None,
        timings=_timings(parts),
    )


def _targets(
    record: Mapping[str, Any], labels: npt.NDArray[np.int64], noted: _Noted | None
) -> npt.NDArray[np.int64] | None:
    """Class at which the gradient of every example was taken (N,), where that is known."""
    target = record.get("target", "label")
    if target == "label":
        return labels
    if isinstance(target, int):
        return np.full(len(labels), target, np.int64)
    if target == "predicted" and noted is not None:
        return noted.predicted[int(record.get("target_checkpoint", -1))].astype(np.int64)
    return None


def _timings(parts: Sequence[Scores]) -> dict[str, float]:
    keys = dict.fromkeys(key for part in parts for key in part.timings)
    return {key: sum(part.timings.get(key, 0.0) for part in parts) for key in keys}


def _kept_warnings(parts: Sequence[Scores], names: Sequence[str], settings: Settings) -> list[str]:
    """Warnings of the files but those about the classes of a part, which are judged anew over the whole."""
    found: dict[str, list[str]] = {}
    for part, name in zip(parts, names, strict=True):
        if not part.warnings:
            continue
        alone = _run([part], settings, list(part.classes), part.ids, np.arange(len(part)))
        stored = part if settings.statistics is not None else None
        own = assemble(alone, settings, {}, stored, level=None).warnings
        for note in part.warnings:
            if note not in own:
                found.setdefault(note, []).append(name)
    kept = [note if len(where) == len(parts) else f"{', '.join(where)}: {note}" for note, where in found.items()]
    for key in _NOTED:
        values = [str(part.settings.get(key)) for part in parts]
        if len(set(values)) > 1:
            kept.append(f"The files were computed on different hardware ({key}: {_in_words(values, names)}).")
    versions = [part.settings.get("versions") or {} for part in parts]
    for package in dict.fromkeys(package for found_versions in versions for package in found_versions):
        values = [str(found_versions.get(package, "none")) for found_versions in versions]
        if len(set(values)) > 1:
            kept.append(f"The files were computed with different versions of {package} ({_in_words(values, names)}).")
    return kept


def _in_words(values: Sequence[str], names: Sequence[str]) -> str:
    where: dict[str, str] = {}
    for value, name in zip(values, names, strict=True):
        where.setdefault(value, name)
    return ", ".join(f"{value} in {name}" for value, name in where.items())


def _record(parts: Sequence[Scores], names: Sequence[str], order: str) -> dict[str, Any]:
    first = parts[0].settings
    record = {key: value for key, value in first.items() if key not in _OF_A_PART}
    data = [part.settings.get("data") for part in parts]
    if isinstance(data[0], Mapping):
        shape = list(data[0].get("shape") or [0])
        sources = list(dict.fromkeys(str(entry.get("name")) for entry in data if isinstance(entry, Mapping)))
        record["data"] = {"name": " + ".join(sources), "shape": [sum(map(len, parts)), *shape[1:]], "sha256": None}
    if "gradients" in first:
        record["gradients"] = " + ".join(dict.fromkeys(str(part.settings.get("gradients")) for part in parts))
    for key in ("threads", "batch_size"):
        if key in first:
            same = all(part.settings.get(key) == first[key] for part in parts)
            record[key] = first[key] if same else None
    files = [
        {
            "file": os.path.basename(name),
            "examples": len(part),
            "created": part.created,
            "data": part.settings.get("data"),
        }
        for part, name in zip(parts, names, strict=True)
    ]
    return {**record, "merged": {"order": order, "files": files}}


def _maps(parts: Sequence[Scores], names: Sequence[str], rows: npt.NDArray[np.int64]) -> Maps | None:
    """The maps of the files, at the positions of the whole."""
    place = np.empty(len(rows), np.int64)
    place[rows] = np.arange(len(rows))
    found: list[Maps] = []
    at = 0
    for part, name in zip(parts, names, strict=True):
        if part.maps is not None:
            if found and part.maps.vog.shape[1:] != found[0].vog.shape[1:]:
                raise SettingsError(
                    f"The maps in {name} have the shape {part.maps.vog.shape[1:]} and others {found[0].vog.shape[1:]}; "
                    "score the files with the same channels."
                )
            found.append(Maps(place[part.maps.index + at], part.maps.vog))
        at += len(part)
    if not found:
        return None
    return Maps(np.concatenate([m.index for m in found]), np.concatenate([m.vog for m in found]))
