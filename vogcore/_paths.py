"""Output files that appear under their name whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from vogcore.errors import OutputExistsError, StoreError

__all__ = ["check_output", "finish_publishing", "publish", "reason", "sync_file", "write_whole"]

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the file size limit",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


def reason(error: BaseException) -> str:
    """Why the operating system refused, in words; HDF5 puts the number in the text of its message only."""
    number = getattr(error, "errno", None)
    text = str(error)
    if number not in _REASONS:
        number = next((n for n in _REASONS if f"errno = {n}," in text), None)
    if number in _REASONS:
        return _REASONS[number]
    return text.splitlines()[0] if text else type(error).__name__


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Find out before hours of work whether a file can be written.

    Raises:
        OutputExistsError: the file exists and ``overwrite`` is False.
        StoreError: the path is a folder, or its folder is missing or not writable.
    """
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise StoreError(f"Cannot write {target}: it is a folder; give the name of a file.")
    if os.path.lexists(target) and not overwrite:
        raise OutputExistsError(
            f"{target} exists already; choose another name, or replace it (overwrite=True, on the command line "
            "--overwrite)."
        )
    if not folder.is_dir():
        raise StoreError(f"Cannot write {target}: the folder {folder} does not exist; create it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"Cannot write {target}: the folder {folder} is not writable; choose another one.")


def sync_file(path: str | os.PathLike[str]) -> None:
    """Make what was written to a file survive a loss of power."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    # Some systems cannot open or sync a folder; the rename itself is then as durable as they make it.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def publish(temporary: str | os.PathLike[str], path: str | os.PathLike[str], overwrite: bool) -> None:
    """Give a complete file its final name, in one step.

    Raises:
        OutputExistsError: somebody wrote a file of that name meanwhile, and ``overwrite`` is False.
        OSError: the system refused.
    """
    target = Path(path)
    if overwrite:
        os.replace(temporary, target)
    else:
        try:
            os.link(temporary, target)  # unlike a rename, a link never replaces a file
            with contextlib.suppress(FileNotFoundError):  # another run has called finish_publishing meanwhile
                os.unlink(temporary)
        except FileExistsError:
            raise OutputExistsError(f"{target} was written by somebody else meanwhile; choose another name.") from None
        except OSError:  # a file system without links
            check_output(target, overwrite=False)
            os.rename(temporary, target)
    _sync_folder(target.parent)


def finish_publishing(temporary: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Take away the temporary name that a kill in the middle of :func:`publish` has left beside the final one."""
    with contextlib.suppress(OSError):
        if os.path.samefile(temporary, path):
            os.unlink(temporary)


def write_whole(path: str | os.PathLike[str], content: bytes | memoryview, overwrite: bool) -> None:
    """Write a file under a temporary name in its folder, sync it and rename it; leave nothing behind on failure.

    Raises:
        OutputExistsError: the file exists and ``overwrite`` is False.
        StoreError: the system refused; the message says why.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, target, overwrite)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {reason(error)}.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
