"""Filters of HDF5 that compress gradients, from the package hdf5plugin."""

from __future__ import annotations

import importlib
from typing import Any

from vogcore.errors import SettingsError

__all__ = ["COMPRESSIONS", "filter_options", "register_filters"]

COMPRESSIONS = ("lz4", "zstd")
"""Both behind bitshuffle, which groups the bits of equal weight: exponents of gradients compress, mantissas do not."""


def filter_options(name: str | None) -> dict[str, Any] | None:
    """Keywords of :meth:`h5py.Group.create_dataset` for a compression; None for none.

    Raises:
        SettingsError: it is not known, or its package is not installed.
    """
    if name is None:
        return None
    if name not in COMPRESSIONS:
        raise SettingsError(f"compression={name!r} is not known; choose one of {', '.join(COMPRESSIONS)}, or None.")
    try:
        plugin = importlib.import_module("hdf5plugin")
    except ImportError:
        raise SettingsError(
            "Compression needs the package hdf5plugin; install it with: pip install 'vogcore[compression]'"
        ) from None
    return dict(plugin.Bitshuffle(cname=name))


def register_filters() -> bool:
    """Make the filters known to HDF5, for reading; False where the package is not installed."""
    try:
        importlib.import_module("hdf5plugin")
    except ImportError:
        return False
    return True
