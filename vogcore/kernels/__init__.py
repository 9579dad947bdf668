"""Moments of gradients over checkpoints, scores from moments, and class statistics, for the CPU and for CUDA devices.

NumPy arrays in, NumPy arrays out; arrays on a device (``__cuda_array_interface__``, DLPack) are computed with there.
The functions live in :mod:`vogcore.kernels.dispatch` and :mod:`vogcore.kernels.block`; names are resolved on first use,
so that importing this package does not import Numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.kernels.block import BlockScore, block_score
    from vogcore.kernels.dispatch import (
        ClassStatistics,
        class_statistics,
        empty,
        get_threads,
        merge_moments,
        merge_statistics,
        normalise,
        pixel_count,
        robust_statistics,
        score_from_moments,
        set_threads,
        to_host,
        update_moments,
    )

__all__ = [
    "BlockScore",
    "ClassStatistics",
    "block_score",
    "class_statistics",
    "empty",
    "get_threads",
    "merge_moments",
    "merge_statistics",
    "normalise",
    "pixel_count",
    "robust_statistics",
    "score_from_moments",
    "set_threads",
    "to_host",
    "update_moments",
]

_MODULES = dict.fromkeys(__all__, "vogcore.kernels.dispatch") | dict.fromkeys(
    ["BlockScore", "block_score"], "vogcore.kernels.block"
)

__getattr__, __dir__ = lazy(__name__, _MODULES)
