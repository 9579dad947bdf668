"""What a run is made of, checked and put together before the first gradient is computed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore._types import ExampleSource
from vogcore.data.labels import check_class_names, check_ids, check_labels
from vogcore.errors import DataError, SettingsError
from vogcore.scoring.companions import LogitNotes
from vogcore.scoring.settings import Settings, require_integer
from vogcore.store import GradientArchive, check_output

__all__ = [
    "archive_targets",
    "check_count",
    "check_distinct",
    "check_outputs",
    "check_target_checkpoint",
    "choose_batch",
    "choose_class_names",
    "choose_examples",
    "notes_from_logits",
]

_MOST_CLASSES = 1_000_000
"""A label beyond that is a mistake, and would need memory for every class below it."""
_LOGIT_ROWS = 4096
"""Examples whose logits are read at once."""


def check_outputs(out: str | os.PathLike[str] | None, keep: str | os.PathLike[str] | None, overwrite: bool) -> None:
    """Refuse output paths that cannot be written, before hours of work rather than after them."""
    for path in (out, keep):
        if path is not None:
            check_output(path, overwrite)


def check_distinct(out: str | os.PathLike[str] | None, keep: str | os.PathLike[str] | None) -> None:
    """Refuse outputs that would be one file, or where one is what the other is called until it is complete."""
    if out is None or keep is None:
        return
    first, second = os.path.abspath(out), os.path.abspath(keep)
    if first == second:
        raise SettingsError(f"The scores and the gradients cannot both be written to {os.fspath(out)}.")
    if f"{first}.partial" == second or first == f"{second}.partial":
        raise SettingsError(
            f"{os.fspath(out)} and {os.fspath(keep)} get in each other's way, since an unfinished file is called "
            ".partial; choose another name."
        )


def check_target_checkpoint(settings: Settings, count: int) -> None:
    """The checkpoint whose prediction is the target must be one of the ``count``."""
    if settings.target == "predicted" and not -count <= settings.target_checkpoint < count:
        raise SettingsError(
            f"target_checkpoint={settings.target_checkpoint} does not exist; there are {count} (0 to {count - 1}, or "
            "-1 for the last)."
        )


def choose_batch(requested: int | None, shape: tuple[int, ...], fixed: int | None) -> int:
    """Examples in one run of a model; whole runs where the model fixes their size."""
    if requested is None:
        # About 8 MB of float32 input: enough to keep all threads busy, little enough for a deep model's activations.
        requested = int(np.clip((1 << 21) // max(int(np.prod(shape)), 1), 8, 256))
    return requested if fixed is None else max(requested // fixed, 1) * fixed


def check_count(name: str, requested: int | None, most: int | None = None) -> int | None:
    """A positive number that was asked for, as Python's int; None stays None.

    Raises:
        SettingsError: it is no integer, not positive, or more than ``most``.
    """
    if requested is None:
        return None
    number = require_integer(name, requested)
    if number < 1 or (most is not None and number > most):
        limits = "a positive number" if most is None else f"a number from 1 to {most}"
        raise SettingsError(f"{name}={number} is not possible; give {limits}.")
    return number


def choose_class_names(source: ExampleSource, recorded: list[str] | None, count: int, settings: Settings) -> list[str]:
    """Names of the model's classes: the data's, else the checkpoint's, else the indices; labels must fit them."""
    labels = source.labels
    if labels is not None and labels.max() >= count:
        position = int(np.argmax(labels >= count))
        raise DataError(
            f"{source.name}: example {position} has label {labels[position]}, but the model has {count} classes (0 to "
            f"{count - 1})."
        )
    if isinstance(settings.target, int) and settings.target >= count:
        raise SettingsError(f"target={settings.target} is not a class of the model, which has {count} classes.")
    if source.class_names is not None:
        if len(source.class_names) != count:
            raise DataError(
                f"{source.name}: there are {len(source.class_names)} class names, but the model has {count} classes."
            )
        return list(source.class_names)
    if recorded is not None and len(recorded) == count:
        # Names that no file could hold are as good as none: nobody asked for them on this run.
        with contextlib.suppress(DataError):
            return check_class_names(recorded, None, where="checkpoint")
    return [str(index) for index in range(count)]


def choose_examples(
    archive: GradientArchive | None, labels: Any, ids: Any, class_names: Sequence[str] | None, n: int, where: str
) -> tuple[npt.NDArray[np.int64] | None, list[str], npt.NDArray, str]:
    """Labels, class names and ids of gradients, given or from the archive, and where the classes come from.

    Returns:
        Labels (N,) or None; class names; ids (N,); ``"labels"``, ``"target"`` (the archive's record says at which class
        the gradients were taken) or ``"none"`` (a single class).
    """
    checked = check_labels(labels, n, where=where) if labels is not None else None
    if checked is None and archive is not None:
        checked = archive.labels
    found = archive.ids if archive is not None else np.arange(n, dtype=np.int64)
    if ids is not None:
        found = check_ids(ids, n, where=where)
    if checked is None:
        if class_names is not None:
            raise SettingsError(f"{where}: class names were given, but there are no labels; give both or neither.")
        if archive is not None and _targets_known(archive):
            return None, list(archive.classes), found, "target"
        return None, ["all"], found, "none"
    if class_names is not None:
        return checked, check_class_names(class_names, checked, where=where), found, "labels"
    stored = list(archive.classes) if archive is not None else []
    count = int(checked.max()) + 1
    if len(stored) >= count:
        return checked, stored, found, "labels"
    if count > _MOST_CLASSES:
        raise DataError(
            f"{where}: example {int(checked.argmax())} has label {count - 1}, which is too large for a class index; "
            "number the classes from 0."
        )
    return checked, [str(index) for index in range(count)], found, "labels"


def _targets_known(archive: GradientArchive) -> bool:
    target = archive.settings.get("target")
    if archive.settings.get("classes_from") != "target":
        return False
    return isinstance(target, int) or (target == "predicted" and archive.has_logits)


def archive_targets(archive: GradientArchive, notes: LogitNotes | None) -> npt.NDArray[np.int64]:
    """Target class (N,) of an archive's gradients, from its record and its predictions (K, N)."""
    target = archive.settings["target"]
    if isinstance(target, int):
        return np.full(archive.n_examples, target, np.int64)
    assert notes is not None
    return notes.predicted[int(archive.settings["target_checkpoint"])].astype(np.int64)


def notes_from_logits(
    archive: GradientArchive | None, labels: npt.NDArray[np.int64] | None, order: Sequence[int] | None = None
) -> LogitNotes | None:
    """What stored logits say about the examples, with labels that the logits reach; None where none are stored.

    ``order`` has the archive's index of every checkpoint, in the order of training; as stored by default.
    """
    if archive is None or not archive.has_logits:
        return None
    if labels is not None and labels.max() >= (archive.n_logits or 0):
        labels = None
    k, n = archive.n_checkpoints, archive.n_examples
    notes = LogitNotes(k, n, labels)
    rows = max(_LOGIT_ROWS // archive.block_size, 1) * archive.block_size
    for checkpoint in range(k):
        for start in range(0, n, rows):
            stop = min(start + rows, n)
            logits = archive.read_logits(order[checkpoint] if order is not None else checkpoint, start, stop)
            notes.note(checkpoint, start, logits)
    return notes
