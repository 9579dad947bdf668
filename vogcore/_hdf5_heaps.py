"""Global heaps of an HDF5 file, checked before libhdf5 reads them.

Variable-length strings and the layout of virtual data sets lie in global heap collections. libhdf5 walks through one
object by object, and an object that claims the size 0 keeps it there for ever; the size is not checked (HDF5 2.0.0 and
before). The format: HDF5 File Format Specification, version 3, III.E.
"""

from __future__ import annotations

import mmap
import os
import struct

__all__ = ["HeapError", "check_all_heaps", "check_object_heaps"]

_MAGIC = b"\x89HDF\r\n\x1a\n"
_SIGNATURE = b"GCOL"
_CONTINUATION, _ATTRIBUTE_INFO = 0x10, 0x15
_SHARED = 0x02
_LONGEST_HEADER = 1 << 20


class HeapError(ValueError):
    """A heap that libhdf5 must not read; the message says why, without a full stop."""


def check_all_heaps(path: str | os.PathLike[str]) -> int:
    """Check every collection in a file, wherever it lies; reads the file once.

    Returns:
        Bytes of the largest object in any of them: no variable-length string is longer.

    Raises:
        HeapError: a collection, or the file, is damaged.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _check_all(data)


def check_object_heaps(path: str | os.PathLike[str], address: int | None = None) -> None:
    """Check the collections that the header of one object points at, without reading the rest of a large file.

    That covers its attributes, its fill value and, of a virtual data set, its layout. Where parts of the header are
    kept elsewhere (many attributes, shared messages), every collection in the file is checked.

    Args:
        path: the file.
        address: where the object is, as HDF5 tells it; the root group by default.

    Raises:
        HeapError: a collection, the header, or the file is damaged.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        length = _length_size(data)
        try:
            messages = _messages(data, address)
        except (struct.error, IndexError, OverflowError) as error:
            raise HeapError("the header of an object ends beyond the file") from error
        if messages is None:
            _check_all(data)
            return
        for message in messages:
            # Wherever in the message the address of a heap may be, it is eight bytes that point at a signature.
            for at in range(len(message) - 7):
                address = int.from_bytes(message[at : at + 8], "little")
                if data[address : address + 4] == _SIGNATURE:
                    _check_collection(data, address, length)


def _check_all(data: mmap.mmap) -> int:
    length = _length_size(data)
    walked = largest = 0
    at = data.find(_SIGNATURE)
    while at >= 0:
        size, longest = _check_collection(data, at, length)
        walked, largest = walked + size, max(largest, longest)
        if walked > 2 * len(data):
            # Written ones do not overlap, and following many long ones through one another would take hours.
            raise HeapError("its global heaps lie on top of one another")
        at = data.find(_SIGNATURE, at + 1)
    return largest


def _superblock(data: mmap.mmap) -> int:
    """Where the superblock is: at 0 or, behind a block of the user's, at 512, 1024, 2048 ..."""
    at = 0
    while data[at : at + 8] != _MAGIC:
        at = 2 * at or 512
        if at >= len(data):
            raise HeapError("it has no superblock")
    return at


def _length_size(data: mmap.mmap) -> int:
    """Bytes of a length in this file: 8, unless somebody chose otherwise."""
    at = _superblock(data)
    place = at + (14 if data[at + 8 : at + 9] in (b"\0", b"\1") else 10)
    size = data[place : place + 1]
    if size not in (b"\2", b"\4", b"\10", b"\20"):
        raise HeapError("its superblock is damaged")
    return size[0]


def _check_collection(data: mmap.mmap, start: int, length: int) -> tuple[int, int]:
    """Follow the objects of one collection as libhdf5 does; its size and that of its largest object.

    What libhdf5 refuses by itself is left to it: any version but 1, and an end behind that of the file.
    """
    if data[start + 4 : start + 5] != b"\1":
        return 0, 0
    # Eight bytes and a length, in front of the collection as in front of each of its objects.
    head = 8 + length + (-(8 + length)) % 8
    end = start + int.from_bytes(data[start + 8 : start + 8 + length], "little")
    if end > len(data):
        return 0, 0
    at, largest = start + head, 0
    while at + head <= end:
        index = int.from_bytes(data[at : at + 2], "little")
        size = int.from_bytes(data[at + 8 : at + 8 + length], "little")
        # Index 0 is free space, whose size counts its own head.
        step = head + size + -size % 8 if index else size
        if not 0 < step <= end - at:
            raise HeapError(f"its global heap at byte {start} is damaged")
        at, largest = at + step, max(largest, size)
    return end - start, largest


def _messages(data: mmap.mmap, address: int | None) -> list[bytes] | None:
    """Contents of the messages in an object's header; None where some of it is elsewhere.

    Raises:
        struct.error, IndexError, OverflowError: the header ends beyond the file.
    """
    base = _superblock(data)
    version = data[base + 8]
    sizes = base + (13 if version < 2 else 9)
    if base or data[sizes] != 8 or data[sizes + 1] != 8:
        return None
    if address is None:
        # In the entry of the root group it comes behind the offset of a name.
        place = 36 if version >= 2 else (24 if version == 0 else 28) + 32 + 8
        (address,) = struct.unpack_from("<Q", data, place)
    found: list[bytes] = []
    parts, head = _header_parts(data, address)
    read = 0
    while parts:
        at, end = parts.pop()
        read += max(end - at, head)
        if read > _LONGEST_HEADER:  # or it leads back to itself
            return None
        while at + head <= end:
            if head == 8:
                kind, size, flags = struct.unpack_from("<HHB", data, at)
            else:
                kind, size, flags = struct.unpack_from("<BHB", data, at)
            body = data[at + head : at + head + size]
            if flags & _SHARED or (kind == _ATTRIBUTE_INFO and _has_heap(body)):
                return None
            if kind == _CONTINUATION:
                start, count = struct.unpack_from("<QQ", body)
                parts.append((start, start + count) if head == 8 else (start + 4, start + count - 4))
            else:
                found.append(body)
            at += head + size
    return found


def _has_heap(information: bytes) -> bool:
    """Whether an attribute info message says that attributes are kept outside of the header."""
    at = 4 if information[1] & 1 else 2
    return information[at : at + 8] != b"\xff" * 8


def _header_parts(data: mmap.mmap, address: int) -> tuple[list[tuple[int, int]], int]:
    """Range of the messages in an object header, and the bytes in front of each message."""
    if data[address : address + 4] == b"OHDR":
        flags = data[address + 5]
        at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        count = int.from_bytes(data[at : at + width], "little")
        return [(at + width, at + width + count)], 6 if flags & 0x04 else 4
    (count,) = struct.unpack_from("<I", data, address + 8)
    return [(address + 16, address + 16 + count)], 8
