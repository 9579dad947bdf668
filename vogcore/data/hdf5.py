"""HDF5 files, read in runs of examples and never as a whole."""

from __future__ import annotations

import importlib
import math
import os
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vogcore._hdf5_chunks import ChunkCheck
from vogcore._hdf5_heaps import check_all_heaps
from vogcore.data._files import check_file, describe_names
from vogcore.data._hdf5_links import checked_dataset, leads_to_dataset
from vogcore.data._hdf5_text import check_text
from vogcore.errors import DataError

__all__ = ["Hdf5File", "Hdf5Rows"]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_DEFAULT_CACHE_BYTES = 1 << 20  # HDF5's own chunk cache, for each open data set
_LARGEST_CACHE_BYTES = 512 << 20


class Hdf5Rows:
    """Rows of one HDF5 data set; slicing reads just these rows from the file.

    Attributes:
        shape: (N, ...).
        dtype: type of the stored values.
    """

    def __init__(self, dataset: h5py.Dataset, where: str) -> None:
        self._dataset = dataset
        self._where = where
        self.shape: tuple[int, ...] = dataset.shape
        try:
            self.dtype: np.dtype = dataset.dtype
        except (TypeError, ValueError) as error:
            raise DataError(f"{where} holds a type that NumPy does not have ({error}): store float32.") from error
        self._check = ChunkCheck(dataset)

    def __getitem__(self, key: slice, /) -> npt.NDArray:
        """The rows of a slice.

        Raises:
            DataError: the file is damaged there, was closed, or needs a compression filter that is not installed.
        """
        if not self._dataset:
            raise DataError(f"{self._where} was closed: open the source again.")
        try:
            self._check.rows(*key.indices(self.shape[0])[:2])
            rows: npt.NDArray = self._dataset[key]
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(_read_message(self._dataset, self._where, error)) from error
        return rows


class Hdf5File:
    """The named data sets of an HDF5 file, which stays open until :meth:`close`.

    Args:
        path: the file.

    Raises:
        DataError: missing, not HDF5, truncated, or open for writing elsewhere.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)
        self._path = check_file(path)
        self._file = self._open()

    def _open(self, **cache: int) -> h5py.File:
        try:
            return h5py.File(self._path, "r", **cache)
        except (OSError, RuntimeError) as error:
            raise DataError(self._open_message(error)) from error

    def _open_message(self, error: Exception) -> str:
        if isinstance(error, BlockingIOError) or "already open" in str(error):
            return f"{self.name} is open for writing elsewhere: close it there first."
        with open(self._path, "rb") as stream:
            if stream.read(8) == _HDF5_MAGIC:
                return f"{self.name} is a truncated or damaged HDF5 file: write or copy it again."
        return f"{self.name} is not an HDF5 file."

    def has(self, name: str) -> bool:
        """Whether there is a data set under this path, links followed."""
        try:
            return leads_to_dataset(self._file, name, f"{self.name} ({name!r})")
        except (OSError, RuntimeError, KeyError, ValueError):
            return False

    def describe(self) -> str:
        """The paths of all data sets with shapes and types, for a message."""
        found: dict[str, str] = {}

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = f"{item.shape} {item.dtype}"

        try:
            check_all_heaps(self._path)  # visiting opens every data set
            self._file.visititems(note)
            for name in self._file:  # visiting does not follow links, and has() does
                if name not in found and self.has(name):
                    note(name, self._file[name])
        except (OSError, RuntimeError, KeyError, ValueError, TypeError):
            return "a damaged table of contents"
        return describe_names(list(found.items()))

    def rows(self, name: str) -> Hdf5Rows:
        """The data set `name` for reading in runs; one example is read to see that reading works.

        Raises:
            DataError: an empty data set, values outside the file that cannot be checked, or the first row unreadable.
        """
        where = f"{self.name} ({name!r})"
        cache = _cache_bytes(self._dataset(name, where))
        if cache > _DEFAULT_CACHE_BYTES:
            # The size of the cache is fixed when a file is opened. Without room for the chunks of one run of examples,
            # small blocks would decompress every chunk again and again.
            self._file.close()
            self._file = self._open(rdcc_nbytes=cache, rdcc_nslots=10007)
        rows = Hdf5Rows(self._dataset(name, where), where)
        if rows.shape and rows.shape[0] and not rows.dtype.hasobject:  # which are no examples, and refused later
            _ = rows[0:1]
        return rows

    def values(self, name: str) -> npt.NDArray:
        """The whole of the small data set `name`; text as an object array of str.

        Raises:
            DataError: the data set cannot be read, or is neither (N,) nor (N, 1).
        """
        where = f"{self.name} ({name!r})"
        dataset = self._dataset(name, where)
        if dataset.ndim != 1 and dataset.shape[1:] != (1,):
            # Said before reading: a wrongly chosen data set may be far larger than memory.
            raise DataError(
                f"{where} has shape {dataset.shape} where a one-dimensional data set is needed: choose another, or "
                "store argmax(axis=1) of one-hot labels."
            )
        try:
            if dataset.shape:
                ChunkCheck(dataset).rows(0, dataset.shape[0])
            text = h5py.check_string_dtype(dataset.dtype)
            if text is None and dataset.dtype.hasobject:
                raise DataError(f"{where} holds {dataset.dtype}, neither numbers nor text: choose another data set.")
            if text is None:
                return np.asarray(dataset[()])
            if text.length is None:
                check_text(dataset)
            return np.asarray(dataset.asstr()[()], dtype=object)
        except UnicodeDecodeError:
            raise DataError(f"{where} holds text that is not valid UTF-8: store it as text.") from None
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise DataError(_read_message(dataset, where, error)) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _dataset(self, name: str, where: str) -> h5py.Dataset:
        dataset = checked_dataset(self._file, name, where)
        if _missing_filters(dataset):
            _register_filters()
        return dataset


def _cache_bytes(dataset: h5py.Dataset) -> int:
    """Chunk cache that keeps the chunks of two neighbouring runs of examples; 0 where the default will do."""
    if dataset.chunks is None or not dataset.shape:
        return 0
    across = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape[1:], dataset.chunks[1:]))
    needed = 2 * across * math.prod(dataset.chunks) * dataset.dtype.itemsize
    return needed if needed <= _LARGEST_CACHE_BYTES else 0


def _read_message(dataset: h5py.Dataset, where: str, error: Exception) -> str:
    """Why a read failed: a compression filter that is missing here, or a damaged file."""
    missing = _missing_filters(dataset)
    if missing:
        return (
            f"{where} is compressed with the HDF5 filter {missing[0]}, which is not installed here: pip install "
            "vogcore[compression], or save it with gzip or without compression."
        )
    return f"{where} cannot be read, so the file is damaged: write or copy it again ({str(error).splitlines()[0]})."


def _missing_filters(dataset: h5py.Dataset) -> list[int]:
    """Numbers of the data set's filters that HDF5 does not know here."""
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(at)[0] for at in range(plist.get_nfilters())]
    return [number for number in filters if not h5py.h5z.filter_avail(number)]


def _register_filters() -> None:
    """Make the filters of hdf5plugin known to HDF5, where it is installed."""
    try:
        importlib.import_module("hdf5plugin")
    except ImportError:
        return
