"""Readers of other packages for paths that the core does not know: image folders, Parquet, Zarr, or a user's own.

A package announces a reader as an entry point of the group ``vogcore.readers``. Its name is the suffix that the reader
is for, without the dot, or ``folder`` for folders of any other name; what it points at is called as ``reader(path,
labels, *, ids, class_names, preprocess, transform, x_name, y_name)``, with the meaning they have in
:func:`vogcore.data.open_source`, and returns an :class:`~vogcore._types.ExampleSource`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vogcore._types import ExampleSource
from vogcore.errors import DataError

__all__ = ["FOLDER", "GROUP", "find_reader", "other_suffixes"]

GROUP = "vogcore.readers"
FOLDER = "folder"
_OWN = ("npy", "npz", "h5", "hdf5", "hdf")


def find_reader(path: str | os.PathLike[str]) -> Callable[..., ExampleSource] | None:
    """The reader of another package for this path; None where there is none or the core reads such files itself.

    Raises:
        DataError: the package that announces the reader is broken.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix in _OWN:
        return None
    is_folder = Path(path).expanduser().is_dir()
    for name in (suffix, FOLDER if is_folder else ""):
        found = [*entry_points(group=GROUP, name=name)] if name else []
        if found:
            try:
                reader: Callable[..., Any] = found[0].load()
            except (ImportError, AttributeError) as error:
                raise DataError(
                    f"{path}: the reader {found[0].value} cannot be loaded ({error}): install its package again."
                ) from error
            return reader
    return None


def other_suffixes() -> list[str]:
    """Suffixes, without the dot, that other packages announce readers for."""
    return sorted({entry.name for entry in entry_points(group=GROUP)} - {FOLDER, *_OWN})
