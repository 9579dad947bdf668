"""Heaps of an HDF5 file, checked before libhdf5 reads them.

Variable-length strings and the layout of virtual data sets lie in global heap collections. libhdf5 walks through one
object by object, and an object that claims the size 0 keeps it there for ever; the size is not checked (HDF5 2.0.0 and
before). The names in a group of the old kind lie in a local heap, whose list of free space libhdf5 follows and keeps in
memory, also where it leads back to itself. The format: HDF5 File Format Specification, version 3, III.D and III.E.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable

from vogcore._hdf5_headers import HeaderError, read_header, read_superblock
from vogcore._hdf5_virtual import check_table

__all__ = ["check_all_heaps", "check_object_heaps", "check_references"]

_SIGNATURE = b"GCOL"
_LOCAL = b"HEAP"
_NO_MORE = 1
"""Ends a list of free space."""
_HEAD = 16
"""Bytes in front of a collection, and of each object in it."""
_VIRTUAL = 3
_MOST_SUSPECTS = 16
_SMALL = 1 << 16
"""Bytes that a wrong length may claim: what looks like a reference may be something else by accident."""


def check_all_heaps(path: str | os.PathLike[str]) -> None:
    """Check every collection in a file, wherever it lies; reads the file once.

    Raises:
        HeaderError: a collection, or the file, is damaged.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _check_all(data, read_superblock(data).base)


