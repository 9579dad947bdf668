"""What passes through a reader, remembered: the fingerprint, copies of examples, and examples that change."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError

__all__ = ["Copies", "ExampleDigests"]

_DIGEST_BYTES = 8
"""64 bits: among a million examples a false copy has a probability of 3e-8, at 8 MB of memory."""


class Copies(NamedTuple):
    """Examples with the same bytes as an earlier one.

    Attributes:
        copies: how many examples equal an earlier one.
        relabelled: how many of these have another label than the first of their kind; 0 without labels.
        first: position of the first example that has a copy.
        second: position of its first copy.
    """

    copies: int
    relabelled: int
    first: int
    second: int


class ExampleDigests:
    """Digests of examples, taken from blocks while these are read for another purpose.

    Blocks may come in any order and more than once. The SHA-256 over all examples is built from those that happen to
    continue it; a 64-bit BLAKE2b digest of every example is kept to find copies and changes.

    Args:
        n: number of examples N.
        shape: shape of one example.
        dtype: type of its values; hashed in little-endian byte order.

    Attributes:
        next: position up to which the SHA-256 over all examples is complete.
    """

    def __init__(self, n: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.next = 0
        self._little = dtype.newbyteorder("<")
        self._hash = hashlib.sha256(b"vogcore examples 1\n")
        self._hash.update(json.dumps([n, list(shape), self._little.str]).encode())
        self._digest = np.zeros(n, np.uint64)
        self._seen = np.zeros(n, np.bool_)

    def add(self, start: int, block: npt.NDArray, *, where: str) -> None:
        """Take in the examples from position `start` on.

        Args:
            start: position of the first one.
            block: (B, ...), C-contiguous.
            where: what the user calls the source, for messages.

        Raises:
            DataError: an example has other bytes than when it was read before.
        """
        if not len(block):
            return
        stop = start + len(block)
        data = block.astype(self._little, copy=False).reshape(len(block), -1).view(np.uint8)
        digest = np.fromiter(
            (int.from_bytes(hashlib.blake2b(row.data, digest_size=_DIGEST_BYTES).digest(), "little") for row in data),
            np.uint64,
            len(block),
        )
        changed = self._seen[start:stop] & (self._digest[start:stop] != digest)
        if changed.any():
            raise DataError(
                f"{where}: example {start + int(np.argmax(changed))} came with other values than when it was read "
                "before: switch off random augmentation and shuffling, so that an example is the same on every read."
            )
        self._digest[start:stop] = digest
        self._seen[start:stop] = True
        if start <= self.next < stop:
            self._hash.update(data[self.next - start :].reshape(-1).data)
            self.next = stop

    def copy_hash(self) -> hashlib._Hash:
        """The SHA-256 over shape, type and bytes of the examples up to `next`, to be continued by the caller."""
        return self._hash.copy()

    def copies(self, labels: npt.NDArray[np.int64] | None) -> Copies | None:
        """Which of the examples seen so far occur more than once; None where all differ.

        Args:
            labels: class index of every example (N,), or None.
        """
        seen = np.flatnonzero(self._seen)
        _, first, inverse = np.unique(self._digest[seen], return_index=True, return_inverse=True)
        original = seen[first[inverse]]
        again = np.flatnonzero(original != seen)
        if not len(again):
            return None
        pair = again[np.lexsort((seen[again], original[again]))[0]]
        relabelled = 0 if labels is None else int((labels[original[again]] != labels[seen[again]]).sum())
        return Copies(len(again), relabelled, int(original[pair]), int(seen[pair]))
