"""One dataset (K, N, ...) of an archive that is being written, with its ``done`` and ``digest``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import numpy.typing as npt

from vogcore.store._blocks import Coverage, create_blocks, digest, runs
from vogcore.store._container import Container, chunk_positions

__all__ = ["BlockDataset"]

# Blocks of which some rows are in memory, waiting for the others; beyond it they go to disk in pieces.
_OPEN_BYTES = 64_000_000
# Compressed blocks that wait in memory for the next change of the file's tables.
_COMPRESSED_BYTES = 64_000_000


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
        hasher: thread that computes digests while blocks are written.
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
        hasher: ThreadPoolExecutor,
    ) -> None:
        self.name, self.block_size, self.shape, self.dtype = name, block_size, shape, dtype
        self._container, self._prefix, self._n, self._compression, self._hasher = (
            container, prefix, n, compression, hasher,
        )  # fmt: skip
        self.n_blocks = -(-n // block_size)
        self.coverage = Coverage(n, block_size)
        self.written = np.zeros((0, self.n_blocks), dtype=bool)
        self._digests = np.zeros((0, self.n_blocks), dtype="<u8")
        self._unmarked: set[tuple[int, int]] = set()
        self._open: dict[tuple[int, int], npt.NDArray | None] = {}  # None: in pieces on disk
        self._open_bytes = 0
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
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

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
        key, length = (checkpoint, block), self._length(block)
        if len(rows) == length:
            self._finish(key, rows)
            return
        if key not in self._open:
            self._make_room(length * self._row_bytes)
            self._open[key] = np.zeros((length, *self.shape), self.dtype)
            self._open_bytes += length * self._row_bytes
        buffer = self._open[key]
        if buffer is not None:
            buffer[first : first + len(rows)] = rows
        else:
            self._put(key, first, rows)
        if not completes:
            return
        del self._open[key]
        if buffer is not None:
            self._open_bytes -= buffer.nbytes
            self._finish(key, buffer)
            return
        whole = np.empty((length, *self.shape), self.dtype)
        self._container.disk.read(int(self._data_at[key]), whole.reshape(-1).view(np.uint8).data)
        self._note(key, digest(whole), whole.nbytes)

    def _make_room(self, n_bytes: int) -> None:
        """Send the oldest open blocks to disk in pieces. Compressed ones cannot go there, and wait."""
        if self._compression is not None:
            return
        for key, buffer in list(self._open.items()):
            if self._open_bytes + n_bytes <= _OPEN_BYTES:
                return
            if buffer is not None:
                self._put(key, 0, buffer)  # rows that are to come are zeros, and will be written over
                self._open[key] = None
                self._open_bytes -= buffer.nbytes

    def _put(self, key: tuple[int, int], first: int, rows: npt.NDArray) -> None:
        position = int(self._data_at[key]) + first * self._row_bytes
        self._container.disk.write(position, rows.reshape(-1).view(np.uint8).data)

    def _finish(self, key: tuple[int, int], rows: npt.NDArray) -> None:
        if self._compression is not None:
            self._compressed[key] = rows
            self._note(key, digest(rows), rows.nbytes)
            if sum(block.nbytes for block in self._compressed.values()) >= _COMPRESSED_BYTES:
                self.flush()
            return
        computed = self._hasher.submit(digest, rows)
        try:
            self._put(key, 0, rows)
        finally:
            value = computed.result()
        self._note(key, value, rows.nbytes)

    def _note(self, key: tuple[int, int], value: int, n_bytes: int) -> None:
        self._digests[key] = value
        self.written[key] = True
        self._unmarked.add(key)
        self.unmarked_bytes += n_bytes

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

    def spill(self) -> None:
        """Bring the rows of incomplete blocks to disk, for whoever looks into the file."""
        for key, buffer in list(self._open.items()):
            if buffer is not None and self._compression is None:
                self._put(key, 0, buffer)
        self._open.clear()
        self._open_bytes = 0

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
