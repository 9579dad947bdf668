"""What an archive was begun with, to be compared with what a run wants to go on with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.store._blocks import DIGEST
from vogcore.store._hdf5 import Reader, to_json
from vogcore.store._tables import read_checkpoints, read_classes, read_digest, read_labels
from vogcore.store.schema import GRADIENTS_FORMAT
from vogcore.store.scores import CheckpointInfo

__all__ = ["Contents", "differences", "different_settings"]

_TYPES = {"f4": "float32", "f2": "float16", "u2": "bfloat16"}


_WORDS = {
    "n_examples": "examples",
    "shape": "shape of an example",
    "dtype": "dtype",
    "channel_axis": "channel axis",
    "block_size": "block_size",
    "compression": "compression",
    "classes": "class names",
}


@dataclass(eq=False)
class Contents:
    """Everything that is decided when an archive is begun."""

    n_examples: int
    shape: tuple[int, ...]
    dtype: str
    channel_axis: int | None
    block_size: int
    compression: str | None
    settings: Mapping[str, Any]
    ids: npt.NDArray
    labels: npt.NDArray[np.int64]
    classes: list[str]
    class_count: npt.NDArray[np.int64]
    digest: str = DIGEST

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Contents:
        """From an archive that need not be complete.

        Raises:
            StoreError: the file is damaged, or no archive.
        """
        reader = Reader(path, GRADIENTS_FORMAT)
        try:
            data = reader.dataset("gradients", tuple(_TYPES), None, partial=True)
            axis = reader.number_attribute(data, "channel_axis", None)
            classes, count = read_classes(reader)
            ids = reader.read_ids(int(data.shape[1]))
            return cls(
                n_examples=int(data.shape[1]),
                shape=tuple(int(size) for size in data.shape[2:]),
                dtype=_TYPES[f"{data.dtype.kind}{data.dtype.itemsize}"],
                channel_axis=None if axis is None else int(axis),
                block_size=int(reader.number_attribute(data, "block_size")),
                compression=reader.string_attribute(data, "compression", None),
                settings=reader.json_attribute("settings", dict),
                ids=ids,
                labels=read_labels(reader, len(ids), len(classes)),
                classes=classes,
                class_count=count,
                digest=read_digest(reader, data),
            )
        finally:
            reader.close()

    @staticmethod
    def checkpoints(path: str | os.PathLike[str]) -> list[CheckpointInfo]:
        """The checkpoints that an archive knows; none where it has no table of them.

        Raises:
            StoreError: the file is damaged.
        """
        reader = Reader(path, GRADIENTS_FORMAT)
        try:
            return read_checkpoints(reader) if reader.group("checkpoints") is not None else []
        finally:
            reader.close()


def differences(old: Contents, new: Contents) -> str | None:
    """What differs between two archives, in words; None where nothing does."""
    found = []
    for name, words in _WORDS.items():
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            found.append(f"{words}: {before} then, {after} now")
    if old.n_examples == new.n_examples:
        if _text(old.ids) != _text(new.ids):
            found.append("the ids of the examples")
        if not np.array_equal(old.labels, new.labels):
            found.append("the labels")
    found += different_settings(old.settings, new.settings)
    return "; ".join(found) or None


def _text(ids: npt.NDArray) -> list[str]:
    return [item.decode() if isinstance(item, bytes) else str(item) for item in ids.tolist()]


def different_settings(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """Which settings differ, as "name: then, now"; nested settings by their path."""
    # By way of JSON, which is how they are stored.
    old, new = (json.loads(to_json(settings)) for settings in (old, new))
    found = []
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += different_settings(before, after, f"{where}{name}.")
        else:
            found.append(f"{where}{name}: {json.dumps(before)} then, {json.dumps(after)} now")
    return found
