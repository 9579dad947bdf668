"""Variable-length text in HDF5 files of strangers: every element is checked before libhdf5 makes room for it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import h5py

from vogcore._hdf5_chunks import REFERENCE, can_decode, decoded_chunk
from vogcore._hdf5_headers import HeaderError
from vogcore._hdf5_heaps import check_references

__all__ = ["check_text"]

_PIECE = 1 << 20
_ROOM = 64 << 20


def check_text(dataset: h5py.Dataset) -> None:
    """Make sure that a data set of variable-length text refers to text in its own file, not too often to the same.

    Raises:
        HeaderError: it does not, or it is stored in a way that cannot be checked.
        ValueError, OSError, RuntimeError: a chunk is damaged.
    """
    path = dataset.file.filename
    total = check_references(path, _references(dataset))
    if total > _ROOM + 4 * os.path.getsize(path):
        raise HeaderError("it refers to the same long text over and over, far beyond the size of the file")


def _references(dataset: h5py.Dataset) -> Iterator[bytes]:
    if dataset.chunks is not None and can_decode(dataset):
        steps = [range(0, length, part) for length, part in zip(dataset.shape, dataset.chunks, strict=True)]
        for at in itertools.product(*steps):
            yield decoded_chunk(dataset, at)
        return
    offset = dataset.id.get_offset()
    if dataset.chunks is not None or offset is None:
        raise HeaderError("its text cannot be checked as it is stored; store it without a filter, or as fixed-length")
    with open(dataset.file.filename, "rb") as file:
        file.seek(offset)
        left = dataset.size * REFERENCE
        while left > 0:
            piece = file.read(min(left, _PIECE))
            if len(piece) % REFERENCE or not piece:
                raise HeaderError("its references end beyond the file")
            left -= len(piece)
            yield piece
