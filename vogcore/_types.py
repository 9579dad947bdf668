"""Aliases and protocols shared by the layers; nothing here imports another vogcore module."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["ExampleSource", "FloatArray", "IntArray"]

FloatArray: TypeAlias = npt.NDArray[np.floating]
IntArray: TypeAlias = npt.NDArray[np.integer]


@runtime_checkable
class ExampleSource(Protocol):
    """Examples that can be read in runs, in a stable order.

    Anything with these members can be passed as ``data`` to :func:`vogcore.score`; :mod:`vogcore.data` has readers
    for arrays, ``.npy``, ``.npz`` and HDF5, and ``vogcore_adapters`` those that need another package.
    """

    name: str
    """What the user calls the source, for messages: a path, or ``"array"``."""
    shape: tuple[int, ...]
    """Shape of one example as :meth:`read` gives it."""
    dtype: np.dtype
    """Type of the values that :meth:`read` gives."""
    labels: npt.NDArray[np.int64] | None
    """Class index of every example (N,), or None where the source has no labels."""
    ids: npt.NDArray | None
    """Stable id of every example (N,), int64 or str; None means its position."""
    class_names: list[str] | None
    """Name of every class in index order, where the source knows them."""

    def __len__(self) -> int:
        """Number of examples N."""
        ...

    def read(self, start: int, stop: int) -> npt.NDArray:
        """Examples ``start`` to ``stop`` (exclusive) as an array (stop - start, *shape)."""
        ...

    def fingerprint(self) -> str:
        """Hex SHA-256 that changes when the examples or labels change."""
        ...
