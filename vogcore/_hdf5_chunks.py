"""Chunks of an HDF5 data set, checked before libhdf5 looks for them and decodes them.

libhdf5 (2.0.0 and before) does not compare what comes out of a filter with the size of the chunk: it reads beyond the
end of a buffer where DEFLATE gave too little, and beyond all memory where fewer bytes than a Fletcher-32 checksum has
are left. Nor does it compare the length of a fixed array, one of the indices of chunks, with the shape of the data set.
"""

from __future__ import annotations

import itertools
import math
import mmap
import struct
import zlib

import h5py
import numpy as np

from vogcore._hdf5_headers import HeaderError, read_header, read_superblock

__all__ = ["REFERENCE", "ChunkCheck", "can_decode", "check_index", "decoded_chunk", "stored_itemsize"]

REFERENCE = 16
"""Bytes of an element of variable length: its length, the address of a heap, the number of the object in it."""
_CHECKSUM = 4
"""Bytes that Fletcher-32 puts behind the values."""


class ChunkCheck:
    """Checks each filtered chunk of a data set once, before its values are read.

    Filters other than DEFLATE, shuffle and Fletcher-32 cannot be checked and are left to HDF5.

    Args:
        dataset: an open data set that :func:`vogcore._hdf5_storage.storage_problem` has nothing against.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._checked: set[int] = set()
        self._needed = dataset.chunks is not None and bool(_filters(dataset)) and can_decode(dataset)

    def rows(self, start: int, stop: int) -> None:
        """Check the chunks that hold the rows ``start`` to ``stop`` (exclusive) of the first axis.

        Raises:
            ValueError: a chunk is damaged.
            OSError, RuntimeError: HDF5 cannot read it.
        """
        if not self._needed or start >= stop:
            return
        chunks, shape = self._dataset.chunks, self._dataset.shape
        across = [range(0, length, part) for length, part in zip(shape[1:], chunks[1:], strict=True)]
        for row in range(start // chunks[0], -(-stop // chunks[0])):
            if row not in self._checked:
                for rest in itertools.product(*across):
                    decoded_chunk(self._dataset, (row * chunks[0], *rest))
                self._checked.add(row)


def _filters(dataset: h5py.Dataset) -> list[int]:
    creation = dataset.id.get_create_plist()
    return [creation.get_filter(at)[0] for at in range(creation.get_nfilters())]


def stored_itemsize(dataset: h5py.Dataset) -> int:
    """Bytes of an element in the file; of variable length, that of its reference."""
    text = h5py.check_string_dtype(dataset.dtype)
    variable = h5py.check_vlen_dtype(dataset.dtype) is not None or (text is not None and text.length is None)
    return REFERENCE if variable else int(dataset.id.get_type().get_size())


def can_decode(dataset: h5py.Dataset) -> bool:
    """Whether :func:`decoded_chunk` knows the filters of a data set."""
    known = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
    return set(_filters(dataset)) <= known


def decoded_chunk(dataset: h5py.Dataset, at: tuple[int, ...]) -> bytes:
    """The bytes of a chunk as they were before its filters; their checksum is left to HDF5.

    Args:
        dataset: a data set whose filters :func:`can_decode` knows.
        at: index of the chunk's first value.

    Raises:
        ValueError: the chunk is damaged.
        OSError, RuntimeError: HDF5 cannot read it.
    """
    mask, content = dataset.id.read_direct_chunk(at)
    itemsize = stored_itemsize(dataset)
    expected = math.prod(dataset.chunks) * itemsize
    for place, number in reversed(list(enumerate(_filters(dataset)))):
        if mask >> place & 1:
            continue
        if number == h5py.h5z.FILTER_FLETCHER32:
            if len(content) < _CHECKSUM:
                raise ValueError(f"the chunk at {at} is shorter than its checksum")
            content = content[:-_CHECKSUM]
        elif number == h5py.h5z.FILTER_DEFLATE:
            content = _inflated(content, expected + _CHECKSUM)
        elif len(content) == expected:
            content = np.frombuffer(content, np.uint8).reshape(itemsize, -1).T.tobytes()
    if len(content) != expected:
        raise ValueError(f"the chunk at {at} holds {len(content)} bytes instead of {expected}")
    return content


def _inflated(content: bytes, most: int) -> bytes:
    """What DEFLATE gives, but no more than one byte beyond what the chunk can be."""
    try:
        return zlib.decompressobj().decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError(f"a chunk cannot be decompressed ({error})") from error


def check_index(dataset: h5py.Dataset) -> None:
    """A fixed array that indexes the chunks of a data set must have a place for each of them.

    Raises:
        HeaderError: it has not, or the header of the data set is damaged.
        OSError: the file cannot be read.
    """
    with open(dataset.file.filename, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        superblock = read_superblock(data)
        header = read_header(data, superblock, h5py.h5o.get_info(dataset.id).addr)
        if not _is_fixed_array(header.layout):
            return
        (address,) = struct.unpack("<Q", header.layout[_address_at(header.layout) :][:8].ljust(8, b"\xff"))
        start = superblock.base + address
        entries = int.from_bytes(data[start + 8 : start + 16], "little")
        if data[start : start + 4] == b"FAHD" and entries < _most_chunks(dataset):
            raise HeaderError(f"the index of its chunks has {entries} entries")


def _is_fixed_array(layout: bytes) -> bool:
    """Version 4 or later, chunked, with index type 3."""
    return len(layout) > 5 and layout[0] >= 4 and layout[1] == 2 and layout[_address_at(layout) - 2 :][:1] == b"\3"


def _address_at(layout: bytes) -> int:
    """Where the address of a fixed array is: behind sizes, index type and page bits."""
    return 5 + layout[3] * layout[4] + 2


def _most_chunks(dataset: h5py.Dataset) -> int:
    shape = [most or length for most, length in zip(dataset.maxshape, dataset.shape, strict=True)]
    return math.prod(-(-length // part) for length, part in zip(shape, dataset.chunks, strict=True))
