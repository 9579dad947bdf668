"""The HDF5 file of an archive that is being written: changed as a whole or not at all, and found again afterwards.

HDF5 lays out the file and says where each chunk lies; the chunks themselves are then written past it, at those
positions. So the tables that HDF5 needs to open the file change only when a checkpoint is added.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from vogcore.store import _system
from vogcore.store._disk import DiskFile, Overlay

__all__ = ["Container", "chunk_positions"]

Result = TypeVar("Result")

# Not "latest": a file of these versions is read by every HDF5 from 1.8 on, and keeps its end in a known place.
_VERSIONS = ("earliest", "v108")
_PIECE = 1 << 20
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_END_AT = slice(40, 48)
"""Where the first version of HDF5's superblock keeps the end of the file (File Format Specification, II.A)."""


class Container:
    """An HDF5 file under change, locked against other writers.

    Args:
        path: the file.
        create: make it where it does not exist.

    Attributes:
        disk: the file under it.
        empty: there is nothing in it so far.
        cut_from: where an existing file ended, if that is before its end as HDF5 noted it; None for a whole file. What
            is missing reads as zeros.

    Raises:
        OSError: the system refused.
        OutputExistsError: another process is writing the file.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self.disk = DiskFile(path, create=create)
        self.cut_from: int | None = None
        try:
            self.disk.recover()
            head = bytearray(_END_AT.stop)
            self.disk.read(0, memoryview(head))
            # A file gets its content in one step, so one that is not empty and does not begin as HDF5 is damaged, or
            # somebody else's.
            self.empty = self.disk.size == 0
            end = int.from_bytes(head[_END_AT], "little")
            # A length that no disk holds is damage; HDF5 says so itself.
            if head.startswith(_SIGNATURE) and self.disk.size < end < 2**50:
                self.cut_from = self.disk.size
                self.disk.truncate(end)
        except BaseException:
            self.disk.close()
            raise

    def settle(self) -> None:
        """What was cut off has been noted in the file: from now on it may count as whole."""
        self.disk.sync()
        self.cut_from = None

    def clear(self) -> None:
        """Begin the file anew."""
        self.cut_from = None
        self.disk.truncate(0)
        self.empty = True

    def change(self, function: Callable[[h5py.File], Result]) -> Result:
        """Let ``function`` change the file; its changes are on disk when this returns, or none of them is.

        Raises:
            OSError: the system refused.
            RuntimeError: HDF5 refused.
        """
        overlay = Overlay(self.disk)
        with h5py.File(overlay, "r+", libver=_VERSIONS) as file:
            result = function(file)
        self.disk.apply(overlay)
        return result

    def create(self, function: Callable[[h5py.File], Result], table_bytes: int, data_bytes: int) -> Result:
        """Let ``function`` fill a new file, which has its name when this returns.

        Args:
            function: is given the file.
            table_bytes: room for HDF5's tables, which are kept together: what lies behind them can be cut off without
                their being lost. Room that is not needed takes no space on disk.
            data_bytes: what is reserved behind them, at most.

        Raises:
            OSError: the system refused.
            RuntimeError: HDF5 refused.
        """
        # Made beside the file, so that nobody ever sees it half made. Only here does HDF5 keep its tables together.
        new = self.disk.path.with_name(self.disk.path.name + ".new")
        try:
            _try_space(new, table_bytes, data_bytes)
            with h5py.File(new, "w", libver=_VERSIONS, meta_block_size=table_bytes, locking=False) as file:
                result = function(file)
            self.disk.become(new)
        finally:
            new.unlink(missing_ok=True)
        self.empty = False
        return result

    def close(self) -> None:
        """Close the file and give up the lock."""
        if self.cut_from is not None:
            # Whoever opens it next has to know as well that its end is missing.
            with contextlib.suppress(OSError):
                self.disk.truncate(self.cut_from)
        self.disk.close()


def _try_space(path: Path, table_bytes: int, data_bytes: int) -> None:
    """Write as much as HDF5 will: it cannot close a file that it cannot write, and crashes when the process ends."""
    descriptor = _system.SYSTEM.open(path)
    try:
        for start in range(0, table_bytes, _PIECE):
            _system.SYSTEM.write(descriptor, bytes(min(_PIECE, table_bytes - start)), start)
        _system.SYSTEM.truncate(descriptor, table_bytes + data_bytes)
    finally:
        _system.SYSTEM.close(descriptor)
        _system.SYSTEM.unlink(path)


def chunk_positions(dataset: h5py.Dataset) -> npt.NDArray[np.int64]:
    """Where the chunks (1, b, ...) of a dataset lie in its file.

    Returns:
        (K, chunks of a checkpoint) int64, in bytes; -1 where a chunk has no place yet.
    """
    per_row = -(-dataset.shape[1] // dataset.chunks[1]) if dataset.shape[1] else 0
    positions = np.full((dataset.shape[0], per_row), -1, np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        positions[chunk.chunk_offset[0], chunk.chunk_offset[1] // dataset.chunks[1]] = chunk.byte_offset

    dataset.file.flush()
    if positions.size:
        dataset.id.chunk_iter(note)
    return positions
