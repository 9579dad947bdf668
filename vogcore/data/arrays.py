"""``.npy`` and ``.npz`` files: memory-mapped wherever their bytes lie in the file as they are in memory.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Files are parsed here rather than with
:func:`numpy.load` because that cannot map the members of an archive. Pickled objects are never loaded.
"""

from __future__ import annotations

import io
import lzma
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from vogcore.data._files import check_file, describe_names
from vogcore.errors import DataError

__all__ = ["NpzFile", "map_npy"]

_ZIP_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field (APPNOTE 4.3.7)
_ENCRYPTED = 0x1
_PIECE = 16 << 20
_LARGEST_DICTIONARY = 64 << 20
"""Bytes; what the strongest preset of LZMA takes."""
_LONGEST_HEADER = 10_000
"""Bytes; NumPy parses no longer one either, but would read it first."""


def map_npy(path: str | os.PathLike[str]) -> npt.NDArray:
    """Memory-map a ``.npy`` file, read-only.

    Args:
        path: the file.

    Returns:
        The array with the shape and dtype of the file.

    Raises:
        DataError: missing, not a ``.npy`` file, truncated, or holding pickled objects.
    """
    file = check_file(path)
    with open(file, "rb") as stream:
        return _map_array(file, stream, end=file.stat().st_size, where=str(path))


class NpzFile:
    """The named arrays of a ``.npz`` file.

    Members that are stored without compression (``numpy.savez``) are memory-mapped, so that the checksum of the archive
    is not verified for them; compressed ones are read as a whole and verified.

    Args:
        path: the file.

    Raises:
        DataError: missing, not a zip archive, truncated, or encrypted.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)
        self._path = check_file(path)
        with open(self._path, "rb") as stream:
            is_zip = stream.read(4) == _ZIP_MAGIC
        try:
            with zipfile.ZipFile(self._path) as archive:
                infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            wrong = "is truncated or damaged: write or copy it again" if is_zip else "is not an .npz file"
            raise DataError(f"{self.name} {wrong}.") from error
        self._members = {info.filename.removesuffix(".npy"): info for info in infos}

    def has(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in self._members

    def describe(self) -> str:
        """The names of all arrays with shapes and types, for a message."""
        return describe_names([(name, self._describe_member(name)) for name in self._members])

    def _describe_member(self, name: str) -> str:
        try:
            if self._members[name].compress_type == zipfile.ZIP_LZMA:
                self._check_dictionary(self._members[name], name)
            with zipfile.ZipFile(self._path) as archive, archive.open(self._members[name]) as stream:
                shape, _, dtype = _read_header(stream, self.name)
        except (*_READ_ERRORS, DataError):
            return "(unreadable)"
        return f"{shape} {dtype}"

    def rows(self, name: str) -> npt.NDArray:
        """The array `name`: a read-only memory map where it is stored, else read into memory.

        Raises:
            DataError: the member is damaged, encrypted, does not fit into memory, or holds pickled objects.
        """
        info = self._members[name]
        where = f"{self.name} ({name!r})"
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"{where} is encrypted: save the arrays again without a password.")
        if info.compress_type == zipfile.ZIP_STORED:
            return self._map_stored(info, where)
        return self._read_compressed(info, where)

    values = rows

    def close(self) -> None:
        """Nothing to let go of: the file is open only while something is read."""

    def _map_stored(self, info: zipfile.ZipInfo, where: str) -> npt.NDArray:
        with open(self._path, "rb") as stream:
            start = self._find_content(stream, info, where)
            end = min(start + info.file_size, self._path.stat().st_size)
            return _map_array(self._path, stream, end=end, where=where)

    def _find_content(self, stream: IO[bytes], info: zipfile.ZipInfo, where: str) -> int:
        """Position of a member's bytes in the file, where the stream is then."""
        if not 0 <= info.header_offset < self._path.stat().st_size:
            raise DataError(f"{where} is damaged: write the file again.")
        stream.seek(info.header_offset)
        header = stream.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_ZIP_MAGIC):
            raise DataError(f"{where} is damaged: write the file again.")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        return stream.seek(info.header_offset + _LOCAL_HEADER.size + name_length + extra_length)

    def _check_dictionary(self, info: zipfile.ZipInfo, where: str) -> None:
        """LZMA makes room for the dictionary that a member asks for before it looks at its content."""
        with open(self._path, "rb") as stream:
            self._find_content(stream, info, where)
            # Version of the method (2 bytes), size of the properties (2), one property, then this size (APPNOTE 5.8.8).
            size = int.from_bytes(stream.read(9)[5:], "little")
        if size > _LARGEST_DICTIONARY:
            raise DataError(f"{where} asks LZMA for {size} bytes of memory: save it with numpy.savez_compressed.")

    def _read_compressed(self, info: zipfile.ZipInfo, where: str) -> npt.NDArray:
        if info.compress_type == zipfile.ZIP_LZMA:
            self._check_dictionary(info, where)
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(info) as stream:
                shape, fortran_order, dtype = _read_header(stream, where)
                _check_size(shape, dtype, info.file_size - stream.tell(), where)
                content = _read_pieces(stream, math.prod(shape) * dtype.itemsize, where)
        except MemoryError as error:
            raise DataError(
                f"{where} is compressed and does not fit into memory: save it with numpy.savez or as a .npy "
                "file, which are read in pieces."
            ) from error
        except _READ_ERRORS as error:
            raise DataError(f"{where} is damaged: write the file again.") from error
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_pieces(stream: IO[bytes], count: int, where: str) -> bytearray:
    """``count`` bytes; memory grows with what is really there, whatever the directory of the archive claims."""
    content = bytearray()
    while len(content) < count:
        piece = stream.read(min(_PIECE, count - len(content)))
        if not piece:
            raise DataError(f"{where} is truncated: {count} bytes of values were announced and {len(content)} came.")
        content += piece
    stream.read(1)  # at the end of the member, its checksum is compared
    return content


