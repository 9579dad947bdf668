"""What a gradient archive does with one block of one checkpoint: types, digests, and which rows have been written."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import numpy.typing as npt
import xxhash

from vogcore.errors import GradientError, SettingsError

__all__ = [
    "BFLOAT16",
    "DIGEST",
    "DIGESTS",
    "Coverage",
    "Digest",
    "choose_block_size",
    "convert",
    "create_blocks",
    "pieces",
    "runs",
    "stored_type",
]

BFLOAT16 = "bfloat16"
_STORED = {"float32": "<f4", "float16": "<f2", BFLOAT16: "<u2"}
_EXACT_INTEGERS = {"float32": 2**24, "float16": 2**11, BFLOAT16: 2**8}
_INFINITY = {"float32": 0x7F800000, "float16": 0x7C00, BFLOAT16: 0x7F80}
"""As bits."""
_CACHED = 16384
"""Values that are converted at once: 100 KB with what comes out."""
_TARGET_BYTES = 8_000_000  # chunks of 1 to 10 MB write and read fastest
_LARGEST_CHUNK = 2**32 - 1  # a limit of HDF5


def stored_type(dtype: npt.DTypeLike | str) -> tuple[str, np.dtype]:
    """Name and type on disk of the element type of an archive.

    Raises:
        SettingsError: it is none of float32, float16, bfloat16.
    """
    name = dtype if isinstance(dtype, str) and dtype == BFLOAT16 else _dtype_name(dtype)
    if name not in _STORED:
        raise SettingsError(f"An archive holds float32, float16 or bfloat16 gradients, not {dtype!r}.")
    return name, np.dtype(_STORED[name])


def _dtype_name(dtype: npt.DTypeLike) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        return ""


def choose_block_size(n_examples: int, shape: tuple[int, ...], itemsize: int, wanted: int | None) -> int:
    """Examples in a block: as asked for, else as many as fit into 8 MB (at least one, at most N).

    Raises:
        SettingsError: less than 1, or a block of 4 GB or more.
    """
    row = math.prod(shape) * itemsize
    if wanted is not None and wanted < 1:
        raise SettingsError(f"The block size must be 1 or more, not {wanted}.")
    size = min(n_examples, max(1, _TARGET_BYTES // row) if wanted is None else wanted)
    if size * row > _LARGEST_CHUNK:
        raise SettingsError(
            f"A block of {size} examples of {row} bytes is larger than the 4 GB that HDF5 allows; use smaller blocks."
        )
    return size


def convert(block: npt.ArrayLike, name: str) -> npt.NDArray:
    """A block in the type on disk, C-contiguous.

    Floats of any width are rounded to the type of the archive (bfloat16 by way of float32, to nearest even); integers
    must be small enough to fit exactly; uint16 for a bfloat16 archive is taken as its bits. NaN and infinity are kept.

    Raises:
        GradientError: the type does not convert, or a finite value is too large for the archive's type.
    """
    array = np.asarray(block)
    target = np.dtype(_STORED[name])
    if name == BFLOAT16 and array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.ascontiguousarray(array, dtype=target).reshape(array.shape)
    if array.dtype.kind not in "fiu":
        raise GradientError(f"Gradients of type {array.dtype} cannot be stored as {name}; convert them first.")
    if array.dtype == target:
        return np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.kind in "iu":
        _check_integers(array, name)
    stored = np.empty(array.shape, target)
    if _convert(np.ascontiguousarray(array).reshape(-1), stored.reshape(-1), name):
        _check_range(array, stored, name)
    return stored


def _check_integers(array: npt.NDArray, name: str) -> None:
    largest = _EXACT_INTEGERS[name]
    if array.size and (int(array.max()) > largest or int(array.min()) < -largest):
        raise GradientError(f"Integer gradients beyond {largest} do not fit {name} exactly; convert them to floats.")


def _convert(values: npt.NDArray, stored: npt.NDArray, name: str) -> bool:
    """Fill ``stored``; True where something in it is not finite.

    In pieces that stay in the cache, which is a sixth faster than in whole passes through memory.
    """
    target = stored.view(ml_dtypes.bfloat16) if name == BFLOAT16 else stored
    bits = stored.view(f"<u{stored.itemsize}")
    exponent = bits.dtype.type(_INFINITY[name])
    special = False
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(values), _CACHED):
            piece = slice(start, start + _CACHED)
            target[piece] = values[piece].astype(np.float32) if name == BFLOAT16 else values[piece]
            special = special or bool((bits[piece] & exponent).max() == exponent)
    return special


def _check_range(array: npt.NDArray, stored: npt.NDArray, name: str) -> None:
    infinite = np.isinf(stored.view(ml_dtypes.bfloat16) if name == BFLOAT16 else stored)
    if not np.array_equal(infinite, np.isinf(array)):
        finite = np.max(np.abs(array[np.isfinite(array)]))
        raise GradientError(f"A gradient of {finite:.3g} is too large for {name}; use an archive of a wider type.")


class Digest:
    """The digest of a block, given its bytes in any number of pieces, in order.

    Args:
        algorithm: one of :data:`DIGESTS`.
    """

    def __init__(self, algorithm: str) -> None:
        self._begin, self._value = DIGESTS[algorithm]
        self._state = self._begin()

    def update(self, rows: npt.NDArray) -> None:
        """Go on with rows, C-contiguous and little-endian as they are stored."""
        self._state.update(rows.reshape(-1).view(np.uint8).data)

    def value(self) -> int:
        """A number below 2**64."""
        return self._value(self._state)


DIGEST = "xxh3_64"
"""The digest of new archives."""
DIGESTS: dict[str, tuple[Callable[[], Any], Callable[[Any], int]]] = {
    # A number as it is: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
    DIGEST: (xxhash.xxh3_64, lambda state: state.intdigest()),
    # First 8 bytes, little-endian, of the 64 of RFC 7693. Archives that name no digest have this one.
    "blake2b": (hashlib.blake2b, lambda state: int.from_bytes(state.digest()[:8], "little")),
}
"""By the name in the file: how one begins, and the number it ends in."""


def pieces(start: int, stop: int, block_size: int) -> Iterator[tuple[int, int, int]]:
    """Rows start to stop cut at block boundaries: (block, first row, end row)."""
    for block in range(start // block_size, -(-stop // block_size)):
        yield block, max(start, block * block_size), min(stop, (block + 1) * block_size)


def runs(numbers: Sequence[int] | npt.NDArray[np.integer]) -> list[tuple[int, int]]:
    """Consecutive numbers as pairs (first, behind the last); ``numbers`` rise."""
    rising = np.asarray(numbers, np.int64)
    parts = np.split(rising, np.flatnonzero(np.diff(rising) != 1) + 1) if rising.size else []
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def create_blocks(
    file: h5py.File,
    name: str,
    dtype: np.dtype,
    n: int,
    shape: tuple[int, ...],
    block: int,
    compression: Mapping[str, Any] | None = None,
) -> h5py.Dataset:
    """An empty dataset (0, N, *shape), growing along the checkpoints, in chunks of one block.

    Space is reserved when a checkpoint is added and not filled, so that every block is written exactly once; with a
    filter, ``compression`` as h5py takes it, when a block is written.
    """
    if compression is not None:
        return file.create_dataset(
            name, (0, n, *shape), dtype, maxshape=(None, n, *shape), chunks=(1, block, *shape), **compression
        )
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((1, block, *shape))
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((0, n, *shape), (h5py.h5s.UNLIMITED, n, *shape))
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, creation))


class Coverage:
    """Which rows of which checkpoint have been written; memory for whole blocks is one byte each.

    Attributes:
        complete: (K, blocks) bool: every row of the block has been written.
        adopted: (K, blocks) bool: an earlier run has written it.
    """

    def __init__(self, n: int, block_size: int) -> None:
        self._n = n
        self._block_size = block_size
        self.complete = np.zeros((0, -(-n // block_size)), dtype=bool)
        self.adopted = self.complete.copy()
        self._partial: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}

    def grow(self, k: int) -> None:
        """Make room for k checkpoints."""
        more = np.zeros((k - len(self.complete), self.complete.shape[1]), dtype=bool)
        self.complete = np.concatenate([self.complete, more])
        self.adopted = np.concatenate([self.adopted, more])

    def first_overlap(self, checkpoint: int, start: int, stop: int) -> int | None:
        """The first of the rows that has been written already, by this run, or None."""
        for block, first, end in pieces(start, stop, self._block_size):
            if self.adopted[checkpoint, block]:
                continue
            if self.complete[checkpoint, block]:
                return first
            rows = self._partial.get((checkpoint, block))
            if rows is not None:
                offset = block * self._block_size
                taken = np.flatnonzero(rows[first - offset : end - offset])
                if taken.size:
                    return first + int(taken[0])
        return None

    def add(self, checkpoint: int, block: int, first: int, end: int) -> bool:
        """Note rows of one block as written; True where that completes the block."""
        offset = block * self._block_size
        length = min(self._block_size, self._n - offset)
        if end - first < length:
            rows = self._partial.setdefault((checkpoint, block), np.zeros(length, dtype=bool))
            rows[first - offset : end - offset] = True
            if not rows.all():
                return False
            del self._partial[checkpoint, block]
        self.complete[checkpoint, block] = True
        return True

    def first_missing(self) -> tuple[int, int] | None:
        """(checkpoint, example) that is missing first, or None."""
        missing = np.argwhere(~self.complete)
        if not missing.size:
            return None
        checkpoint, block = (int(index) for index in missing[0])
        rows = self._partial.get((checkpoint, block))
        return checkpoint, block * self._block_size + (0 if rows is None else int(np.flatnonzero(~rows)[0]))
