"""Writing a gradient archive so that neither a crash nor a full disk loses what has been computed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vogcore._paths import check_output, publish, reason, sync_file
from vogcore.errors import GradientError, OutputExistsError, SettingsError, StoreError
from vogcore.store._blocks import (
    BFLOAT16,
    Coverage,
    choose_block_size,
    convert,
    create_blocks,
    digest,
    pieces,
    stored_type,
)
from vogcore.store._disk import Disk
from vogcore.store._hdf5 import encode_strings, write_header
from vogcore.store._tables import example_tables, write_checkpoints, write_classes, write_examples
from vogcore.store.schema import GRADIENTS_FORMAT
from vogcore.store.scores import CheckpointInfo, now, version

__all__ = ["GradientWriter"]

# Blocks that could be lost with the machine's power; two syncs for each 256 MB cost little beside writing them.
_SYNC_BYTES = 256_000_000


class _Blocks:
    """One dataset (K, N, ...) with its ``done`` and ``digest``, and the blocks not yet marked in the file."""

    def __init__(
        self, file: h5py.File, name: str, prefix: str, dtype: np.dtype, n: int, shape: tuple[int, ...], b: int
    ):
        self.name = name
        self.block_size = b
        self.coverage = Coverage(n, b)
        self.data = create_blocks(file, name, dtype, n, shape, b)
        blocks = -(-n // b)
        tables = {"maxshape": (None, blocks), "chunks": (1, blocks)}
        self.done = file.create_dataset(f"{prefix}done", (0, blocks), dtype=bool, **tables)
        self.digest = file.create_dataset(f"{prefix}digest", (0, blocks), dtype="<u8", **tables)
        self._digests = np.zeros((0, blocks), dtype="<u8")
        self._touched: set[int] = set()
        self.unmarked_bytes = 0

    def grow(self, k: int) -> None:
        if k > len(self.coverage.complete):
            more = np.zeros((k - len(self._digests), self._digests.shape[1]), dtype="<u8")
            self._digests = np.concatenate([self._digests, more])
            self.coverage.grow(k)
            for dataset in (self.data, self.done, self.digest):
                dataset.resize(k, axis=0)
            # Written out, so that a reader of an interrupted file sees "not done" rather than values never written.
            self.done[k - len(more) :] = False
            self.digest[k - len(more) :] = 0

    def write(self, checkpoint: int, start: int, rows: npt.NDArray) -> bool:
        """Write rows; True where that completes the checkpoint."""
        for block, first, end in pieces(start, start + len(rows), self.block_size):
            piece = rows[first - start : end - start]
            self.data[checkpoint, first:end] = piece
            if self.coverage.add(checkpoint, block, first, end):
                self._note(checkpoint, block, piece)
        return bool(self.coverage.complete[checkpoint].all())

    def _note(self, checkpoint: int, block: int, last_piece: npt.NDArray) -> None:
        start = block * self.block_size
        stop = min(start + self.block_size, self.data.shape[1])
        # A block that came in several pieces is read back: holding the pieces would need memory for every checkpoint.
        whole = last_piece if len(last_piece) == stop - start else self.data[checkpoint, start:stop]
        self._digests[checkpoint, block] = digest(whole)
        self._touched.add(checkpoint)
        self.unmarked_bytes += whole.nbytes

    def mark(self) -> None:
        """Mark every complete block in the file; the caller has made sure that the blocks are on disk."""
        for checkpoint in sorted(self._touched):
            self.digest[checkpoint] = self._digests[checkpoint]
            self.done[checkpoint] = self.coverage.complete[checkpoint]
        self._touched.clear()
        self.unmarked_bytes = 0


class GradientWriter:
    """Writes input gradients, block by block, to an HDF5 archive that anybody can score later.

    A context manager. The file grows under ``<path>.partial`` and gets its name on leaving the ``with`` block without
    an exception, when every example of every checkpoint has been written. Otherwise the .partial file is kept.
    To be used by one thread at a time.

    Args:
        path: the archive to write.
        n_examples: number of examples N.
        shape: shape of one example's gradient.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``. Gradients of another float type are rounded to it.
        labels: (N,) integer class index, -1 = none; None where there are no labels.
        ids: (N,) int64 or str; the position by default.
        classes: class names in the order of the index; the numbers by default.
        channel_axis: axis of the channels in a block (B, *shape), 1 or more, or None for no channels.
        block_size: examples in a block; by default as many as fit into 8 MB.
        settings: what decided the gradients, as JSON can hold it.
        overwrite: replace an archive (and a .partial file) of that name.

    Raises:
        OutputExistsError: the archive or its .partial file exists and ``overwrite`` is False.
        SettingsError: a number, type or axis makes no sense.
        StoreError: the folder is missing or not writable, or labels, ids or classes do not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_examples: int,
        shape: Sequence[int],
        dtype: npt.DTypeLike | str = "float32",
        *,
        labels: npt.ArrayLike | None = None,
        ids: npt.ArrayLike | None = None,
        classes: Sequence[str] | None = None,
        channel_axis: int | None = None,
        block_size: int | None = None,
        settings: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial_path = self.path.with_name(self.path.name + ".partial")
        self.n_examples = int(n_examples)
        self.shape = tuple(int(length) for length in shape)
        self.dtype, self._stored = stored_type(dtype)
        if self.n_examples < 1 or any(length < 1 for length in self.shape):
            raise SettingsError(f"An archive of {n_examples} examples of shape {self.shape} would hold nothing.")
        if channel_axis is not None and not 1 <= channel_axis <= len(self.shape):
            raise SettingsError(f"The channel axis must be 1 to {len(self.shape)}, not {channel_axis}.")
        self.block_size = choose_block_size(self.n_examples, self.shape, self._stored.itemsize, block_size)
        self._overwrite = overwrite
        self._checkpoints: list[CheckpointInfo] = []
        self._named: list[bool] = []
        self._logits: _Blocks | None = None
        self._failed = False
        tables = example_tables(self.n_examples, labels, ids, classes)
        check_output(self.path, overwrite)
        self._file = self._create()
        with self._writing(opening=True):
            write_header(self._file, GRADIENTS_FORMAT, version(), now(), settings or {})
            write_examples(self._file, tables[0], tables[1])
            write_classes(self._file, tables[2], tables[3])
            self._gradients = _Blocks(
                self._file, "gradients", "", self._stored, self.n_examples, self.shape, self.block_size
            )
            attributes = self._gradients.data.attrs
            attributes["block_size"] = self.block_size
            attributes["bfloat16"] = self.dtype == BFLOAT16
            if channel_axis is not None:
                attributes["channel_axis"] = channel_axis
            self._sync()

    def _create(self) -> h5py.File:
        if os.path.lexists(self.partial_path):
            if not self._overwrite:
                raise OutputExistsError(
                    f"{self.partial_path} is left from an earlier run; move or delete it, or "
                    "replace it (overwrite=True, on the command line --overwrite)."
                )
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.partial_path)
        try:
            # These bounds give a file that opens after a kill, up to the last flush; "latest" gives one that does not.
            self._disk = Disk(self.partial_path)
            return h5py.File(self._disk, "w", libver=("earliest", "v108"))
        except OSError as error:
            raise StoreError(f"Cannot write {self.partial_path}: {reason(error)}.") from error

    @property
    def n_checkpoints(self) -> int:
        """Number of checkpoints so far: announced or written to."""
        return len(self._checkpoints)

    def set_checkpoints(self, checkpoints: Sequence[CheckpointInfo]) -> None:
        """Announce all checkpoints in the order of training, or describe those written so far.

        Raises:
            GradientError: fewer than have been written, two of one name, or another order than they were written in.
            StoreError: a name cannot be written to the file.
        """
        infos = list(checkpoints)
        self._check_open()
        if len(infos) < self.n_checkpoints:
            raise GradientError(f"{self.n_checkpoints} checkpoints have been written or announced, not {len(infos)}.")
        if len({info.name for info in infos}) < len(infos):
            raise GradientError("Two checkpoints have the same name; give every checkpoint its own.")
        encode_strings([text for info in infos for text in (info.name, info.sha256)], "checkpoints")
        for index, (old, named) in enumerate(zip(self._checkpoints, self._named, strict=True)):
            if named and infos[index].name != old.name:
                raise GradientError(f"Checkpoint {index} is {old.name!r} already, not {infos[index].name!r}.")
        self._checkpoints = infos
        self._named = [True] * len(infos)
        self._grow()

    def write(self, checkpoint: int | str, start: int, block: npt.ArrayLike) -> None:
        """Write the gradients of some examples at one checkpoint; any number of examples, in any order.

        NaN and infinity are stored as they are.

        Args:
            checkpoint: its index (0, 1, 2, ... in order, or any that has been announced) or its name; a new name is
                appended.
            start: position of the first example.
            block: (b, *shape) of the writer's type, any other float type (rounded), uint16 bits for bfloat16, or
                integers that fit exactly.

        Raises:
            GradientError: shape, type, range or checkpoint do not fit, or rows have been written before.
            StoreError: the disk is full or failed; the .partial file is kept.
        """
        self._check_open()
        array = np.asarray(block)
        start = self._check_rows("gradients", array, start, self.shape)
        rows = convert(array, self.dtype)
        index = self._index(checkpoint, self._gradients, start, start + len(rows))
        with self._writing():
            completed = self._gradients.write(index, start, rows)
            if completed or self._gradients.unmarked_bytes >= _SYNC_BYTES:
                self._sync()

    def write_logits(self, checkpoint: int | str, start: int, logits: npt.ArrayLike) -> None:
        """Write the logits (b, C) of some examples at one checkpoint, stored as float32.

        Once some have been written, those of all examples and checkpoints are needed.

        Raises:
            GradientError: as :meth:`write`.
            StoreError: as :meth:`write`.
        """
        self._check_open()
        array = np.asarray(logits)
        if array.ndim != 2 or array.shape[1] < 1:
            raise GradientError(f"Logits must have the shape (examples, classes), not {array.shape}.")
        n_logits = array.shape[1] if self._logits is None else self._logits.data.shape[2]
        start = self._check_rows("logits", array, start, (n_logits,))
        rows = convert(array, "float32")
        with self._writing():
            if self._logits is None:
                self._logits = _Blocks(
                    self._file, "logits", "logits_", np.dtype("<f4"), self.n_examples, (n_logits,), self.block_size
                )
                self._grow()
        index = self._index(checkpoint, self._logits, start, start + len(rows))
        with self._writing():
            self._logits.write(index, start, rows)

    def _check_rows(self, what: str, array: npt.NDArray, start: int, shape: tuple[int, ...]) -> int:
        if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
            raise GradientError(f"A block of {what} must have the shape {('b', *shape)}, not {array.shape}.")
        if start < 0 or start + len(array) > self.n_examples:
            raise GradientError(
                f"Examples {start} to {start + len(array) - 1} of {what} are outside of 0 to {self.n_examples - 1}."
            )
        return int(start)

    def _index(self, checkpoint: int | str, blocks: _Blocks, start: int, stop: int) -> int:
        """Index of a checkpoint, added where it is new; refuses rows that have been written before."""
        if isinstance(checkpoint, str):
            names = [info.name for info in self._checkpoints]
            index = names.index(checkpoint) if checkpoint in names else len(names)
        else:
            index = int(checkpoint)
            if not 0 <= index <= self.n_checkpoints:
                raise GradientError(
                    f"Checkpoint {index} is out of order after {self.n_checkpoints} checkpoints; write them in order "
                    f"or announce them with set_checkpoints."
                )
        if index == self.n_checkpoints:
            encode_strings([str(checkpoint)], "checkpoints/name")
            self._checkpoints.append(CheckpointInfo(str(checkpoint)))
            self._named.append(isinstance(checkpoint, str))
            self._grow()
        taken = blocks.coverage.first_overlap(index, start, stop)
        if taken is not None:
            name = self._checkpoints[index].name
            raise GradientError(
                f"The {blocks.name} of example {taken} at checkpoint {name!r} have been written already."
            )
        return index

    def _grow(self) -> None:
        with self._writing():
            for blocks in (self._gradients, self._logits):
                if blocks is not None:
                    blocks.grow(self.n_checkpoints)

    def _check_open(self) -> None:
        if self._failed or not self._file.id.valid:
            raise StoreError(f"The archive {self.path} is closed or failed; nothing more can be written to it.")

    @contextlib.contextmanager
    def _writing(self, opening: bool = False) -> Iterator[None]:
        try:
            yield
            self._disk.check()
        except (OSError, RuntimeError) as error:
            self._failed = True
            if opening:  # there is no writer yet that anybody could close
                self._close_file()
            raise StoreError(
                f"Cannot write {self.partial_path}: {reason(error)}; what was written before is kept in that file."
            ) from error

    def _sync(self) -> None:
        # In this order a block is never marked before it is on disk, whatever happens in between.
        self._file.flush()
        self._disk.check()
        sync_file(self.partial_path)
        for blocks in (self._gradients, self._logits):
            if blocks is not None:
                blocks.mark()
        self._file.flush()
        sync_file(self.partial_path)

    def close(self) -> None:
        """Finish the archive and give it its name.

        Raises:
            GradientError: something is missing; the message names the first and where the .partial file is.
            OutputExistsError: somebody wrote a file of that name meanwhile; the .partial file is kept.
            StoreError: the disk is full or failed; the .partial file is kept.
        """
        if not self._file.id.valid:
            return
        missing = self._first_missing()
        self._end_file()
        if self._failed:
            raise StoreError(f"Writing {self.path} failed; what was written before is kept in {self.partial_path}.")
        if missing:
            raise GradientError(
                f"The archive is not complete: {missing}; what there is is kept in {self.partial_path}."
            )
        try:
            publish(self.partial_path, self.path, self._overwrite)
        except OSError as error:
            raise StoreError(
                f"Cannot give {self.partial_path} its name {self.path.name}: {reason(error)}; rename it yourself."
            ) from error

    def _first_missing(self) -> str | None:
        if not self.n_checkpoints:
            return "no checkpoint has been written"
        for blocks in (self._gradients, self._logits):
            missing = blocks.coverage.first_missing() if blocks is not None else None
            if blocks is not None and missing is not None:
                name = self._checkpoints[missing[0]].name
                return f"the {blocks.name} of checkpoint {name!r} are missing from example {missing[1]} on"
        return None

    def _close_file(self) -> None:
        try:
            self._file.close()
            self._disk.close()
            self._disk.check()
        except (OSError, RuntimeError) as error:
            if not self._failed:
                self._failed = True
                raise StoreError(f"Cannot complete {self.partial_path}: {reason(error)}.") from error

    def __enter__(self) -> GradientWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # The body's own exception must reach the caller; the file keeps what there is.
        with contextlib.suppress(StoreError, GradientError):
            self._end_file()
        error.add_note(f"The gradients computed so far are kept in {self.partial_path}.")

    def _end_file(self) -> None:
        if not self._file.id.valid:
            return
        try:
            if not self._failed:
                with self._writing():
                    write_checkpoints(self._file, self._checkpoints)
                    self._sync()
        finally:
            self._close_file()
