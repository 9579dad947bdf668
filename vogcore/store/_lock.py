"""One writer at a time: a lock on an open file, which the system takes back when the process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from vogcore.errors import OutputExistsError

__all__ = ["lock_writer", "writing_process"]

_TAKEN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


def lock_writer(descriptor: int, path: str | os.PathLike[str]) -> None:
    """Claim a file for this process until the descriptor is closed or the process ends.

    The lock is advisory (``flock``): it keeps out whoever asks for it, that is, other runs of vogcore. It belongs to
    the descriptor, so reading the file through another one meanwhile does not give it up.

    Args:
        descriptor: the file, open for writing.
        path: where it lies.

    Raises:
        OutputExistsError: another process has it, or the path has meanwhile become another file or none.
    """
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _TAKEN:
            raise _taken(path, _holder(os.fstat(descriptor).st_ino)) from None
        # A file system without locks (some that are mounted over a network): rather no lock than no results.
    # Between opening and locking, the other run may have finished and renamed or deleted the file.
    try:
        same = os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        same = False
    if not same:
        raise OutputExistsError(f"{os.fspath(path)} has just been completed by another run; start again.")


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        here = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, 2**62, os.SEEK_SET)  # far behind the content: locked bytes cannot be read by others
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, here, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _taken(path: str | os.PathLike[str], holder: int | None) -> OutputExistsError:
    who = "another run" if holder is None else f"process {holder}"
    return OutputExistsError(f"{os.fspath(path)} is being written by {who}; wait for it, or choose another name.")


def writing_process(path: str | os.PathLike[str]) -> int | None:
    """The process that has claimed a file, without claiming it, which would keep out a run that starts just now.

    None also where the system does not tell, see below.
    """
    try:
        return _holder(os.stat(path).st_ino)
    except OSError:
        return None


def _holder(wanted: int) -> int | None:
    """The process that has locked an inode, where Linux tells (not over a network, nor from inside a container)."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(wanted):
            holder = int(fields[4])
            return holder if holder > 0 else None
    return None
