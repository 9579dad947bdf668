"""Errors of the kernels against exactly rounded sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore import kernels

__all__ = ["accuracy", "errors", "exact_spreads"]

PIXELS = 64
COUNTS = (10, 100, 1000)
_MAX32 = float(np.finfo(np.float32).max)


def _bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def inputs(count: int) -> dict[str, npt.NDArray]:
    """Gradients (K, P) by what is hard about them."""
    generator = np.random.default_rng(count)
    normal = generator.standard_normal((count, PIXELS))
    wide = normal * 10.0 ** generator.uniform(-38, 37, size=PIXELS)
    outlier = normal.copy()
    outlier[0] += 1e6
    return {
        "normal": normal.astype(np.float32),
        "mean 1e4 times the spread": (normal + 1e4).astype(np.float32),
        "mean 1e4 times the spread, float64": normal + 1e4,
        "first checkpoint 1e6 away": outlier.astype(np.float32),
        "subnormal": (generator.integers(-99, 100, size=(count, PIXELS)) * 1.4e-45).astype(np.float32),
        "1e-38 to 1e37": wide.astype(np.float32),
        "up to 3e38": (generator.uniform(-1, 1, size=(count, PIXELS)) * _MAX32).astype(np.float32),
        "float16": normal.astype(np.float16),
        "bfloat16": _bfloat16(normal.astype(np.float32)),
        "bfloat16, mean 100 times the spread": _bfloat16((normal + 100).astype(np.float32)),
    }


def exact_spreads(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Population standard deviation over K of values (K, P), two passes whose sums are rounded once."""
    spreads = []
    for column in values.T.tolist():
        mean = math.fsum(column) / len(column)
        shift = math.fsum(value - mean for value in column) / len(column)
        spreads.append(math.sqrt(math.fsum((value - mean - shift) ** 2 for value in column) / len(column)))
    return np.array(spreads)


def errors(gradients: npt.NDArray) -> dict[str, float]:
    """Largest relative error of a pixel, and that of the score, for each kernel on gradients (K, P)."""
    values = gradients
    if gradients.dtype == np.uint16:
        values = (gradients.astype(np.uint32) << 16).view(np.float32)
    expected = exact_spreads(values.astype(np.float64))
    score = math.fsum(expected.tolist()) / expected.size
    pixel, total = {}, {}
    for dtype in ("float64", "float32"):
        mean, m2 = np.empty((2, 1, gradients.shape[1]), dtype)
        with np.errstate(over="ignore"):
            for step, row in enumerate(gradients, start=1):
                kernels.update_moments(row[None], mean, m2, step=step)
            found = np.sqrt(m2[0].astype(np.float64) / len(gradients))
            pixel[dtype] = float(np.abs(found / expected - 1).max())
            total[dtype] = abs(float(kernels.score_from_moments(m2, len(gradients))[0]) / score - 1)
    pixel["block"] = float(np.abs(kernels.block_score(gradients[:, :, None]).vog / expected - 1).max())
    total["block"] = abs(float(kernels.block_score(gradients[:, None]).vog[0]) / score - 1)
    return {f"pixel_{name}": error for name, error in pixel.items()} | {
        f"score_{name}": error for name, error in total.items()
    }


def accuracy() -> list[dict[str, Any]]:
    """Errors of every kind of gradients and number of checkpoints."""
    return [
        {"gradients": name, "checkpoints": count, **errors(values)}
        for count in COUNTS
        for name, values in inputs(count).items()
    ]