_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # zipfile's word for an encrypted member; NotImplementedError, for a method it lacks, is one as well
)


def _map_array(path: Path, stream: IO[bytes], *, end: int, where: str) -> npt.NDArray:
    """Map the array whose ``.npy`` header starts at the stream's position and whose file part stops at byte `end`."""
    shape, fortran_order, dtype = _read_header(stream, where)
    offset = stream.tell()
    _check_size(shape, dtype, end - offset, where)
    try:
        if 0 in shape:
            return np.zeros(shape, dtype)  # nothing to map, and the operating system refuses to map nothing
        # A shape () would be read by memmap as "as much as the file holds".
        mapped = np.memmap(path, dtype, "r", offset, shape or (1,), "F" if fortran_order else "C")
    except (OSError, ValueError) as error:
        raise DataError(f"{where} cannot be mapped into memory: {error}.") from error
    return mapped.reshape(shape) if not shape else mapped


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and dtype; leaves the stream at the first value."""
    start = stream.read(npy_format.MAGIC_LEN)
    if not start.startswith(npy_format.MAGIC_PREFIX):
        raise DataError(f"{where} is not in .npy format: save it with numpy.save or numpy.savez.")
    read = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
    }.get((start[-2], start[-1]) if len(start) == npy_format.MAGIC_LEN else (0, 0))
    if read is None:
        # Version 3.0 exists for field names of structured types only, which are no examples anyway.
        raise DataError(f"{where} has an unknown .npy version or is truncated: save a plain numeric array.")
    width = 2 if start[-2] == 1 else 4
    length = stream.read(width)
    if int.from_bytes(length, "little") > _LONGEST_HEADER:
        raise DataError(f"{where} has a damaged header (too long): write the file again.")
    header = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about what a damaged header says
            shape, fortran_order, dtype = read(header)
    except (ValueError, SyntaxError, TypeError, EOFError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise DataError(f"{where} has a damaged or truncated header: write the file again.") from error
    if dtype.hasobject:
        raise DataError(f"{where} holds pickled Python objects, which are never loaded: save a plain numeric array.")
    if dtype.itemsize == 0:
        raise DataError(f"{where} holds values of no size ({dtype}): save a plain numeric array.")
    if any(length < 0 for length in shape):
        raise DataError(f"{where} has a damaged header (shape {shape}): write the file again.")
    return shape, fortran_order, dtype


def _check_size(shape: tuple[int, ...], dtype: np.dtype, available: int, where: str) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if needed > available:
        raise DataError(
            f"{where} is truncated: an array {shape} of {dtype} needs {needed} bytes and the file has "
            f"{max(available, 0)}, so write or copy it again."
        )