def check_object_heaps(path: str | os.PathLike[str], address: int | None = None) -> bool:
    """Check the collections that one object points at, without reading the rest of a large file.

    To be called before libhdf5 opens the object or asks for its kind. It covers attributes, the fill value and, of a
    virtual data set, the layout. Where parts of the header are kept elsewhere in a way that is not followed here, every
    collection in the file is checked.

    Args:
        path: the file.
        address: where the object is, as the link to it says; the root group by default.

    Returns:
        Whether the object is a data set.

    Raises:
        HeaderError: a collection, the header, or the file is damaged.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        superblock = read_superblock(data)
        header = read_header(data, superblock, superblock.root if address is None else address)
        if not header.complete:
            _check_all(data, superblock.base)
        for content in (*header.others, *header.attributes):
            _check_pointers(data, superblock.base, content)
        for content in header.attributes:
            _check_length(data, superblock.base, content)
        _check_virtual(data, superblock.base, header.layout)
        return bool(header.layout)


def _check_pointers(data: mmap.mmap, base: int, content: bytes) -> None:
    """Wherever in a message the address of a heap may be, it is eight bytes that point at a signature."""
    for at in range(len(content) - 7):
        start = base + int.from_bytes(content[at : at + 8], "little")
        if data[start : start + 4] == _SIGNATURE and _collection(data, start) is None:
            raise _damaged(start)
        if data[start : start + 4] == _LOCAL:
            _check_local(data, base, start)


def _check_local(data: mmap.mmap, base: int, start: int) -> None:
    """The list of free space in a local heap ends, inside of the heap."""
    if len(data) < start + 32:
        return  # which libhdf5 refuses
    size, at, segment = struct.unpack_from("<QQQ", data, start + 8)
    if base + segment + size > len(data):
        raise HeaderError(f"its local heap at byte {start} ends beyond the file")
    seen = set()
    while at != _NO_MORE:
        if at in seen or at + 16 > size:
            raise HeaderError(f"its local heap at byte {start} is damaged")
        seen.add(at)
        at = int.from_bytes(data[base + segment + at : base + segment + at + 8], "little")


def _check_length(data: mmap.mmap, base: int, attribute: bytes) -> None:
    """The length of a text in an attribute message, for which libhdf5 makes room, must be that of the text."""
    if len(attribute) < 8 or attribute[0] not in (1, 2, 3):
        return
    sizes = struct.unpack_from("<HHH", attribute, 2)
    # In version 1, name, type and shape are padded to multiples of 8; from 3 on, the encoding of the name is in front.
    at = (9 if attribute[0] == 3 else 8) + sum(size + (-size % 8 if attribute[0] == 1 else 0) for size in sizes)
    if len(attribute) < at + 16:
        return
    length, address, index = struct.unpack_from("<IQI", attribute, at)
    start = base + address
    if data[start : start + 4] == _SIGNATURE:
        found = _collection(data, start)
        if found is None or length > max(found.get(index, 0), _SMALL):
            raise _damaged(start)


def check_references(path: str | os.PathLike[str], references: Iterable[bytes]) -> int:
    """Check the collections that the elements of a data set of variable-length text refer to.

    Args:
        path: the file.
        references: elements as they are stored, 16 bytes each.

    Returns:
        Bytes of all texts together.

    Raises:
        HeaderError: a collection is damaged, or a reference leads to something else.
        OSError: the file cannot be read.
    """
    total = 0
    known: dict[int, dict[int, int]] = {}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        base = read_superblock(data).base
        for part in references:
            for length, address, index in struct.iter_unpack("<IQI", part):
                if length == 0 or address == 0:
                    continue
                start = base + address
                if start not in known:
                    sizes = _collection(data, start)
                    if sizes is None or data[start : start + 4] != _SIGNATURE:
                        raise _damaged(start)
                    known[start] = sizes
                if known[start].get(index) != length:
                    raise HeaderError(f"a text refers to {length} bytes that its global heap at byte {start} lacks")
                total += length
    return total


def _damaged(start: int) -> HeaderError:
    return HeaderError(f"its global heap at byte {start} is damaged")


def _check_all(data: mmap.mmap, base: int) -> None:
    walked = 0
    suspects: list[int] = []
    start = data.find(_SIGNATURE)
    while start >= 0:
        sizes = _collection(data, start)
        if sizes is None:
            # Four letters and a version may be numbers as well, in a large file; the zeros behind them are no accident.
            if data[start + 5 : start + 8] == bytes(3) or len(suspects) == _MOST_SUSPECTS:
                raise _damaged(start)
            suspects.append(start)
        else:
            walked += sum(sizes.values()) + _HEAD * len(sizes)
        if walked > 2 * len(data):
            # Written ones do not overlap, and following many long ones through one another would take hours.
            raise HeaderError("its global heaps lie on top of one another")
        start = data.find(_SIGNATURE, start + 1)
    for start in suspects:
        if data.find((start - base).to_bytes(8, "little")) >= 0:  # something points at it
            raise _damaged(start)


def _collection(data: mmap.mmap, start: int) -> dict[int, int] | None:
    """Follow the objects of a collection as libhdf5 does: the size of each by its number, or None if it is damaged."""
    found = _objects(data, start)
    return None if found is None else {index: size for index, (_, size) in found.items()}


def _objects(data: mmap.mmap, start: int) -> dict[int, tuple[int, int]] | None:
    """Place and size of the objects of a collection by their number; None if it is damaged."""
    found: dict[int, tuple[int, int]] = {}
    if data[start + 4 : start + 5] != b"\1":
        return found  # which libhdf5 refuses
    end = start + int.from_bytes(data[start + 8 : start + 16], "little")
    if end > len(data):
        return None
    at = start + _HEAD
    while at + _HEAD <= end:
        index = int.from_bytes(data[at : at + 2], "little")
        size = int.from_bytes(data[at + 8 : at + 16], "little")
        # Index 0 is free space, whose size counts its own head.
        step = _HEAD + size + -size % 8 if index else size
        if not 0 < step <= end - at:
            return None
        found[index] = at + _HEAD, size
        at += step
    return found


def _check_virtual(data: mmap.mmap, base: int, layout: bytes) -> None:
    """The table of a virtual data set; its layout message has the address of a heap and the number of the object."""
    if len(layout) < 14 or layout[0] < 4 or layout[1] != _VIRTUAL:
        return
    address, index = struct.unpack_from("<QI", layout, 2)
    start = base + address
    found = _objects(data, start) if data[start : start + 4] == _SIGNATURE else None
    if found is not None and index in found:
        at, size = found[index]
        check_table(data[at : at + size])
