"""The journal of a run: what is finished, on disk, so that a killed run goes on where it was.

The file begins with a record of the run and grows by one record for each finished block of examples. A record counts
only with its digest, and is synced before the run goes on, so a kill or a loss of power costs the block in progress
and nothing else. The layout is described in docs/file-formats.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore._paths import reason
from vogcore.errors import StoreError
from vogcore.store import _system
from vogcore.store._lock import lock_writer

__all__ = ["Journal", "complement", "journal_path"]

_MAGIC = b"vogcore journal\n"
_VERSION = 1
_START = struct.Struct("<16sI16sQ")  # magic, version, salt, bytes of JSON; then a check of these
_MARKER = b"\xf5vgBLOCK"
_FRAME = struct.Struct("<8sQQQ")  # marker, first example, one past the last, bytes of values; then a check of these
_CHECK, _DIGEST, _SALT = 16, 32, 16
_PIECE = 1 << 20
"""Bytes that are read or written at once."""

Arrays = Mapping[str, npt.NDArray]
"""Values of all examples by name; the last axis runs over the examples."""


def journal_path(out: str | os.PathLike[str]) -> Path:
    """Where the journal of a run that writes ``out`` lies."""
    return Path(f"{os.fspath(out)}.partial")


def complement(ranges: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """What ``ranges`` (start, stop), in any order, leave out of 0 to ``count``."""
    gaps, position = [], 0
    for start, stop in sorted(ranges):
        if start == stop:
            continue
        if start > position:
            gaps.append((position, start))
        position = max(position, stop)
    if position < count:
        gaps.append((position, count))
    return gaps


class Journal:
    """The journal at ``path``, claimed for this process; made where there is none.

    Args:
        path: where it lies.
        read_only: look at a journal that is there, without claiming it; nothing can then be written.

    Attributes:
        path: as given.
        run: the run that it is the journal of, as :meth:`begin` was told, or None for a new one.
        problem: why the record of the run cannot be read, though blocks may follow it, or None.
        finished: runs (start, stop) of examples that are finished, sorted and merged.
        damaged: runs of examples before the last finished one whose record is damaged.
        count: number of examples N; 0 where the record of the run cannot be read.
        closed: whether :meth:`end` was called.

    Raises:
        OutputExistsError: another process has it.
        StoreError: the file is no journal, is of a later version, or the system refuses.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.run: dict[str, Any] | None = None
        self.problem: str | None = None
        self.closed = False
        self._records: list[tuple[int, int, int]] = []  # first example, one past the last, offset of the values
        self._count = 0
        self._form: list[list[Any]] = []
        self._width = 0
        self._salt = b""
        self._end = 0
        self._arrays: Arrays = {}
        with self._failing("open"):
            system = _system.SYSTEM
            self._descriptor: int | None = system.open_to_read(self.path) if read_only else system.open(self.path)
        try:
            if not read_only:
                lock_writer(self._file, self.path)
            with self._failing("read"):
                self._scan()
        except BaseException:
            self.close()
            raise

    @property
    def _file(self) -> int:
        assert self._descriptor is not None, "the journal is closed"
        return self._descriptor

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"Cannot {what} {self.path}: {reason(error)}.") from error

    @property
    def count(self) -> int:
        """See above."""
        return self._count

    @property
    def is_worthless(self) -> bool:
        """Whether nothing would be lost with the file."""
        return self.problem is None and not self._records

    @property
    def finished(self) -> list[tuple[int, int]]:
        """See above."""
        blocks = [(start, stop) for start, stop, _ in self._records]
        return complement(complement(blocks, self._count), self._count)

    @property
    def damaged(self) -> list[tuple[int, int]]:
        """See above."""
        # Blocks are finished in order, so what is missing before the last one was there once.
        blocks = [(start, stop) for start, stop, _ in self._records]
        return complement(blocks, max((stop for _, stop in blocks), default=0))

    # Reading

    def _scan(self) -> None:
        size = _system.SYSTEM.size(self._file)
        head = self._read(0, _START.size + _CHECK)
        # A new file is synced after these bytes, so as long as it has no others, nothing has been lost with it.
        begun = size < _START.size + _CHECK or (size == len(head) and not any(head))
        if not _MAGIC.startswith(head[: len(_MAGIC)].rstrip(b"\0")) or not (begun or head.startswith(_MAGIC)):
            raise StoreError(
                f"{self.path} is not the journal of an unfinished run, or its first bytes are damaged; move or delete "
                "it."
            )
        if begun:
            return
        _, version, salt, length = _START.unpack_from(head)
        if _check(head[: _START.size]) != head[_START.size :]:
            self.problem = "its first bytes are damaged"
            return
        if version != _VERSION:
            raise StoreError(
                f"{self.path} is of version {version}, and this vogcore knows version {_VERSION}; go on with the "
                "vogcore that wrote it, or move or delete it."
            )
        end = len(head) + length + _DIGEST
        if end > size:
            return
        text = self._read(len(head), length)
        if _digest(salt, head, text) != self._read(len(head) + length, _DIGEST):
            self.problem = "its description of the run is damaged" if size > end else None
            return
        try:
            content = json.loads(text)
            self.run, self._count, self._form = dict(content["run"]), int(content["examples"]), content["arrays"]
            self._width = _width(self._form)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise StoreError(f"{self.path}: its description of the run makes no sense; move or delete it.") from error
        self._salt, self._end = salt, end
        self._scan_records(end, size)

    def _scan_records(self, offset: int, size: int) -> None:
        while offset < size:
            frame = self._read(offset, _FRAME.size + _CHECK)
            begin = offset + len(frame)
            found = self._unframe(frame)
            if found is None:
                offset = self._next_frame(offset + 1, size)
                continue
            start, stop, length = found
            offset = begin + length + _DIGEST
            if offset > size:
                break
            if self._digest_of(frame, begin, length) != self._read(begin + length, _DIGEST):
                continue
            if start == stop:
                self.closed = True
            else:
                self._records.append((start, stop, begin))
            self._end = offset

    def _unframe(self, frame: bytes) -> tuple[int, int, int] | None:
        """Range and length of a record, where its frame is whole; only then can a length be believed."""
        if len(frame) < _FRAME.size + _CHECK or _check(frame[: _FRAME.size], self._salt) != frame[_FRAME.size :]:
            return None
        marker, start, stop, length = _FRAME.unpack_from(frame)
        fits = marker == _MARKER and start <= stop <= self._count and length == (stop - start) * self._width
        return (start, stop, length) if fits else None

    def _next_frame(self, offset: int, size: int) -> int:
        """Where the next whole frame begins, behind damage; ``size`` where there is none."""
        while offset < size:
            piece = self._read(offset, _PIECE)
            at = piece.find(_MARKER)
            while at >= 0:
                if self._unframe(self._read(offset + at, _FRAME.size + _CHECK)) is not None:
                    return offset + at
                at = piece.find(_MARKER, at + 1)
            offset += max(len(piece) - len(_MARKER) + 1, 1)
        return size

    def _digest_of(self, frame: bytes, begin: int, length: int) -> bytes:
        digest = hashlib.blake2b(frame, digest_size=_DIGEST, key=self._salt)
        for at in range(0, length, _PIECE):
            digest.update(self._read(begin + at, min(_PIECE, length - at)))
        return digest.digest()

    def _read(self, offset: int, count: int) -> bytes:
        count = min(count, max(_system.SYSTEM.size(self._file) - offset, 0))
        buffer = bytearray(count)
        return bytes(buffer[: _system.SYSTEM.read(self._file, memoryview(buffer), offset)])

    # Writing

    def begin(self, run: Mapping[str, Any], arrays: Arrays) -> None:
        """Start anew, whatever the file held.

        Args:
            run: what JSON can hold; describes the run.
            arrays: where finished values are taken from, see :meth:`append`.

        Raises:
            StoreError: the system refuses.
        """
        form = _form(arrays)
        count = next(iter(arrays.values())).shape[-1]
        text = json.dumps({"run": run, "examples": count, "arrays": form}).encode()
        salt = os.urandom(_SALT)
        head = _START.pack(_MAGIC, _VERSION, salt, len(text))
        head += _check(head)
        with self._failing("write"):
            if _system.SYSTEM.size(self._file):
                # Never old records behind a new start: first they are gone, then there is another one.
                _system.SYSTEM.truncate(self._file, 0)
                _system.SYSTEM.sync(self._file)
            _system.SYSTEM.write(self._file, head, 0)
            _system.SYSTEM.sync(self._file)
            _system.SYSTEM.write(self._file, text + _digest(salt, head, text), len(head))
            _system.SYSTEM.sync(self._file)
            _system.SYSTEM.sync_folder(self.path.parent)
        self.run, self.problem, self.closed = dict(run), None, False
        self._salt, self._count, self._form, self._arrays = salt, count, form, arrays
        self._width = _width(form)
        self._records, self._end = [], len(head) + len(text) + _DIGEST

    def resume(self, arrays: Arrays) -> None:
        """Fill in what is finished, cut off what is not, and go on.

        Args:
            arrays: as :meth:`begin` was given; the finished values are written into them.

        Raises:
            StoreError: they are other arrays than those in the journal, or the system refuses.
        """
        form = _form(arrays)
        if form != self._form or any(array.shape[-1] != self._count for array in arrays.values()):
            raise StoreError(f"{self.path} holds other values than this run would write; move or delete it.")
        self._arrays = arrays
        with self._failing("read"):
            for start, stop, offset in self._records:
                for row in _rows(arrays, start, stop):
                    stored = bytearray(row.size * row.itemsize)
                    if _system.SYSTEM.read(self._file, memoryview(stored), offset) < len(stored):
                        raise StoreError(f"{self.path} has become shorter while it was read; start again.")
                    row[:] = np.frombuffer(stored, _little(row))
                    offset += len(stored)
        with self._failing("write"):
            _system.SYSTEM.truncate(self._file, self._end)

    def append(self, start: int, stop: int) -> None:
        """Keep the values of the examples ``start`` to ``stop`` (exclusive); on disk when this returns.

        Raises:
            StoreError: the disk is full or failed; what was finished before stays readable.
        """
        length = (stop - start) * self._width
        frame = _FRAME.pack(_MARKER, start, stop, length)
        frame += _check(frame, self._salt)
        digest = hashlib.blake2b(frame, digest_size=_DIGEST, key=self._salt)
        offset, piece = self._end, bytearray(frame)
        with self._failing("write"):
            for row in _rows(self._arrays, start, stop):
                stored = np.ascontiguousarray(row, _little(row)).view(np.uint8).data
                digest.update(stored)
                piece += stored
                if len(piece) >= _PIECE:
                    _system.SYSTEM.write(self._file, memoryview(piece), offset)
                    offset, piece = offset + len(piece), bytearray()
            piece += digest.digest()
            _system.SYSTEM.write(self._file, memoryview(piece), offset)
            _system.SYSTEM.sync(self._file)
        if start < stop:
            self._records.append((start, stop, self._end + len(frame)))
        self._end = offset + len(piece)

    def end(self) -> None:
        """Note that everything is finished: what follows is only putting files in their places.

        Raises:
            StoreError: the system refuses.
        """
        self.append(self._count, self._count)
        self.closed = True

    def remove(self) -> None:
        """Delete the file: the run has written its result, or there is nothing to go on from."""
        if os.name == "nt":  # Windows does not delete open files
            self.close()
        with contextlib.suppress(OSError):
            _system.SYSTEM.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._descriptor is not None:
            _system.SYSTEM.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _check(content: bytes, salt: bytes = b"") -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECK, key=salt).digest()


def _digest(salt: bytes, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=_DIGEST, key=salt).digest()


def _little(array: npt.NDArray) -> np.dtype:
    return array.dtype.newbyteorder("<")


def _form(arrays: Arrays) -> list[list[Any]]:
    """Name, type and shape without the examples of every array."""
    return [[name, _little(array).str, list(array.shape[:-1])] for name, array in arrays.items()]


def _width(form: list[list[Any]]) -> int:
    """Bytes that all arrays take for one example."""
    return sum(math.prod(int(length) for length in lead) * np.dtype(dtype).itemsize for _, dtype, lead in form)


def _rows(arrays: Arrays, start: int, stop: int) -> Iterator[npt.NDArray]:
    """The examples ``start`` to ``stop`` of every array, one row at a time, as they are stored."""
    for array in arrays.values():
        for row in array.reshape(-1, array.shape[-1]):
            yield row[start:stop]
