"""Chunks behind filters, checked before libhdf5 decodes them.

libhdf5 (2.0.0 and before) does not compare what comes out of a filter with the size of the chunk: it reads beyond the
end of a buffer where DEFLATE gave too little, and beyond all memory where fewer bytes than a Fletcher-32 checksum has
are left.
"""

from __future__ import annotations

import itertools
import math
import zlib

import h5py

__all__ = ["ChunkCheck"]

_CHECKSUM = 4
"""Bytes that Fletcher-32 puts behind the values."""


class ChunkCheck:
    """Checks each filtered chunk of a data set once, before its values are read.

    Filters other than DEFLATE, shuffle and Fletcher-32 cannot be checked and are left to HDF5.

    Args:
        dataset: an open data set.
        file_size: bytes of the file that it is in.
    """

    def __init__(self, dataset: h5py.Dataset, file_size: int) -> None:
        creation = dataset.id.get_create_plist()
        self._filters = [creation.get_filter(at)[0] for at in range(creation.get_nfilters())]
        self._dataset, self._file_size = dataset, file_size
        self._checked: set[int] = set()
        known = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
        self._needed = bool(self._filters) and dataset.chunks is not None and set(self._filters) <= known

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
            if row in self._checked:
                continue
            for rest in itertools.product(*across):
                self._check((row * chunks[0], *rest))
            self._checked.add(row)

    def _check(self, at: tuple[int, ...]) -> None:
        info = self._dataset.id.get_chunk_info_by_coord(at)
        if info.byte_offset is None:
            return  # never written: HDF5 gives the fill value
        if info.size > self._file_size:
            raise ValueError(f"the chunk at {at} claims {info.size} bytes")
        mask, content = self._dataset.id.read_direct_chunk(at)
        expected = math.prod(self._dataset.chunks) * self._dataset.dtype.itemsize
        size = len(content)
        for place, number in reversed(list(enumerate(self._filters))):
            if mask >> place & 1:
                continue
            if number == h5py.h5z.FILTER_FLETCHER32:
                size -= _CHECKSUM
                content = content[: max(size, 0)]
            elif number == h5py.h5z.FILTER_DEFLATE:
                content = _inflated(content, expected + _CHECKSUM)
                size = len(content)
            if size < 0:
                break
        if size != expected:
            raise ValueError(f"the chunk at {at} holds {max(size, 0)} bytes instead of {expected}")


def _inflated(content: bytes, most: int) -> bytes:
    """What DEFLATE gives, but no more than one byte beyond what the chunk can be."""
    try:
        return zlib.decompressobj().decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError(f"a chunk cannot be decompressed ({error})") from error
