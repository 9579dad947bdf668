"""Writing a gradient archive so that neither a crash nor a full disk loses what has been computed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore._paths import check_output, finish_publishing, publish, reason
from vogcore.errors import GradientError, OutputExistsError, SettingsError, StoreError
from vogcore.store._archive_file import ArchiveFile
from vogcore.store._background import Background
from vogcore.store._blocks import choose_block_size, convert, pieces, runs, stored_type
from vogcore.store._compression import filter_options
from vogcore.store._dataset import BlockDataset
from vogcore.store._hdf5 import encode_strings
from vogcore.store._resume import Contents
from vogcore.store._tables import example_tables
from vogcore.store.scores import CheckpointInfo

__all__ = ["GradientWriter"]

# Blocks that could be lost with the machine's power; two syncs for each 256 MB cost little beside writing them.
_SYNC_BYTES = 256_000_000
# Blocks that wait to be written before whoever computes them has to wait as well.
_QUEUE_BYTES = 128_000_000


class GradientWriter:
    """Writes input gradients, block by block, to an HDF5 archive that anybody can score later.

    A context manager. The file grows under ``<path>.partial`` and gets its name on leaving the ``with`` block without
    an exception, when every example of every checkpoint has been written. Otherwise the .partial file is kept, and
    ``resume=True`` goes on with it, also after a kill or a loss of power. To be used by one thread at a time; it writes
    in a thread of its own, while the next gradients are computed.

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
        checkpoints: all checkpoints in the order of training, where they are known; see :meth:`set_checkpoints`.
        n_logits: number of logits C, where logits are going to be written.
        compression: None, ``"lz4"`` or ``"zstd"``, behind a shuffle of bits; needs ``vogcore[compression]``, here and
            wherever the archive is read.
        resume: go on with a .partial file of the same settings, examples and checkpoints, where there is one. Blocks
            that it holds are complete: :meth:`missing` says what is not, and :meth:`write` skips what is.
        overwrite: replace an archive of that name, and a .partial file that cannot be gone on with.

    Raises:
        OutputExistsError: the archive exists and ``overwrite`` is False, its .partial file exists and is not resumed,
            or another process is writing it.
        SettingsError: a number, type or axis makes no sense, or the compression is not installed.
        StoreError: the folder is missing or not writable, labels, ids or classes do not fit, the disk is too small,
            or the .partial file is damaged.
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
        checkpoints: Sequence[CheckpointInfo] = (),
        n_logits: int | None = None,
        compression: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial_path = self.path.with_name(self.path.name + ".partial")
        self.n_examples = int(n_examples)
        self.shape = tuple(int(length) for length in shape)
        self.dtype, stored = stored_type(dtype)
        if self.n_examples < 1 or any(length < 1 for length in self.shape):
            raise SettingsError(f"An archive of {n_examples} examples of shape {self.shape} would hold nothing.")
        if channel_axis is not None and not 1 <= channel_axis <= len(self.shape):
            raise SettingsError(f"The channel axis must be 1 to {len(self.shape)}, not {channel_axis}.")
        self.block_size = choose_block_size(self.n_examples, self.shape, stored.itemsize, block_size)
        filter_options(compression)  # known and installed, before there is a file
        self._overwrite = overwrite
        self._failed = self._closed = False
        ids_, labels_, names, count = example_tables(self.n_examples, labels, ids, classes)
        contents = Contents(
            self.n_examples, self.shape, self.dtype, channel_axis, self.block_size, compression, settings or {}, ids_,
            labels_, names, count,
        )  # fmt: skip
        finish_publishing(self.partial_path, self.path)
        check_output(self.path, overwrite)
        self._background = Background(_QUEUE_BYTES, "vogcore-archive")
        with self._writing():
            self._file = ArchiveFile(self.partial_path, contents, resume=resume, overwrite=overwrite)
        # Those that have a name from the user; others are called by their number, and can be named later.
        self._named = [info.name != str(index) for index, info in enumerate(self._file.checkpoints)]
        try:
            infos = list(checkpoints) or self._file.checkpoints
            self._check_checkpoints(infos)
            new = self._file.new_logits(n_logits) if n_logits is not None and self._file.logits is None else None
            if new is not None or infos != self._file.checkpoints or not self._file.begun:
                self._grow(infos, new)
            self._named = self._named[: len(infos)] if not checkpoints else [True] * len(infos)
        except BaseException:
            self._end()
            raise

    @property
    def checkpoints(self) -> list[CheckpointInfo]:
        """The checkpoints so far: announced or written to."""
        return list(self._file.checkpoints)

    @property
    def n_checkpoints(self) -> int:
        """Number of checkpoints so far: announced or written to."""
        return len(self._file.checkpoints)

    def missing(self, checkpoint: int) -> list[tuple[int, int]]:
        """Examples of a checkpoint that have not been written: runs (start, stop), whole blocks unless at the end.

        Rows of a block that is not complete count as missing.
        """
        blocks = np.zeros(self._file.gradients.n_blocks, dtype=bool)
        for dataset in self._file.datasets:
            blocks |= ~dataset.coverage.complete[checkpoint]
        return [
            (first * self.block_size, min(last * self.block_size, self.n_examples))
            for first, last in runs(np.flatnonzero(blocks))
        ]

    def set_checkpoints(self, checkpoints: Sequence[CheckpointInfo]) -> None:
        """Announce all checkpoints in the order of training, or describe those written so far.

        Raises:
            GradientError: fewer than have been written, two of one name, or another order than they were written in.
            StoreError: a name cannot be written to the file.
        """
        infos = list(checkpoints)
        self._check_open()
        self._check_checkpoints(infos)
        if infos != self._file.checkpoints:
            self._grow(infos)
        self._named = [True] * len(infos)

    def _check_checkpoints(self, infos: list[CheckpointInfo]) -> None:
        if len(infos) < self.n_checkpoints:
            raise GradientError(f"{self.n_checkpoints} checkpoints have been written or announced, not {len(infos)}.")
        if len({info.name for info in infos}) < len(infos):
            raise GradientError("Two checkpoints have the same name; give every checkpoint its own.")
        encode_strings([text for info in infos for text in (info.name, info.sha256)], "checkpoints")
        for index, (old, named) in enumerate(zip(self._file.checkpoints, self._named, strict=True)):
            if named and infos[index].name != old.name:
                raise GradientError(f"Checkpoint {index} is {old.name!r} already, not {infos[index].name!r}.")
            if old.sha256 and infos[index].sha256 not in ("", old.sha256):
                raise OutputExistsError(
                    f"{self.partial_path} holds gradients of another file: checkpoint {old.name!r} has changed since; "
                    "restore it, or replace the archive (overwrite=True, on the command line --overwrite)."
                )

    def write(self, checkpoint: int | str, start: int, block: npt.ArrayLike, *, copy: bool = True) -> None:
        """Write the gradients of some examples at one checkpoint; any number of examples, in any order.

        NaN and infinity are stored as they are. The rows are on their way to the disk when this returns;
        :meth:`sync` makes sure of them.

        Args:
            checkpoint: its index (0, 1, 2, ... in order, or any that has been announced) or its name; a new name is
                appended.
            start: position of the first example.
            block: (b, *shape) of the writer's type, any other float type (rounded), uint16 bits for bfloat16, or
                integers that fit exactly.
            copy: False promises that nobody changes ``block`` afterwards, which saves a copy.

        Raises:
            GradientError: shape, type, range or checkpoint do not fit, or rows have been written before (other than
                blocks that a resumed archive held from the start, which are skipped).
            StoreError: the disk is full or failed, now or at an earlier call; the .partial file is kept.
        """
        self._check_open()
        array = np.asarray(block)
        start = self._check_rows("gradients", array, start, self.shape)
        rows = convert(array, self.dtype)
        index = self._index(checkpoint, self._file.gradients, start, start + len(rows))
        self._queue(self._file.gradients, index, start, rows, copy and np.may_share_memory(rows, array))

    def write_logits(self, checkpoint: int | str, start: int, logits: npt.ArrayLike, *, copy: bool = True) -> None:
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
        known = self._file.logits
        n_logits = array.shape[1] if known is None else known.shape[0]
        start = self._check_rows("logits", array, start, (n_logits,))
        rows = convert(array, "float32")
        if known is None:
            self._grow(self._file.checkpoints, self._file.new_logits(n_logits))
        blocks = self._file.logits
        assert blocks is not None
        index = self._index(checkpoint, blocks, start, start + len(rows))
        self._queue(blocks, index, start, rows, copy and np.may_share_memory(rows, array))

    def _queue(self, blocks: BlockDataset, index: int, start: int, rows: npt.NDArray, copy: bool) -> None:
        if copy:
            rows = rows.copy()
        for block, first, end in pieces(start, start + len(rows), self.block_size):
            if blocks.coverage.adopted[index, block]:
                continue  # an earlier run has written it
            piece = rows[first - start : end - start]
            offset = first - block * self.block_size
            completes = blocks.coverage.add(index, block, first, end)

            def write(block: int = block, piece: npt.NDArray = piece, o: int = offset, c: bool = completes) -> None:
                blocks.write(index, block, o, piece, c)
                if c and self._file.gradients.unmarked_bytes >= _SYNC_BYTES:
                    self._file.mark()

            self._background.submit(write, piece.nbytes)
        self._check_failure()

    def sync(self) -> None:
        """Wait until every complete block written so far is on disk, safe from a kill and a loss of power.

        Raises:
            StoreError: the disk is full or failed; the .partial file is kept.
        """
        self._check_open()
        with self._writing():
            self._background.run(self._file.mark)
        self._check_failure()

    def _check_rows(self, what: str, array: npt.NDArray, start: int, shape: tuple[int, ...]) -> int:
        if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
            raise GradientError(f"A block of {what} must have the shape {('b', *shape)}, not {array.shape}.")
        if start < 0 or start + len(array) > self.n_examples:
            raise GradientError(
                f"Examples {start} to {start + len(array) - 1} of {what} are outside of 0 to {self.n_examples - 1}."
            )
        return int(start)

    def _index(self, checkpoint: int | str, blocks: BlockDataset, start: int, stop: int) -> int:
        """Index of a checkpoint, added where it is new; refuses rows that have been written before."""
        if isinstance(checkpoint, str):
            names = [info.name for info in self._file.checkpoints]
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
            self._grow([*self._file.checkpoints, CheckpointInfo(str(checkpoint))])
            self._named.append(isinstance(checkpoint, str))
        taken = blocks.coverage.first_overlap(index, start, stop)
        if taken is not None:
            name = self._file.checkpoints[index].name
            raise GradientError(
                f"The {blocks.name} of example {taken} at checkpoint {name!r} have been written already."
            )
        return index

    def _grow(self, checkpoints: Sequence[CheckpointInfo], logits: BlockDataset | None = None) -> None:
        with self._writing():
            self._background.run(lambda: self._file.grow(checkpoints, logits))
        self._check_failure()

    def _check_open(self) -> None:
        self._check_failure()
        if self._failed or self._closed:
            raise StoreError(f"The archive {self.path} is closed or failed; nothing more can be written to it.")

    def _check_failure(self) -> None:
        """Raise what the writing thread ran into."""
        error = self._background.error
        if error is not None and not self._failed:
            with self._writing():
                raise error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._failed = True
            raise StoreError(
                f"Cannot write {self.partial_path}: {reason(error)}; what was written before is kept in that file."
            ) from error

    def close(self) -> None:
        """Finish the archive and give it its name.

        Raises:
            GradientError: something is missing; the message names the first and where the .partial file is.
            OutputExistsError: somebody wrote a file of that name meanwhile; the .partial file is kept.
            StoreError: the disk is full or failed; the .partial file is kept.
        """
        if self._closed:
            return
        missing, failed = self._first_missing(), self._failed
        try:
            self._finish()
            if failed:
                raise StoreError(f"Writing {self.path} failed; what was written before is kept in {self.partial_path}.")
            if missing:
                raise GradientError(
                    f"The archive is not complete: {missing}; what there is is kept in {self.partial_path}."
                )
            self._publish()
        finally:
            self._end()

    def _publish(self) -> None:
        try:
            publish(self.partial_path, self.path, self._overwrite)
        except OSError as error:
            raise StoreError(
                f"Cannot give {self.partial_path} its name {self.path.name}: {reason(error)}; rename it yourself."
            ) from error

    def _first_missing(self) -> str | None:
        if not self.n_checkpoints:
            return "no checkpoint has been written"
        for blocks in self._file.datasets:
            missing = blocks.coverage.first_missing()
            if missing is not None:
                name = self._file.checkpoints[missing[0]].name
                return f"the {blocks.name} of checkpoint {name!r} are missing from example {missing[1]} on"
        return None

    def _finish(self) -> None:
        """Bring everything that is there to the disk."""
        if self._failed:
            return
        with self._writing():
            self._background.run(self._file.mark)
        self._check_failure()

    def _end(self) -> None:
        self._closed = True
        self._background.close()
        self._file.close()

    def __enter__(self) -> GradientWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # The body's own exception must reach the caller; the file keeps what there is.
        if not self._closed:
            try:
                with contextlib.suppress(StoreError, GradientError):
                    self._finish()
            finally:
                self._end()
        error.add_note(f"The gradients computed so far are kept in {self.partial_path}.")
