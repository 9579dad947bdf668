"""Mutations of valid files: blind ones, and ones that know where HDF5, ``.npy`` and protobuf keep their structure."""

from __future__ import annotations

import re
import struct

import numpy as np

from tests.fuzz.hdf5_checksum import mended

__all__ = ["mutate"]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_PARTS = re.compile(rb"OHDR|OCHK|TREE|HEAP|SNOD|FRHP|FHDB|FHIB|FSHD|FSSE|GCOL|BTHD|BTLF|BTIN|FAHD|EAHD|\x89HDF")
_NPY_HEADER = re.compile(rb"\x93NUMPY|\{'descr'")
_ZIP_PARTS = re.compile(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06")
_INTERESTING = [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, (1 << 63) - 1,
                (1 << 64) - 1, (1 << 64) - 8]  # fmt: skip


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """A changed copy: one to four mutations, and for HDF5 mostly with the checksums put right again."""
    data = bytearray(content)
    hdf5 = content.startswith(_HDF5_MAGIC)
    parts = [
        match.start()
        for pattern in ((_HDF5_PARTS,) if hdf5 else (_NPY_HEADER, _ZIP_PARTS))
        for match in pattern.finditer(content)
    ]
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        if len(data) < 2:
            break
        _one(data, parts, rng)
    return mended(bytes(data)) if hdf5 and rng.random() < 0.8 else bytes(data)


def _one(data: bytearray, parts: list[int], rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data)))
    if parts and rng.random() < 0.7:
        # The first bytes behind a signature hold versions, flags, sizes and addresses.
        at = min(int(rng.choice(parts)) + int(rng.geometric(1 / 60)), len(data) - 1)
    kind = int(rng.integers(12))
    if kind < 3:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind < 5:
        data[at] = int(rng.integers(256))
    elif kind < 8:
        number = int(rng.choice(len(_INTERESTING)))
        width = int(rng.choice([1, 2, 4, 8]))
        raw = struct.pack("<Q", _INTERESTING[number])[:width]
        data[at : at + width] = raw[: len(data) - at]
    elif kind == 8:
        del data[at : len(data) if rng.random() < 0.3 else at + int(rng.integers(1, 64))]
    elif kind == 9:
        end = min(at + int(rng.integers(1, 256)), len(data))
        data[at:end] = bytes(end - at)
    elif kind == 10:
        source = int(rng.integers(len(data)))
        size = int(rng.integers(1, 128))
        piece = data[source : source + size]
        if rng.random() < 0.5:
            data[at : at + len(piece)] = piece[: len(data) - at]
        else:
            data[at:at] = piece
    else:
        data[at:at] = rng.bytes(int(rng.integers(1, 32)))
