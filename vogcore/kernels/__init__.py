"""Moments of gradients over checkpoints, scores from moments, and class statistics, compiled for the CPU.

NumPy arrays in, NumPy arrays out. The functions live in :mod:`vogcore.kernels.dispatch`; names are resolved on first
use, so that importing this package does not import Numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vogcore.kernels.dispatch import (
        ClassStatistics,
        class_statistics,
        get_threads,
        merge_moments,
        normalise,
        pixel_count,
        robust_statistics,
        score_from_moments,
        set_threads,
        update_moments,
    )

__all__ = [
    "ClassStatistics",
    "class_statistics",
    "get_threads",
    "merge_moments",
    "normalise",
    "pixel_count",
    "robust_statistics",
    "score_from_moments",
    "set_threads",
    "update_moments",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("vogcore.kernels.dispatch"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
