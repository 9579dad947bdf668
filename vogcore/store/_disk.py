"""A file on disk, and changes to it that happen as a whole or not at all.

HDF5 keeps its tables of contents in many places of a file, so that a kill, a full disk or a loss of power in the
middle of a change can leave a file that does not open. Here HDF5 never touches the file: it works on
:class:`Overlay`, a picture of the file in memory, whose changes :meth:`DiskFile.apply` brings to the disk by way of a
journal beside the file (write-ahead logging).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from vogcore.store import _system
from vogcore.store._lock import lock_writer

__all__ = ["DiskFile", "Overlay"]

PAGE = 4096
_RUN = 256  # pages written at once, 1 MB
_MAGIC = b"vogcore\x01"
_HEADER = struct.Struct("<8sQQQ32s")  # magic, length of the file before and afterwards, bytes of ranges, digest
_RANGE = struct.Struct("<QQ")


class DiskFile:
    """A file open for reading and writing at given positions, locked against other writers.

    Args:
        path: the file.
        create: make it where it does not exist.

    Attributes:
        path: the file.
        size: its length in bytes.

    Raises:
        OSError: the system refused.
        OutputExistsError: another process is writing the file.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        self.path = Path(path)
        self._journal_path = self.path.with_name(self.path.name + ".journal")
        self._journal: int | None = None
        self._descriptor = _system.SYSTEM.open(self.path, create=create)
        try:
            lock_writer(self._descriptor, self.path)
            self.size = _system.SYSTEM.size(self._descriptor)
        except BaseException:
            _system.SYSTEM.close(self._descriptor)
            raise

    def read(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` from a position; returns how many bytes there were."""
        return _system.SYSTEM.read(self._descriptor, view, offset)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of ``data`` at a position."""
        _system.SYSTEM.write(self._descriptor, data, offset)
        self.size = max(self.size, offset + memoryview(data).nbytes)

    def start_writing(self, offset: int, count: int) -> None:
        """Let the disk begin with what was written at a position."""
        _system.SYSTEM.start_writing(self._descriptor, offset, count)

    def truncate(self, size: int) -> None:
        """Set the length; what is new reads as zeros."""
        _system.SYSTEM.truncate(self._descriptor, size)
        self.size = size

    def sync(self) -> None:
        """Make everything written so far survive a loss of power."""
        _system.SYSTEM.sync(self._descriptor)

    def apply(self, overlay: Overlay) -> None:
        """Bring the changes of an overlay to the disk, all of them or none.

        What lies behind the old end of the file is written at once: nothing refers to it yet. What replaces old content
        goes to the journal first, and is applied again from there if this is interrupted.

        Raises:
            OSError: the system refused; the file is as before, or :meth:`recover` completes the change.
        """
        old = overlay.base_size
        if overlay.size > old:
            self.truncate(overlay.size)
        replaced = []
        for offset, data in overlay.changes(old):
            if offset < old:
                replaced.append((offset, data))
            else:
                self.write(offset, data)
        self.sync()
        if replaced or overlay.size < old:
            self._note(old, overlay.size, replaced)
            self._redo(overlay.size, replaced)

    def _note(self, before: int, size: int, ranges: list[tuple[int, bytes]]) -> None:
        """Write the journal, and make sure of it."""
        body = b"".join(itertools.chain.from_iterable((_RANGE.pack(at, len(data)), data) for at, data in ranges))
        if self._journal is None:
            self._journal = _system.SYSTEM.open(self._journal_path)
            _system.SYSTEM.sync_folder(self.path.parent)
        header = _HEADER.pack(_MAGIC, before, size, len(body), _digest(before, size, body))
        _system.SYSTEM.write(self._journal, header + body, 0)
        _system.SYSTEM.sync(self._journal)

    def _redo(self, size: int, ranges: list[tuple[int, bytes]]) -> None:
        """Apply the journal and make it void."""
        for offset, data in ranges:
            self.write(offset, data)
        if size != self.size:
            self.truncate(size)
        self.sync()
        assert self._journal is not None
        # Void before the next write: an old journal that came back after a loss of power would undo newer changes.
        _system.SYSTEM.write(self._journal, bytes(_HEADER.size), 0)
        _system.SYSTEM.sync(self._journal)

    def become(self, source: Path) -> None:
        """Take the place of this file's content with that of another file, which is then gone; in one step.

        Raises:
            OSError: the system refused; the file is as before.
        """
        descriptor = _system.SYSTEM.open(source, create=False)
        try:
            _system.SYSTEM.sync(descriptor)
            lock_writer(descriptor, source)
            _system.SYSTEM.replace(source, self.path)
        except BaseException:
            _system.SYSTEM.close(descriptor)
            raise
        _system.SYSTEM.sync_folder(self.path.parent)
        # Locked before it has the name: at no moment could another process take it.
        _system.SYSTEM.close(self._descriptor)
        self._descriptor = descriptor
        self.size = _system.SYSTEM.size(descriptor)

    def recover(self) -> bool:
        """Complete a change that was interrupted; True where there was one.

        Raises:
            OSError: the system refused.
        """
        try:
            content = self._journal_path.read_bytes()
        except FileNotFoundError:
            return False
        found = _parse(content)
        # Else it was cut short before the file was touched, or is void; or it is another file's: it was written when
        # everything behind the old end was there already.
        if found is None or self.size < found[0]:
            return False
        self._journal = _system.SYSTEM.open(self._journal_path)
        self._redo(*found[1:])
        return True

    def close(self) -> None:
        """Close the file and give up the lock."""
        if self._journal is not None:
            _system.SYSTEM.close(self._journal)
            self._journal = None
        with contextlib.suppress(OSError):
            _system.SYSTEM.unlink(self._journal_path)
        _system.SYSTEM.close(self._descriptor)


def _digest(before: int, size: int, body: bytes) -> bytes:
    return hashlib.blake2b(struct.pack("<QQ", before, size) + body, digest_size=32).digest()


def _parse(content: bytes) -> tuple[int, int, list[tuple[int, bytes]]] | None:
    """Length of the file before and afterwards, and ranges, of a complete journal; None for any other."""
    if len(content) < _HEADER.size:
        return None
    magic, before, size, length, digest = _HEADER.unpack_from(content)
    body = content[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC or len(body) != length:
        return None
    if _digest(before, size, body) != digest:
        return None
    ranges, at = [], 0
    while at < length:
        offset, count = _RANGE.unpack_from(body, at)
        at += _RANGE.size
        ranges.append((offset, body[at : at + count]))
        at += count
    return before, size, ranges


class Overlay:
    """A file object for :class:`h5py.File`: the content of a file, with changes that stay in memory.

    Args:
        file: the file; it must not change meanwhile.

    Attributes:
        base_size: length of the file.
        size: length with the changes.
    """

    def __init__(self, file: DiskFile) -> None:
        self._file = file
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self.base_size = self.size = file.size
        self._valid = file.size  # what was cut off and grown again reads as zeros

    def changes(self, border: int) -> Iterator[tuple[int, bytes]]:
        """Runs of changed content: (position, content), in order, none of which lies on both sides of ``border``."""
        for number in range(self._valid // PAGE, -(-min(self.base_size, self.size) // PAGE)):
            self._page(number)  # cut off and grown again
        numbers = sorted(number for number in self._pages if number * PAGE < self.size)
        for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
            run = [number for _, number in group]
            for part in (run[start : start + _RUN] for start in range(0, len(run), _RUN)):
                offset = part[0] * PAGE
                content = b"".join(self._pages[number] for number in part)[: self.size - offset]
                cut = border - offset
                if 0 < cut < len(content):
                    yield offset, content[:cut]
                    yield border, content[cut:]
                else:
                    yield offset, content

    def _page(self, number: int) -> bytearray:
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE)
            count = min(PAGE, max(0, self._valid - number * PAGE))
            self._file.read(number * PAGE, memoryview(page)[:count])
        return page

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data`` at the current position."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            number, offset = divmod(self._position + done, PAGE)
            count = min(PAGE - offset, len(view) - done)
            if count == PAGE:
                self._pages[number] = bytearray(view[done : done + PAGE])
            else:
                self._page(number)[offset : offset + count] = view[done : done + count]
            done += count
        self._position += done
        self.size = max(self.size, self._position)
        return done

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the current position, as far as the file goes."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._position))
        there = max(0, min(count, self._valid - self._position))
        self._file.read(self._position, view[:there])
        view[there:count] = bytes(count - there)
        first, last = self._position // PAGE, -(-(self._position + count) // PAGE)
        for number in range(first, last):
            page = self._pages.get(number)
            if page is not None:
                begin = max(self._position, number * PAGE)
                end = min(self._position + count, (number + 1) * PAGE)
                view[begin - self._position : end - self._position] = page[begin - number * PAGE : end - number * PAGE]
        self._position += count
        return count

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; h5py knows a file object by this method."""
        rest = max(0, self.size - self._position)
        content = bytearray(rest if size < 0 else min(size, rest))
        return bytes(content[: self.readinto(memoryview(content))])

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        size = self._position if size is None else size
        if size < self.size:
            for number in [number for number in self._pages if number * PAGE >= size]:
                del self._pages[number]
            if size % PAGE and size // PAGE in self._pages:
                self._pages[size // PAGE][size % PAGE :] = bytes(PAGE - size % PAGE)
            self._valid = min(self._valid, size)
        self.size = size
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def flush(self) -> None:
        """Nothing is buffered elsewhere."""
