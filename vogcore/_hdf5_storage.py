"""Whether an HDF5 file can hold what the header of a data set claims, asked before anything is allocated for it."""

from __future__ import annotations

import math

import h5py

from vogcore._hdf5_chunks import check_index, stored_itemsize
from vogcore._hdf5_headers import HeaderError

__all__ = ["storage_problem"]

_MOST_COMPRESSION = 1100
"""The best that DEFLATE can do is 1032:1; a file that claims more is not believed."""
_BOUNDED = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF, h5py.h5z.FILTER_SZIP, h5py.h5z.FILTER_SHUFFLE,
                      h5py.h5z.FILTER_FLETCHER32})  # fmt: skip
_LARGEST_CHUNK = 1 << 30
"""Bytes of a chunk behind a filter without such a bound."""


def storage_problem(
    dataset: h5py.Dataset, file_size: int, *, any_filter: bool = False, partial: bool = False
) -> str | None:
    """What is wrong with the storage of a data set, as the end of a sentence that begins with its name; or None.

    Args:
        dataset: an open data set with a shape. Its values are not read.
        file_size: bytes of the file that it is in.
        any_filter: believe filters other than HDF5's own (zstd, blosc and the like) that they compressed more.
        partial: the data set need not be written in full.
    """
    creation = dataset.id.get_create_plist()
    if creation.get_external_count() or creation.get_layout() == h5py.h5d.VIRTUAL:
        return "keeps its values in another file"
    filters = {creation.get_filter(at)[0] for at in range(creation.get_nfilters())}
    itemsize = stored_itemsize(dataset)
    claimed = math.prod(dataset.shape) * itemsize
    if not claimed:
        return None
    chunk = math.prod(dataset.chunks) * itemsize if dataset.chunks else 0
    most = file_size * (_MOST_COMPRESSION if filters else 1)
    unbounded = any_filter and not filters <= _BOUNDED
    if (claimed > most and not unbounded) or chunk > (_LARGEST_CHUNK if unbounded else most):
        return f"claims {max(claimed, chunk)} bytes, more than the file can hold"
    try:
        if dataset.chunks:
            check_index(dataset)
    except HeaderError as error:
        return f"cannot be read: {error}"
    if filters and dataset.chunks:
        chunks = math.prod(-(-length // part) for length, part in zip(dataset.shape, dataset.chunks, strict=True))
        sizes: list[int] = []
        dataset.id.chunk_iter(lambda info: sizes.append(info.byte_offset + info.size))
        if max(sizes, default=0) > file_size:
            return "has a chunk beyond the end of the file"
        written = len(sizes) >= chunks
    else:
        written = dataset.id.get_storage_size() >= claimed
    return None if written or partial else "was never written in full"
