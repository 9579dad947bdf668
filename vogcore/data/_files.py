"""What every file reader checks first, and what the readers of named arrays have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError

__all__ = ["Container", "Rows", "check_file", "describe_names"]

_MOST_NAMES = 20


class Rows(Protocol):
    """Examples that are read by slices of the first axis: an array, a memory map, or rows of an HDF5 data set."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with the example axis in front (N, ...)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored values, in any byte order."""
        ...

    def __getitem__(self, key: slice, /) -> Any:
        """The rows of a slice with step 1, as an array."""
        ...


class Container(Protocol):
    """An open file of named arrays."""

    name: str
    """Path as the user gave it."""

    def has(self, name: str) -> bool:
        """Whether there is an array of this name."""
        ...

    def describe(self) -> str:
        """The names of all arrays with shapes and types, for a message."""
        ...

    def rows(self, name: str) -> Rows:
        """The array `name`, read by runs where the format allows it."""
        ...

    def values(self, name: str) -> npt.NDArray:
        """The whole of the small array `name` (labels, ids, class names); text as str objects or NumPy text."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path, once it is known to be a file with something in it.

    Raises:
        DataError: the path is missing, a folder, empty, or cannot be read.
    """
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            raise DataError(f"{path} is a folder: give a .npy, .npz, .h5 or .hdf5 file.")
        with open(file, "rb") as stream:
            if not stream.read(1):
                raise DataError(f"{path} is empty: write the file again.")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: check the path.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return file


def describe_names(items: list[tuple[str, str]]) -> str:
    """List (name, description) pairs for a message, cut where there are many of them."""
    if not items:
        return "no arrays"
    listed = ", ".join(f"{name!r} {what}" for name, what in items[:_MOST_NAMES])
    more = len(items) - _MOST_NAMES
    return f"{listed} and {more} more" if more > 0 else listed
