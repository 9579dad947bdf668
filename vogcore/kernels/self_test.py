"""The compiled kernels against the plain formulas, on this machine: for whoever suspects his processor or his Numba."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vogcore.kernels import _cpu, _reference
from vogcore.kernels._jit import cache_folder
from vogcore.kernels.block import block_score
from vogcore.kernels.dispatch import score_from_moments, update_moments
from vogcore.kernels.statistics import class_statistics

__all__ = ["KernelCheck", "compiled_code_folder", "self_test"]

_TOLERANCE = 1e-12
"""Relative; both sides compute in float64 and differ in the order of their sums."""
_K, _B, _CHANNELS, _SIDE = 5, 7, 3, 9


@dataclass(frozen=True)
class KernelCheck:
    """One comparison.

    Attributes:
        name: what was computed.
        error: largest relative error.
        tolerance: what it may be.
    """

    name: str
    error: float
    tolerance: float = _TOLERANCE

    @property
    def ok(self) -> bool:
        """Whether it is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


def self_test(seed: int = 0) -> list[KernelCheck]:
    """Compare moments, scores of whole blocks and class statistics with plain NumPy, on random gradients."""
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((_K, _B, _CHANNELS, _SIDE, _SIDE)).astype(np.float32)
    checks = []
    for dtype in ("float32", "float16"):
        values = gradients.astype(dtype)
        for channels in ("mean", "none", "magnitude", "l2"):
            expected = _reference.vog(values, 1, channels)
            pixels = _SIDE * _SIDE * (_CHANNELS if channels == "none" else 1)
            mean, m2 = np.empty((2, _B, pixels))
            for step in range(_K):
                update_moments(values[step], mean, m2, step=step + 1, channel_axis=1, channels=channels)
            checks.append(KernelCheck(f"moments, {dtype}, {channels}", _error(score_from_moments(m2, _K), expected)))
            if dtype == "float32":  # compiling it takes ten seconds for each type
                block = block_score(values, channel_axis=1, channels=channels)
                checks.append(KernelCheck(f"block, {dtype}, {channels}", _error(block.vog, expected)))
    scores, classes = rng.standard_normal(200), np.arange(200) % 4
    found = class_statistics(scores, classes, 4)
    for what in ("mean", "std"):
        plain = np.array([getattr(scores[classes == c], what)() for c in range(4)])
        checks.append(KernelCheck(f"class {what}", _error(getattr(found, what), plain)))
    return checks


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found - expected) / np.abs(expected)))


def compiled_code_folder() -> str | None:
    """Folder in which compiled kernels are kept between processes; None where none can be written."""
    return cache_folder(_cpu.update_tiles)
