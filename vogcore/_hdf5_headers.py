"""What an HDF5 file says about its objects, read without libhdf5: where superblock and messages are.

Some of what a header claims has to be checked before libhdf5 acts on it. The format: HDF5 File Format Specification,
version 3, II and IV.A.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

__all__ = ["Header", "HeaderError", "Superblock", "read_header", "read_superblock"]

_DATASPACE, _FILL, _LAYOUT, _ATTRIBUTE, _CONTINUATION, _ATTRIBUTE_INFO = 0x01, 0x05, 0x08, 0x0C, 0x10, 0x15
_MAGIC = b"\x89HDF\r\n\x1a\n"
_SHARED = 0x02
_UNDEFINED = (1 << 64) - 1
_LONGEST = 1 << 20
"""Bytes of a header; a longer one leads back to itself."""


class HeaderError(ValueError):
    """A part of a file that libhdf5 must not read; the message says why, without a full stop."""


class Superblock(NamedTuple):
    """What the rest of a file is read by."""

    base: int
    """Bytes in front of it; all addresses count from its end."""
    length: int
    """Bytes of a length."""
    root: int
    """Address of the root group's header."""


class Header(NamedTuple):
    """The header of one object."""

    attributes: list[bytes]
    """Contents of the messages that are attributes, and of the heap that holds them where they are many."""
    others: list[bytes]
    """Contents of all other messages."""
    layout: bytes
    """Content of the message that says where the values of a data set are; empty for a group."""
    complete: bool
    """False where attributes or a fill value are kept elsewhere, in a way that is not followed here."""


def read_superblock(data: mmap.mmap) -> Superblock:
    """The superblock: at 0 or, behind a block of the user's, at 512, 1024, 2048 ...

    Raises:
        HeaderError: there is none, or its sizes are none that a file can have.
    """
    base = 0
    while data[base : base + 8] != _MAGIC:
        base = 2 * base or 512
        if base >= len(data):
            raise HeaderError("it has no superblock")
    try:
        version = data[base + 8]
        offset, length = data[base + (13 if version < 2 else 9)], data[base + (14 if version < 2 else 10)]
        # In the entry of the root group, in the old versions, it comes behind the offset of a name.
        place = 12 + 3 * offset if version >= 2 else (24 if version == 0 else 28) + 5 * offset
        root = int.from_bytes(data[base + place : base + place + offset], "little")
    except IndexError as error:
        raise HeaderError("its superblock is cut short") from error
    if length not in (2, 4, 8, 16) or offset not in (2, 4, 8, 16):
        raise HeaderError("its superblock is damaged")
    if offset != 8 or length != 8:
        raise HeaderError("its addresses do not have 8 bytes; copy it with h5repack")
    return Superblock(base, length, root)


def read_header(data: mmap.mmap, superblock: Superblock, address: int) -> Header:
    """The messages in the header of the object at an address.

    Raises:
        HeaderError: the header ends beyond the file, or leads back to itself.
    """
    try:
        return _read(data, superblock.base, address)
    except (struct.error, IndexError, OverflowError) as error:
        raise HeaderError("the header of an object ends beyond the file") from error


def _read(data: mmap.mmap, base: int, address: int) -> Header:
    attributes: list[bytes] = []
    others: list[bytes] = []
    layout = b""
    complete, read = True, 0
    at, end, head = _first_part(data, base + address)
    parts = [(at, end)]
    while parts:
        at, end = parts.pop()
        read += max(end - at, head)
        if read > _LONGEST:
            raise HeaderError("the header of an object leads back to itself")
        while at + head <= end:
            if head == 8:
                kind, size, flags = struct.unpack_from("<HHB", data, at)
            else:
                kind, size, flags = struct.unpack_from("<BHB", data, at)
            body = data[at + head : at + head + size]
            at += head + size
            if kind == _CONTINUATION:
                start, count = struct.unpack_from("<QQ", body)
                # A continuation of the new kind has a signature in front and a checksum behind.
                margin = 0 if head == 8 else 4
                parts.append((base + start + margin, base + start + count - margin))
                continue
            if flags & _SHARED and kind in (_DATASPACE, _FILL, _ATTRIBUTE):
                complete = False
            if kind == _ATTRIBUTE_INFO:
                block = _attribute_heap(data, base, body)
                complete = complete and block is not None
                attributes.append(block or b"")
            if kind == _LAYOUT:
                layout = body
            (attributes if kind == _ATTRIBUTE else others).append(body)
    return Header(attributes, others, layout, complete)


def _first_part(data: mmap.mmap, start: int) -> tuple[int, int, int]:
    """Begin and end of the first messages of a header, and the bytes in front of each message."""
    if data[start : start + 4] == b"OHDR":
        flags = data[start + 5]
        at = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        count = int.from_bytes(data[at : at + width], "little")
        return at + width, at + width + count, 6 if flags & 0x04 else 4
    (count,) = struct.unpack_from("<I", data, start + 8)
    return start + 16, start + 16 + count, 8


def _attribute_heap(data: mmap.mmap, base: int, information: bytes) -> bytes | None:
    """The block of a fractal heap that an attribute info message points at; None where the heap has several blocks."""
    at = 4 if information[1] & 1 else 2
    (address,) = struct.unpack_from("<Q", information, at)
    if address == _UNDEFINED:
        return b""
    start = base + address
    if data[start : start + 4] != b"FRHP":
        return b""  # which libhdf5 refuses
    (filters,) = struct.unpack_from("<H", data, start + 7)
    # Behind the table's width: sizes of the first and of the largest direct block, the root block, rows of the table.
    size, _, _, _, root, rows = struct.unpack_from("<QQHHQH", data, start + 112)
    if filters or rows or size > _LONGEST:
        return None
    return data[base + root : base + root + size]
