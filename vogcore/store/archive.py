"""Gradient archives: input gradients of every example at every checkpoint, for anybody to score later."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import GradientError, StoreError
from vogcore.store._blocks import BFLOAT16, Digest, pieces
from vogcore.store._compression import register_filters
from vogcore.store._hdf5 import Reader
from vogcore.store._tables import read_checkpoints, read_classes, read_digest, read_labels
from vogcore.store._writer import GradientWriter
from vogcore.store.schema import GRADIENTS_FORMAT

__all__ = ["CheckedBlocks", "GradientArchive", "GradientWriter", "open_gradients"]

_TYPES = {"f4": "float32", "f2": "float16", "u2": BFLOAT16}


class CheckedBlocks:
    """A dataset (K, N, ...) whose blocks are compared with their digests when they are first touched."""

    def __init__(
        self, reader: Reader, name: str, data: Any, digests: npt.NDArray[np.uint64], algorithm: str, block_size: int
    ) -> None:
        self._reader = reader
        self._name = name
        self._algorithm = algorithm
        self._digests = digests
        self._block_size = block_size
        self._verified = np.zeros(digests.shape, dtype=bool)
        self._chunks = reader.chunk_check(data)
        self.data = data

    def read(self, checkpoint: int, start: int, stop: int) -> npt.NDArray:
        out = np.empty((stop - start, *self.data.shape[2:]), dtype=self.data.dtype)
        for block, first, end in pieces(start, stop, self._block_size):
            target = out[first - start : end - start]
            block_start = block * self._block_size
            block_end = min(block_start + self._block_size, self.data.shape[1])
            if self._verified[checkpoint, block] or (first, end) == (block_start, block_end):
                self._fetch(checkpoint, first, end, target)
                self._verify(checkpoint, block, first, end, target)
            else:
                whole = np.empty((block_end - block_start, *out.shape[1:]), dtype=out.dtype)
                self._fetch(checkpoint, block_start, block_end, whole)
                self._verify(checkpoint, block, block_start, block_end, whole)
                target[...] = whole[first - block_start : end - block_start]
        return out.astype(out.dtype.newbyteorder("="), copy=False)

    def _fetch(self, checkpoint: int, first: int, end: int, target: npt.NDArray) -> None:
        with self._reader.guard(f"{self._name} of checkpoint {checkpoint}, examples {first} to {end - 1},"):
            self._chunks.rows(checkpoint, checkpoint + 1)
            self.data.read_direct(target, np.s_[checkpoint, first:end])

    def _verify(self, checkpoint: int, block: int, first: int, end: int, rows: npt.NDArray) -> None:
        if self._verified[checkpoint, block]:
            return
        digest = Digest(self._algorithm)
        digest.update(rows.astype(rows.dtype.newbyteorder("<"), copy=False))
        if digest.value() != int(self._digests[checkpoint, block]):
            raise self._reader.damaged(
                f"the {self._name} of checkpoint {checkpoint}, examples {first} to {end - 1}, are not what was written"
            )
        self._verified[checkpoint, block] = True


class GradientArchive:
    """A gradient archive, open for reading; a context manager. Made by :func:`open_gradients`.

    Attributes:
        path: the file.
        n_checkpoints: K.
        n_examples: N.
        shape: shape of one example's gradient.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        channel_axis: axis of the channels in a block (B, *shape), or None.
        compression: ``"lz4"``, ``"zstd"`` or None.
        block_size: examples in a block; reads of whole blocks are fastest.
        labels: (N,) int64 class index, -1 = none, or None where no example has a label.
        ids: (N,) int64 or str.
        classes: class names in the order of the index.
        checkpoints: K checkpoints in the order of training.
        settings: what decided the gradients.
        created: UTC, ISO 8601.
        vogcore_version: version that wrote the file.
        has_logits: True where logits were stored.
        n_logits: number of logits C, or None where none were stored.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._reader = Reader(path, GRADIENTS_FORMAT)
        try:
            self._load(self._reader)
        except BaseException:
            self._reader.close()
            raise

    def _load(self, reader: Reader) -> None:
        data = reader.dataset("gradients", tuple(_TYPES), None)
        if data.ndim < 2 or 0 in data.shape[1:]:
            raise reader.damaged(f"gradients has shape {data.shape}, which is not (checkpoints, examples, ...)")
        self.n_checkpoints, self.n_examples = int(data.shape[0]), int(data.shape[1])
        self.shape = tuple(int(length) for length in data.shape[2:])
        self.dtype = _TYPES[f"{data.dtype.kind}{data.dtype.itemsize}"]
        if bool(reader.number_attribute(data, "bfloat16", False)) != (self.dtype == BFLOAT16):
            raise reader.damaged(f"gradients holds {data.dtype}, which contradicts its attribute bfloat16")
        self.block_size = int(reader.number_attribute(data, "block_size"))
        if not 1 <= self.block_size <= self.n_examples:
            raise reader.damaged(f"the block size is {self.block_size} for {self.n_examples} examples")
        axis = reader.number_attribute(data, "channel_axis", None)
        if axis is not None and not 1 <= axis <= len(self.shape):
            raise reader.damaged(f"the channel axis is {axis} for gradients of shape {data.shape}")
        self.channel_axis: int | None = None if axis is None else int(axis)
        self.compression: str | None = reader.string_attribute(data, "compression", None)
        if self.compression is not None and not register_filters():
            raise StoreError(
                f"{self.path} is compressed; to read it install hdf5plugin: pip install 'vogcore[compression]'"
            )
        self._digest = read_digest(reader, data)
        # An interrupted archive has no table of checkpoints; say that it is incomplete rather than damaged.
        self._gradients = self._blocks(reader, "gradients", "", data)
        if self.n_checkpoints < 1:
            raise StoreError(f"{self.path} is incomplete: it holds no checkpoint; compute the gradients again.")
        self.checkpoints = read_checkpoints(reader)
        if len(self.checkpoints) != self.n_checkpoints:
            raise reader.damaged(f"it has {len(self.checkpoints)} names for {self.n_checkpoints} checkpoints")
        self.ids = reader.read_ids(self.n_examples)
        self.classes, _ = read_classes(reader)
        labels = read_labels(reader, self.n_examples, len(self.classes))
        self.labels: npt.NDArray[np.int64] | None = labels if np.any(labels >= 0) else None
        self.settings: dict[str, Any] = reader.json_attribute("settings", dict)
        self.created: str = reader.string_attribute(reader.file, "created")
        self.vogcore_version: str = reader.string_attribute(reader.file, "vogcore_version")
        logits = reader.dataset("logits", ("f4",), (self.n_checkpoints, self.n_examples, None), need=False)
        self.has_logits = logits is not None
        self.n_logits: int | None = int(logits.shape[2]) if self.has_logits else None
        self._logits = self._blocks(reader, "logits", "logits_", logits) if self.has_logits else None

    def _blocks(self, reader: Reader, name: str, prefix: str, data: Any) -> CheckedBlocks:
        table = (self.n_checkpoints, -(-self.n_examples // self.block_size))
        done = reader.read(f"{prefix}done", "b1", table)
        digests = reader.read(f"{prefix}digest", "u8", table)
        missing = np.argwhere(~done)
        if missing.size:
            checkpoint, block = (int(index) for index in missing[0])
            first = block * self.block_size
            last = min(first + self.block_size, self.n_examples) - 1
            raise StoreError(
                f"{self.path} is incomplete: the {name} of checkpoint {checkpoint}, examples {first} to {last}, "
                f"were never completed; compute them again."
            )
        return CheckedBlocks(reader, name, data, digests, self._digest, self.block_size)

    def read(self, checkpoint: int, start: int, stop: int) -> npt.NDArray:
        """Gradients of examples start to stop (exclusive) at one checkpoint.

        Returns:
            (stop - start, *shape) float32 or float16, or uint16 with the bits of bfloat16.

        Raises:
            GradientError: checkpoint or examples are out of range.
            StoreError: the bytes on disk are not what was written, or the archive is closed.
        """
        self._check(checkpoint, start, stop)
        return self._gradients.read(checkpoint, start, stop)

    def read_logits(self, checkpoint: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Logits (stop - start, C) float32 of examples start to stop (exclusive) at one checkpoint.

        Raises:
            GradientError: no logits were stored, or checkpoint or examples are out of range.
            StoreError: the bytes on disk are not what was written, or the archive is closed.
        """
        if self._logits is None:
            raise GradientError(f"{self.path} holds no logits; write them with GradientWriter.write_logits.")
        self._check(checkpoint, start, stop)
        return self._logits.read(checkpoint, start, stop)

    def _check(self, checkpoint: int, start: int, stop: int) -> None:
        if not self._reader.file.id.valid:
            raise StoreError(f"{self.path} has been closed; open it again with open_gradients.")
        if not 0 <= checkpoint < self.n_checkpoints:
            raise GradientError(f"{self.path} holds checkpoints 0 to {self.n_checkpoints - 1}, not {checkpoint}.")
        if not 0 <= start <= stop <= self.n_examples:
            raise GradientError(f"{self.path} holds examples 0 to {self.n_examples - 1}, not {start} to {stop - 1}.")

    def close(self) -> None:
        """Close the file; the attributes stay."""
        self._reader.close()

    def __enter__(self) -> GradientArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of examples N."""
        return self.n_examples

    def __repr__(self) -> str:
        return (
            f"GradientArchive({self.path!r}: {self.n_checkpoints} checkpoints, {self.n_examples} examples of shape "
            f"{self.shape}, {self.dtype}{', with logits' if self.has_logits else ''})"
        )


def open_gradients(path: str | os.PathLike[str]) -> GradientArchive:
    """Open a gradient archive, after checking that every part of it is there and has the right type and shape.

    Args:
        path: a file written by :class:`GradientWriter`, format ``vogcore.gradients``, major version 1.

    Raises:
        StoreError: missing, not HDF5, truncated, not a gradient archive, of a newer major version, damaged, or
            incomplete (the message names the first checkpoint and examples that are missing).
    """
    return GradientArchive(path)
