"""The table of a virtual HDF5 data set: which part of which file goes where, checked before libhdf5 takes it apart.

libhdf5 (2.0.0) writes over its stack where a selection in it claims more than 32 axes. The format: HDF5 File Format
Specification, version 3, III.F and VIII.
"""

from __future__ import annotations

import struct

from vogcore._hdf5_headers import HeaderError

__all__ = ["check_table"]

_MOST_AXES = 32
_HYPERSLAB, _NONE, _ALL = 2, 0, 3
_REGULAR = 1


def check_table(content: bytes) -> None:
    """Check the table that a virtual data set keeps in a global heap.

    Raises:
        HeaderError: it is damaged, or of a kind that is not known here.
    """
    try:
        version, count = struct.unpack_from("<BQ", content)
        if version != 0:
            raise HeaderError(
                f"the table of a virtual data set has version {version}, which is not known here; write it with "
                "libver='v114' or older"
            )
        if count > len(content):
            raise HeaderError("the table of a virtual data set is damaged")
        at = 9
        for _ in range(count):
            for _ in range(2):  # names of file and data set
                at = content.index(b"\0", at) + 1
            for _ in range(2):  # what is taken, and where it goes
                at = _behind_selection(content, at)
        if at + 4 > len(content):  # a checksum, which libhdf5 compares
            raise HeaderError("the table of a virtual data set is cut short")
    except (struct.error, ValueError) as error:
        if isinstance(error, HeaderError):
            raise
        raise HeaderError("the table of a virtual data set is cut short") from error


def _behind_selection(content: bytes, at: int) -> int:
    kind, version = struct.unpack_from("<II", content, at)
    at += 8
    if kind in (_NONE, _ALL) and version == 1:
        return at + 8
    if kind != _HYPERSLAB or version not in (1, 2, 3):
        raise HeaderError("a virtual data set has a selection of an unknown kind")
    flags, width = _REGULAR, 8
    if version == 1:
        at, flags, width = at + 8, 0, 4
    elif version == 2:
        flags, at = content[at : at + 1][0] if at < len(content) else 0, at + 5
    else:
        (flags, width), at = struct.unpack_from("<BB", content, at), at + 2
    (axes,) = struct.unpack_from("<I", content, at)
    at += 4
    if not 1 <= axes <= _MOST_AXES or width not in (2, 4, 8):
        raise HeaderError(f"a virtual data set has a selection of {axes} axes")
    if flags & _REGULAR:
        return at + 4 * axes * width
    blocks = int.from_bytes(content[at : at + width], "little")
    at += width + 2 * axes * blocks * width
    if at > len(content):
        raise HeaderError("the table of a virtual data set is cut short")
    return at
