"""Directional derivatives by central differences, with a step that the differences themselves choose.

A small step drowns in rounding, a large one in curvature and kinks, and which is which depends on the model. So the
difference is taken at several steps, extrapolated (Richardson 1911: (r² D(h) - D(r h)) / (r² - 1) for the ratio r), and
the step is used at which two neighbours agree best. The gradient that is to be judged has no say in that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Slope", "relative_errors", "slopes", "steps_for"]

_RATIO = 4.0
_STEPS = {
    # Relative to the size of what is varied.
    "float64": [2.0**-k for k in (21, 19, 17, 15, 13)],
    "float32": [2.0**-k for k in (11, 9, 7, 5, 3)],
    "float16": [2.0**-k for k in (7, 5, 3, 1)],
}


class Slope(NamedTuple):
    """Directional derivatives, one for each example."""

    value: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    """How far the two neighbouring estimates that agree best are apart."""
    noise: npt.NDArray[np.float64]
    """What rounding alone makes of the difference at that step."""


def steps_for(dtype: np.dtype) -> list[float]:
    """Steps for a model that computes in ``dtype``, from small to large."""
    return _STEPS.get(dtype.name, _STEPS["float32"])


def slopes(function: Callable[[float], npt.NDArray], steps: Sequence[float], eps: float) -> Slope:
    """Derivatives at zero of ``function``, which gives one number for each example.

    Args:
        function: step -> values (N,).
        steps: at least three, each four times the one before.
        eps: relative rounding error of the values.
    """
    highs = np.stack([np.asarray(function(+h), np.float64) for h in steps])
    lows = np.stack([np.asarray(function(-h), np.float64) for h in steps])
    sizes = np.asarray(steps)[:, None]
    plain = (highs - lows) / (2 * sizes)
    better = (_RATIO**2 * plain[:-1] - plain[1:]) / (_RATIO**2 - 1)
    apart = np.abs(np.diff(better, axis=0))
    # A value that is not finite must not be chosen.
    chosen = np.argmin(np.where(np.isfinite(apart), apart, np.inf), axis=0)
    at = (chosen, np.arange(plain.shape[1]))
    noise = eps * np.maximum(np.abs(highs[:-1]), np.abs(lows[:-1])) / sizes[:-1]
    return Slope(better[at], apart[at], noise[at])


def relative_errors(slope: Slope, expected: npt.NDArray, typical: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray]:
    """How far each derivative is from what the gradient says, relative to its size.

    Args:
        slope: the derivatives by differences.
        expected: inner products of gradient and direction.
        typical: root mean square of such an inner product over random directions. An error relative to the product
            itself would mean nothing for a direction that happens to be across the gradient.

    Returns:
        The errors, and whether each can be told from rounding.
    """
    size = np.maximum(typical, np.abs(slope.value))
    telling = size > 20 * slope.noise
    error = np.abs(slope.value - expected)
    return np.where(error == 0, 0.0, error / np.where(size > 0, size, 1.0)), telling
