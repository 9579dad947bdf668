"""What a run is made of, checked and put together before the first gradient is computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore._types import ExampleSource
from vogcore.data.labels import check_class_names, check_ids, check_labels
from vogcore.errors import DataError, SettingsError
from vogcore.scoring.companions import label_loss
from vogcore.scoring.sessions import Sessions
from vogcore.scoring.settings import Settings
from vogcore.store import check_output

__all__ = [
    "check_outputs",
    "check_target_checkpoint",
    "choose_batch",
    "choose_class_names",
    "choose_examples",
    "predictions_from_logits",
    "probe",
]


def check_outputs(out: str | os.PathLike[str] | None, keep: str | os.PathLike[str] | None, overwrite: bool) -> None:
    """Refuse output paths that cannot be written, before hours of work rather than after them."""
    for path in (out, keep):
        if path is not None:
            check_output(path, overwrite)
    if out is not None and keep is not None and os.path.abspath(out) == os.path.abspath(keep):
        raise SettingsError(f"The scores and the gradients cannot both be written to {os.fspath(out)}.")


def check_target_checkpoint(settings: Settings, count: int) -> None:
    """The checkpoint whose prediction is the target must be one of the ``count``."""
    if settings.target == "predicted" and not -count <= settings.target_checkpoint < count:
        raise SettingsError(
            f"target_checkpoint={settings.target_checkpoint} does not exist; there are {count} (0 to {count - 1}, or "
            "-1 for the last)."
        )


def choose_batch(requested: int | None, shape: tuple[int, ...]) -> int:
    """Examples in one run of a model."""
    if requested is not None:
        if requested < 1:
            raise SettingsError(f"batch_size={requested} is not possible; give a positive number.")
        return requested
    # About 8 MB of float32 input: enough to keep all threads busy, little enough for the activations of deep models.
    return int(np.clip((1 << 21) // max(int(np.prod(shape)), 1), 8, 256))


def probe(sessions: Sessions, source: ExampleSource) -> tuple[int, tuple[int, ...]]:
    """Number of logits and shape of one gradient, from one example of the data."""
    session = sessions.gradient(0)
    logits, gradient = session.run(source.read(0, 1), np.zeros(1, np.int64))
    return int(logits.shape[1]), tuple(int(size) for size in gradient.shape[1:])


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
    for names, where in ((source.class_names, source.name), (recorded, None)):
        if names is None:
            continue
        if len(names) == count:
            return list(names)
        if where is not None:
            raise DataError(f"{where}: there are {len(names)} class names, but the model has {count} classes.")
    return [str(index) for index in range(count)]


def choose_examples(
    archive: Any, labels: Any, ids: Any, class_names: Sequence[str] | None, n: int, where: str
) -> tuple[npt.NDArray[np.int64] | None, list[str], npt.NDArray]:
    """Labels, class names and ids of gradients, given or from the archive."""
    checked = check_labels(labels, n, where=where) if labels is not None else None
    if checked is None and archive is not None:
        checked = archive.labels
    stored = list(archive.classes) if archive is not None else []
    if class_names is not None:
        names = check_class_names(class_names, checked, where=where)
    elif checked is None:
        names = ["all"]
    else:
        count = int(checked.max()) + 1
        names = stored if len(stored) >= count else [str(index) for index in range(count)]
    if ids is not None:
        found = check_ids(ids, n, where=where)
    else:
        found = archive.ids if archive is not None else np.arange(n, dtype=np.int64)
    return checked, names, found


def predictions_from_logits(
    archive: Any, labels: npt.NDArray[np.int64] | None
) -> tuple[npt.NDArray[np.int32] | None, npt.NDArray[np.float32] | None, npt.NDArray[np.float64] | None]:
    """Predictions and loss from the logits that an archive may hold."""
    if archive is None or not archive.has_logits or labels is None or labels.max() >= archive.n_logits:
        return None, None, None
    k, n = archive.n_checkpoints, archive.n_examples
    predicted, probability, loss = np.empty((k, n), np.int32), np.empty((k, n), np.float32), np.empty(n)
    for checkpoint in range(k):
        for start in range(0, n, archive.block_size):
            stop = min(start + archive.block_size, n)
            logits = archive.read_logits(checkpoint, start, stop)
            predicted[checkpoint, start:stop] = logits.argmax(axis=1)
            part = label_loss(logits, labels[start:stop])
            probability[checkpoint, start:stop] = np.exp(-part)
            if checkpoint == k - 1:
                loss[start:stop] = part
    return predicted, probability, loss
