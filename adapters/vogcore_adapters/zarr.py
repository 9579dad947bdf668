"""Zarr arrays and groups, read in runs of examples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.data import ArraySource, Preprocess
from vogcore.data._files import describe_names
from vogcore.data.items import Transform, transformed
from vogcore.data.open_source import from_container
from vogcore.errors import DataError, SettingsError

from ._require import require

__all__ = ["open_zarr"]


def open_zarr(
    store: Any,
    labels: Any = None,
    *,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    transform: Transform | None = None,
    x_name: str | None = None,
    y_name: str | None = None,
    require_labels: bool = False,
) -> ArraySource:
    """Open the examples of a Zarr store (format 2 or 3).

    Args:
        store: path or URL of a store, or an open ``zarr.Array`` or ``zarr.Group``. A group holds named arrays, which
            are found as in an ``.npz`` file: ``x`` and ``y``, say, ``ids`` and ``class_names``.
        labels: class indices (N,); take the place of those in the group.
        ids, class_names: in place of those in the group.
        preprocess: from stored values to the model's input.
        transform: applied to every stored example by itself, the same on every call.
        x_name, y_name: names of the arrays of a group.
        require_labels: raise where there are none.

    Returns:
        The source. Chunks are decompressed as they are needed, so chunks of whole examples read best.

    Raises:
        VogcoreError: zarr is not installed.
        DataError: nothing to read there, no such array, or examples, labels and ids that do not fit.
        SettingsError: `x_name` or `y_name` for a single array.
    """
    zarr = require("zarr", "zarr", "Reading Zarr")
    if isinstance(store, (zarr.Array, zarr.Group)):
        opened, name = store, f"zarr {store.store_path}"
    else:
        name = str(store)
        opened = _open(zarr, store, name)
    given = {"ids": ids, "class_names": class_names}
    if isinstance(opened, zarr.Group):
        file = _Group(zarr, opened, name)
        return from_container(file, labels, given, preprocess, x_name, y_name, transform, require_labels=require_labels)
    if x_name is not None or y_name is not None:
        raise SettingsError(f"x_name and y_name choose arrays inside a group, and {name} is a single Zarr array.")
    if require_labels and labels is None:
        raise DataError(f"{name}: there are no labels: pass labels, or store them beside the examples in a group.")
    rows = transformed(_Rows(opened, name), transform, where=name)
    return ArraySource(rows, labels, **given, preprocess=preprocess, name=name)


def _open(zarr: Any, store: Any, name: str) -> Any:
    try:
        return zarr.open(os.path.expanduser(store) if isinstance(store, (str, os.PathLike)) else store, mode="r")
    # Stores, codecs and their file systems each have errors of their own.
    except Exception as error:
        raise DataError(
            f"{name} cannot be opened as a Zarr store ({type(error).__name__}: {error}): check the path."
        ) from error


class _Rows:
    """Rows of a Zarr array, with its errors as ours."""

    def __init__(self, array: Any, where: str) -> None:
        self._array, self._where = array, where
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype = np.dtype(array.dtype)

    def __getitem__(self, key: slice, /) -> npt.NDArray:
        return _values(self._array, key, self._where)


class _Group:
    """The named arrays of a group, as :class:`vogcore.data._files.Container` has them."""

    def __init__(self, zarr: Any, group: Any, name: str) -> None:
        self.name = name
        self._group = group
        self._arrays = {key: value for key, value in group.members() if isinstance(value, zarr.Array)}

    def has(self, name: str) -> bool:
        return name in self._arrays or (name in self._group and hasattr(self._group[name], "shape"))

    def describe(self) -> str:
        return describe_names([(name, f"{array.shape} {array.dtype}") for name, array in self._arrays.items()])

    def rows(self, name: str) -> _Rows:
        return _Rows(self._group[name], f"{self.name} ({name!r})")

    def values(self, name: str) -> npt.NDArray:
        return _values(self._group[name], slice(None), f"{self.name} ({name!r})")

    def close(self) -> None:
        """Nothing to let go of: chunks are opened when they are read."""


def _values(array: Any, key: slice, where: str) -> npt.NDArray:
    try:
        values = np.asarray(array[key])
    except Exception as error:
        raise DataError(
            f"{where} cannot be read ({type(error).__name__}: {error}): write or copy the store again."
        ) from error
    # NumPy's own variable-length text, which zarr gives for strings, has no meaning to the rest of vogcore.
    return values.astype(object) if values.dtype.kind == "T" else values
