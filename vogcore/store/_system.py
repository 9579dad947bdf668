"""The few calls to the operating system that durability rests on, in one place where tests can watch them."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["SYSTEM", "System"]

_BINARY = getattr(os, "O_BINARY", 0)


class System:
    """Files by descriptor, read and written at given positions. Every method raises OSError as the system does."""

    def open(self, path: Path, *, create: bool = True) -> int:
        """A descriptor for reading and writing."""
        return os.open(path, os.O_RDWR | _BINARY | (os.O_CREAT if create else 0), 0o666)

    def open_to_read(self, path: Path) -> int:
        """A descriptor for reading alone, of a file that is there."""
        return os.open(path, os.O_RDONLY | _BINARY)

    def close(self, descriptor: int) -> None:
        """Close it, which gives up its lock."""
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        """Length in bytes."""
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, view: memoryview, offset: int) -> int:
        """Fill ``view`` from a position; returns how many bytes there were."""
        done = 0
        while done < len(view):
            part = _read_at(descriptor, len(view) - done, offset + done)
            if not part:
                break
            view[done : done + len(part)] = part
            done += len(part)
        return done

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of ``data`` at a position."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += _write_at(descriptor, view[done:], offset + done)

    def start_writing(self, descriptor: int, offset: int, count: int) -> None:
        """Let the disk begin with bytes that were written, without waiting for it; only a hint."""
        # Linux takes "not needed again" for bytes that are not on disk yet as an order to write them. Without it they
        # wait for sync(), and the disk has nothing to do while the next blocks come.
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)

    def truncate(self, descriptor: int, size: int) -> None:
        """Set the length; what is new reads as zeros and takes no space."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Make everything written so far survive a loss of power."""
        os.fsync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder survive a loss of power; some systems cannot, and then nothing happens."""
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another's name, in one step."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)


def _read_at(descriptor: int, count: int, offset: int) -> bytes:
    if sys.platform == "win32":
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)
    else:
        return os.pread(descriptor, count, offset)


def _write_at(descriptor: int, data: memoryview, offset: int) -> int:
    if sys.platform == "win32":
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)
    else:
        return os.pwrite(descriptor, data, offset)


SYSTEM = System()
