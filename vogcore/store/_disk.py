"""A file under HDF5 that can run out of space without taking the process down."""

from __future__ import annotations

import os
from typing import BinaryIO

__all__ = ["Disk"]


class Disk:
    """A new file for :class:`h5py.File`, which after a refused write takes everything and writes nothing.

    HDF5 cannot close a file that it cannot flush: it keeps it, tries again when the process ends, and crashes there,
    so that a clean error would end in a segmentation fault. So writing never fails as far as HDF5 can see; whoever
    uses it asks :meth:`check`. What is on disk stays as the last write that went through left it, as after a kill.

    Raises:
        OSError: the file exists or cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file: BinaryIO = open(path, "x+b", buffering=0)  # noqa: SIM115 - closed by close()
        self._failure: OSError | None = None

    def check(self) -> None:
        """Raise the error of the first write that was refused.

        Raises:
            OSError: as the system gave it.
        """
        if self._failure is not None:
            raise self._failure

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data`` at the current position."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self._failure is None:
            try:
                done += self._file.write(view[done:])
            except OSError as error:
                self._failure = error
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        if self._failure is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self._failure = error
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; h5py knows a file object by this method."""
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the current position, as far as the file goes."""
        return self._file.readinto(buffer)  # type: ignore[attr-defined]

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
