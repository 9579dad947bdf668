"""Gradients that somebody else computed: an archive, an array, or a stream."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import GradientError
from vogcore.store import CheckpointInfo, GradientArchive, GradientWriter, open_gradients

__all__ = ["ArchiveGradients", "ArrayGradients", "spool"]

_BATCH_BYTES = 8 << 20
"""Bytes read at once: well beyond the cost of a call, well below the moments of a block."""


class ArrayGradients:
    """Gradients in an array (K, N, ...), NumPy or anything that slices like it (a memory map, an HDF5 data set)."""

    def __init__(self, array: Any) -> None:
        if getattr(array, "ndim", 0) < 3:
            raise GradientError(
                f"Gradients must have shape (checkpoints, examples, ...), but the array has shape {np.shape(array)}."
            )
        dtype = np.dtype(array.dtype)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise GradientError(f"Gradients must be float16, float32 or float64, but the array is {dtype}.")
        self.shape = tuple(int(size) for size in array.shape[2:])
        self.eps = float(np.finfo(dtype).eps)
        self.infos = [CheckpointInfo(name=f"checkpoint {k}") for k in range(array.shape[0])]
        self.names: Sequence[str] = [info.name for info in self.infos]
        self._array = array
        self._start = self._stop = 0
        self._rows = rows_at_once(self.shape, dtype.itemsize)

    def begin(self, start: int, stop: int) -> None:
        """See :class:`vogcore.scoring.run.Blocks`."""
        self._start, self._stop = start, stop

    def batches(self, checkpoint: int) -> Iterator[tuple[int, npt.NDArray]]:
        """See :class:`vogcore.scoring.run.Blocks`."""
        for start in range(self._start, self._stop, self._rows):
            yield start, np.asarray(self._array[checkpoint, start : min(start + self._rows, self._stop)])

    def repeated(self) -> list[tuple[str, str]]:
        """Pairs of checkpoints with the same gradients (for the first examples)."""
        stop = min(self._rows, self._array.shape[1])
        return _pairs(self.names, [np.asarray(self._array[k, :stop]).tobytes() for k in range(len(self.names))])


class ArchiveGradients:
    """Gradients in a vogcore archive."""

    def __init__(self, archive: GradientArchive) -> None:
        self.archive = archive
        self.shape = archive.shape
        self.infos = list(archive.checkpoints)
        self.names: Sequence[str] = [info.name or f"checkpoint {k}" for k, info in enumerate(self.infos)]
        self.eps = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[archive.dtype]
        self._start = self._stop = 0
        rows = rows_at_once(self.shape, 4 if archive.dtype == "float32" else 2)
        # Whole blocks of the archive: a block is read and its digest checked once.
        self._rows = max(rows // archive.block_size, 1) * archive.block_size

    def begin(self, start: int, stop: int) -> None:
        """See :class:`vogcore.scoring.run.Blocks`."""
        self._start, self._stop = start, stop

    def batches(self, checkpoint: int) -> Iterator[tuple[int, npt.NDArray]]:
        """See :class:`vogcore.scoring.run.Blocks`."""
        for start in range(self._start, self._stop, self._rows):
            yield start, self.archive.read(checkpoint, start, min(start + self._rows, self._stop))

    def repeated(self) -> list[tuple[str, str]]:
        """Pairs of checkpoints with the same gradients (for the first examples)."""
        stop = min(self._rows, self.archive.n_examples)
        return _pairs(self.names, [self.archive.read(k, 0, stop).tobytes() for k in range(len(self.names))])


def rows_at_once(shape: tuple[int, ...], itemsize: int) -> int:
    """Examples that make up a batch of a few megabytes."""
    return max(_BATCH_BYTES // max(int(np.prod(shape)) * itemsize, 1), 1)


def _pairs(names: Sequence[str], contents: Iterable[bytes]) -> list[tuple[str, str]]:
    first: dict[bytes, str] = {}
    pairs = []
    for name, content in zip(names, contents):
        original = first.setdefault(hashlib.blake2b(content).digest(), name)
        if original != name:
            pairs.append((original, name))
    return pairs


@contextlib.contextmanager
def spool(
    blocks: Iterable[tuple[int | str, int, npt.NDArray]], n_examples: int, folder: str | os.PathLike[str] | None
) -> Iterator[GradientArchive]:
    """Write a stream of (checkpoint, start, block) to a temporary archive, so that any order of blocks will do.

    Memory stays bounded however the stream is ordered; the disk holds all gradients as float32 (float16 where the
    stream is float16) until the scores are made.

    Args:
        blocks: ``checkpoint`` is an index or a name, ``start`` the position of the block's first example.
        n_examples: N.
        folder: where the temporary archive goes; the system's temporary folder by default.

    Raises:
        GradientError: a block is malformed, or some gradients are missing at the end.
        StoreError: the disk is full.
    """
    target = Path(tempfile.mkdtemp(prefix="vogcore-spool-", dir=folder))
    try:
        path = target / "gradients.h5"
        writer: GradientWriter | None = None
        try:
            for item in blocks:
                checkpoint, start, block = _unpack(item)
                if writer is None:
                    dtype = "float16" if block.dtype == np.float16 else "float32"
                    writer = GradientWriter(path, n_examples, block.shape[1:], dtype)
                writer.write(checkpoint, start, block)
            if writer is None:
                raise GradientError("The stream of gradients is empty; yield (checkpoint, start, block) tuples.")
            writer.close()
        except BaseException:
            if writer is not None:
                with contextlib.suppress(Exception):
                    writer.close()
            raise
        with open_gradients(path) as archive:
            yield archive
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _unpack(item: Any) -> tuple[int | str, int, npt.NDArray]:
    if not isinstance(item, tuple) or len(item) != 3:
        raise GradientError(
            "A stream of gradients yields tuples (checkpoint, start, block): a checkpoint's index or name, the "
            f"position of the first example, and gradients (b, ...); it yielded a {type(item).__name__}."
        )
    checkpoint, start, block = item
    array = np.asarray(block)
    if array.ndim < 2 or array.dtype.kind != "f":
        raise GradientError(
            f"Checkpoint {checkpoint!r}, examples from {start} on: gradients must be floating-point numbers (b, ...), "
            f"but the block is {array.dtype} of shape {array.shape}."
        )
    return checkpoint, start, array
