"""The groups that score files and gradient archives share: examples, checkpoints, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vogcore.errors import StoreError
from vogcore.store._blocks import DIGESTS
from vogcore.store._hdf5 import Reader, encode_strings
from vogcore.store.schema import UNKNOWN
from vogcore.store.scores import CheckpointInfo

__all__ = [
    "example_tables",
    "fit",
    "fit_ids",
    "read_checkpoints",
    "read_classes",
    "read_digest",
    "read_labels",
    "write_checkpoints",
    "write_classes",
    "write_examples",
]


def fit(what: str, values: Any, dtype: str, shape: tuple[int, ...]) -> npt.NDArray:
    """An array to be written, after checking its shape and that its type converts without a change of kind.

    Raises:
        StoreError: it does not fit; the message names it.
    """
    array = np.asarray(values)
    if array.shape != shape:
        raise StoreError(f"Cannot write {what}: its shape is {array.shape}, not {shape}.")
    # An empty list has NumPy's default type, which says nothing about its values.
    if array.size and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise StoreError(
            f"Cannot write {what}: its type is {array.dtype}, which does not convert to {np.dtype(dtype)}."
        )
    return np.ascontiguousarray(array, dtype=dtype).reshape(shape)


def fit_ids(ids: Any, n: int) -> npt.NDArray:
    """Ids to be written: int64, or strings as fixed-length UTF-8.

    Raises:
        StoreError: another type, or not one for each example.
    """
    array = np.asarray(ids)
    if array.shape != (n,):
        raise StoreError(f"Cannot write examples/id: its shape is {array.shape}, not {(n,)}.")
    if array.dtype.kind == "i":
        return array.astype("<i8")
    if array.dtype.kind == "u" and array.max(initial=0) <= np.iinfo(np.int64).max:
        return array.astype("<i8")
    values = array.tolist()
    if all(isinstance(value, str) for value in values):
        return encode_strings(values, "examples/id")
    raise StoreError(f"Cannot write examples/id: ids must be int64 or str, not {array.dtype}.")


def example_tables(
    n: int, labels: npt.ArrayLike | None, ids: npt.ArrayLike | None, classes: Sequence[str] | None
) -> tuple[npt.NDArray, npt.NDArray, list[str], npt.NDArray]:
    """Ids, labels, class names and class counts of an archive, as they are stored.

    Raises:
        StoreError: they do not fit N or each other.
    """
    fitted = fit("examples/label", np.full(n, UNKNOWN) if labels is None else labels, "<i8", (n,))
    if fitted.min() < UNKNOWN:
        raise StoreError(f"Cannot write examples/label: {fitted.min()} is not a class index; -1 means no label.")
    needed = int(fitted.max()) + 1
    if classes is None and needed > 1_000_000:
        raise StoreError(f"Cannot write examples/label: {needed - 1} is too large for a class index.")
    names = [str(index) for index in range(needed)] if classes is None else list(classes)
    if needed > len(names):
        raise StoreError(f"Cannot write examples/label: label {needed - 1} has no name among {len(names)} classes.")
    count = np.bincount(fitted[fitted >= 0], minlength=len(names)).astype("<i8")
    return fit_ids(np.arange(n) if ids is None else ids, n), fitted, names, count


def write_examples(file: h5py.File, ids: npt.NDArray, labels: npt.NDArray[np.int64]) -> None:
    """``examples/id`` and ``examples/label``."""
    file["examples/id"] = ids
    file["examples/label"] = labels


def write_checkpoints(file: h5py.File, checkpoints: Sequence[CheckpointInfo]) -> None:
    """``checkpoints/{name, step, epoch, sha256}``."""
    file["checkpoints/name"] = encode_strings([c.name for c in checkpoints], "checkpoints/name")
    for field in ("step", "epoch"):
        values = [getattr(c, field) for c in checkpoints]
        file[f"checkpoints/{field}"] = np.array([UNKNOWN if v is None else v for v in values], dtype="<i8")
    file["checkpoints/sha256"] = encode_strings([c.sha256 for c in checkpoints], "checkpoints/sha256")


def write_classes(file: h5py.File, names: Sequence[str], count: npt.NDArray[np.int64]) -> None:
    """``classes/{name, count}``."""
    file["classes/name"] = encode_strings(list(names), "classes/name")
    file["classes/count"] = count


def read_checkpoints(reader: Reader) -> list[CheckpointInfo]:
    """``checkpoints/{name, step, epoch, sha256}``, checked."""
    names = reader.read_strings("checkpoints/name", (None,)).tolist()
    k = len(names)
    steps = reader.read("checkpoints/step", "i8", (k,)).tolist()
    epochs = reader.read("checkpoints/epoch", "i8", (k,)).tolist()
    hashes = reader.read_strings("checkpoints/sha256", (k,)).tolist()
    return [
        CheckpointInfo(name, None if step < 0 else step, None if epoch < 0 else epoch, sha256)
        for name, step, epoch, sha256 in zip(names, steps, epochs, hashes, strict=True)
    ]


def read_classes(reader: Reader) -> tuple[list[str], npt.NDArray[np.int64]]:
    """``classes/{name, count}``, checked."""
    names = reader.read_strings("classes/name", (None,)).tolist()
    return names, reader.read("classes/count", "i8", (len(names),))


def read_labels(reader: Reader, n: int, n_classes: int) -> npt.NDArray[np.int64]:
    """``examples/label``, checked to be a class or -1."""
    labels: npt.NDArray[np.int64] = reader.read("examples/label", "i8", (n,))
    if np.any((labels < UNKNOWN) | (labels >= n_classes)):
        raise reader.damaged(f"examples/label holds a value outside of -1 to {n_classes - 1}")
    return labels


def read_digest(reader: Reader, data: Any) -> str:
    """Which digest the blocks of an archive have: a name among :data:`vogcore.store._blocks.DIGESTS`.

    Raises:
        StoreError: one that this version does not know.
    """
    name: str = reader.string_attribute(data, "digest", "blake2b")
    if name not in DIGESTS:
        raise StoreError(f"{reader.path} has digests of the kind {name!r}, which this version lacks; update vogcore.")
    return name
