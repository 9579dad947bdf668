"""What a gradient archive does with one block of one checkpoint: types, digests, and which rows have been written."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vogcore.errors import GradientError, SettingsError

__all__ = [
    "BFLOAT16",
    "Coverage",
    "choose_block_size",
    "convert",
    "create_blocks",
    "digest",
    "pieces",
    "runs",
    "stored_type",
]

BFLOAT16 = "bfloat16"
_STORED = {"float32": "<f4", "float16": "<f2", BFLOAT16: "<u2"}
_EXACT_INTEGERS = {"float32": 2**24, "float16": 2**11, BFLOAT16: 2**8}
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


def _round_to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper half of float32, rounded to nearest, ties to even; NaN stays NaN."""
    bits = values.view(np.uint32)
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype("<u2")
    nan = np.isnan(values)
    if nan.any():
        # Rounding could carry a NaN into the sign bit or cut its payload to zero, which is infinity.
        rounded[nan] = (bits[nan] >> np.uint32(16)).astype("<u2") | np.uint16(0x40)
    return rounded


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
    step = np.dtype("<f4") if name == BFLOAT16 else target
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype=step).reshape(array.shape)
    stored = _round_to_bfloat16(values) if name == BFLOAT16 else values
    if array.dtype != stored.dtype:
        _check_conversion(array, stored, name)
    return stored


def _check_conversion(array: npt.NDArray, stored: npt.NDArray, name: str) -> None:
    if array.dtype.kind in "iu":
        largest = _EXACT_INTEGERS[name]
        if array.size and (int(array.max()) > largest or int(array.min()) < -largest):
            raise GradientError(
                f"Integer gradients beyond {largest} do not fit {name} exactly; convert them to floats."
            )
        return
    infinite = (stored & np.uint16(0x7FFF)) == np.uint16(0x7F80) if name == BFLOAT16 else np.isinf(stored)
    if infinite.any() and not np.array_equal(infinite, np.isinf(array)):
        finite = np.max(np.abs(array[np.isfinite(array)]))
        raise GradientError(f"A gradient of {finite:.3g} is too large for {name}; use an archive of a wider type.")


def digest(block: npt.NDArray) -> int:
    """First 8 bytes, as a little-endian number, of the BLAKE2b hash of a block's bytes (C order, little endian)."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(block).data).digest()[:8], "little")


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
