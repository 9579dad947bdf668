"""One dataset (K, N, ...) of an archive that is being written, with its ``done`` and ``digest``."""

from __future__ import annotations

import math

import h5py
import numpy as np
import numpy.typing as npt

from vogcore.store._blocks import Coverage, Digest, create_blocks, runs
from vogcore.store._container import Container, chunk_positions

__all__ = ["BlockDataset"]

# Compressed blocks that wait in memory for the next change of the file's tables.
_COMPRESSED_BYTES = 64_000_000


class _OpenBlock:
    """A block of which some rows are on disk.

    Attributes:
        digest: of the rows so far.
        rows: how many there are in it; None where they did not come in order, and the block has to be read for it.
    """

    def __init__(self, algorithm: str) -> None:
        self.digest = Digest(algorithm)
        self.rows: int | None = 0


class BlockDataset:
    """Writes blocks, and marks those that are complete once they are on disk.

    ``coverage`` belongs to the thread of the user, everything else to the thread that writes, or to the user's while
    that one has nothing to do.

    Args:
        container: the file.
        name: of the dataset.
        prefix: of the names ``done`` and ``digest``.
        dtype: type on disk.
        n: examples N.
        shape: shape of one example's row.
        block_size: examples in a block.
        compression: keywords of :meth:`h5py.Group.create_dataset` that name a filter; None for no filter.
        algorithm: of the digests, one of :data:`vogcore.store._blocks.DIGESTS`.
    """

    def __init__(
        self,
        container: Container,
        name: str,
        prefix: str,
        dtype: np.dtype,
        n: int,
        shape: tuple[int, ...],
        block_size: int,
        compression: dict | None,
        algorithm: str,
    ) -> None:
        self.name, self.block_size, self.shape, self.dtype = name, block_size, shape, dtype
        self._container, self._prefix, self._n, self._compression, self._algorithm = (
            container, prefix, n, compression, algorithm,
        )  # fmt: skip
        self.n_blocks = -(-n // block_size)
        self.coverage = Coverage(n, block_size)
        self.written = np.zeros((0, self.n_blocks), dtype=bool)
        self._digests = np.zeros((0, self.n_blocks), dtype="<u8")
        self._unmarked: set[tuple[int, int]] = set()
        self._open: dict[tuple[int, int], _OpenBlock] = {}
        self._waiting: dict[tuple[int, int], npt.NDArray] = {}  # incomplete, to be compressed as a whole
        self._compressed: dict[tuple[int, int], npt.NDArray] = {}
        self.unmarked_bytes = 0

    # Changes of the file's tables, inside of Container.change

    def create(self, file: h5py.File) -> None:
        """Make the datasets, for no checkpoints yet."""
        create_blocks(file, self.name, self.dtype, self._n, self.shape, self.block_size, self._compression)
        tables = {"maxshape": (None, self.n_blocks), "chunks": (1, self.n_blocks)}
        file.create_dataset(f"{self._prefix}done", (0, self.n_blocks), dtype=bool, **tables)
        file.create_dataset(f"{self._prefix}digest", (0, self.n_blocks), dtype="<u8", **tables)
        self.locate(file)

    def grow(self, file: h5py.File, k: int) -> None:
        """Make room for k checkpoints."""
        data, done, digests = self._datasets(file)
        before = data.shape[0]
        self._grow_tables(k)
        done.resize(k, axis=0)
        digests.resize(k, axis=0)
        # Written out, so that a reader of an interrupted file sees "not done" rather than values never written.
        done[before:] = False
        digests[before:] = 0
        file.flush()
        data.resize(k, axis=0)  # last, and so behind everything that is needed to read it
        self.locate(file)

    def _datasets(self, file: h5py.File) -> list[h5py.Dataset]:
        return [file[name] for name in (self.name, f"{self._prefix}done", f"{self._prefix}digest")]

    def locate(self, file: h5py.File) -> None:
        """Find out where everything lies."""
        data, done, digests = self._datasets(file)
        self._data_at = chunk_positions(data)
        self._done_at, self._digest_at = chunk_positions(done)[:, :1], chunk_positions(digests)[:, :1]

    def adopt(self, file: h5py.File) -> None:
        """Go on with what an earlier run has marked."""
        data, done, digests = self._datasets(file)
        self.locate(file)
        self._grow_tables(data.shape[0])
        self.coverage.grow(data.shape[0])
        self.written[:] = done[()]
        self._digests[:] = digests[()]
        self.coverage.complete[:] = self.coverage.adopted[:] = self.written

    def _grow_tables(self, k: int) -> None:
        more = k - len(self.written)
        self.written = np.concatenate([self.written, np.zeros((more, self.n_blocks), dtype=bool)])
        self._digests = np.concatenate([self._digests, np.zeros((more, self.n_blocks), dtype="<u8")])

    def forget(self, size: int) -> list[tuple[int, int]]:
        """Take blocks that lie behind a position of the file for not written; returns them as (checkpoint, block)."""
        ends = self._data_at + self.block_size * self._row_bytes
        lost = np.argwhere(self.written & (ends > size))
        for checkpoint, block in lost:
            self.written[checkpoint, block] = False
            self.coverage.complete[checkpoint, block] = self.coverage.adopted[checkpoint, block] = False
            self._unmarked.add((int(checkpoint), int(block)))
        return [(int(checkpoint), int(block)) for checkpoint, block in lost]

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def block_bytes(self) -> int:
        """Bytes of a whole block in the file, without compression."""
        return self.block_size * self._row_bytes

    # The writing thread

    def _length(self, block: int) -> int:
        return min(self.block_size, self._n - block * self.block_size)

    def write(self, checkpoint: int, block: int, first: int, rows: npt.NDArray, completes: bool) -> None:
        """Write rows of one block; ``first`` counts within the block.

        Raises:
            OSError: the system refused.
            RuntimeError: HDF5 refused.
        """
        key = (checkpoint, block)
        if self._compression is None:
            self._write(key, first, rows, completes)
            return
        length = self._length(block)
        if len(rows) < length:
            if key not in self._waiting:
                self._waiting[key] = np.zeros((length, *self.shape), self.dtype)
            self._waiting[key][first : first + len(rows)] = rows
            if not completes:
                return
            rows = self._waiting.pop(key)
        self._compressed[key] = rows
        self._note(key, self._digest(rows))
        if sum(block.nbytes for block in self._compressed.values()) >= _COMPRESSED_BYTES:
            self.flush()

    def _write(self, key: tuple[int, int], first: int, rows: npt.NDArray, completes: bool) -> None:
        """Rows go to the disk as they come, so that none of them is copied or waits for others."""
        entry = self._open.get(key)
        if entry is None:
            entry = self._open[key] = _OpenBlock(self._algorithm)
        if first == entry.rows:
            entry.digest.update(rows)
            entry.rows += len(rows)
        else:
            entry.rows = None
        position = int(self._data_at[key]) + first * self._row_bytes
        self._container.disk.write(position, rows.reshape(-1).view(np.uint8).data)
        if completes:
            del self._open[key]
            self._container.disk.start_writing(int(self._data_at[key]), self.block_bytes())
            self._note(key, entry.digest.value() if entry.rows is not None else self._digest(self._read(key)))

    def _digest(self, rows: npt.NDArray) -> int:
        digest = Digest(self._algorithm)
        digest.update(rows)
        return digest.value()

    def _read(self, key: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The bytes of a block as they are on disk."""
        content = np.empty(self._length(key[1]) * self._row_bytes, np.uint8)
        self._container.disk.read(int(self._data_at[key]), content.data)
        return content

    def _note(self, key: tuple[int, int], digest: int) -> None:
        self._digests[key] = digest
        self.written[key] = True
        self._unmarked.add(key)
        self.unmarked_bytes += self._length(key[1]) * self._row_bytes

    def flush(self) -> None:
        """Bring compressed blocks to the file."""
        if self._compressed:
            self._container.change(self._write_compressed)
            self._compressed.clear()

    def _write_compressed(self, file: h5py.File) -> None:
        data = file[self.name]
        for (checkpoint, block), rows in self._compressed.items():
            start = block * self.block_size
            data[checkpoint, start : start + len(rows)] = rows

    def note_digests(self) -> None:
        """Write the digests of blocks that are not marked yet, beside the blocks."""
        self._write_table(self._digest_at, self._digests)

    def mark(self) -> None:
        """Mark every block that is written; whoever calls has made sure that blocks and digests are on disk."""
        self._write_table(self._done_at, self.written.astype(np.int8))
        self._unmarked.clear()
        self.unmarked_bytes = 0

    def _write_table(self, positions: npt.NDArray[np.int64], values: npt.NDArray) -> None:
        for checkpoint in sorted({checkpoint for checkpoint, _ in self._unmarked}):
            blocks = sorted(block for k, block in self._unmarked if k == checkpoint)
            for first, last in runs(blocks):
                position = int(positions[checkpoint, 0]) + first * values.itemsize
                self._container.disk.write(position, values[checkpoint, first:last].tobytes())
