"""Is this the gradient of that function? The fundamental theorem of calculus along random directions.

For a function f with gradient g and a direction v,

    (f(x + h v) - f(x - h v)) / 2h  =  1/2 times the integral over s from -1 to 1 of <g(x + s h v), v>.

This holds for every h, also across the kinks of a ReLU or a max-pooling, where f has no derivative but g is bounded. A
comparison with the gradient at x alone has no such freedom: some kink is almost always nearer than the smallest step
that float32 allows, and then the two differ by its jump. The integral is taken by the trapezoidal rule, with twice as
many points until it settles. The step follows from rounding: as small as possible while rounding makes no more than a
given part of the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Comparison", "compare"]

Array: TypeAlias = "npt.NDArray"

_PRECISION = {"float64": 1e-9, "float16": 2e-2}
_ANY_PRECISION = 1e-3
"""The part of a difference that rounding may make, where the step is free."""
_SMALLEST, _LARGEST = 2.0**-26, 2.0**-2
"""Steps, relative to the size of what is varied."""
_ROUNDINGS = 4.0
"""Units in the last place by which values may be off."""
_FEWEST, _MOST = 4, 32
"""Intervals of the trapezoidal rule."""
_SETTLED = 0.005
_TELLING = 0.1
"""Above this part of rounding a difference says nothing."""


class Comparison(NamedTuple):
    """Directional derivatives by both ways, one for each example."""

    errors: npt.NDArray[np.float64]
    """Difference between the two over the size that a derivative along a random direction has: its root mean square,
    or its own size where that is larger. (Relative to its own size alone, a direction that happens to be across the
    gradient would make any rounding look large.)"""
    unsettled: npt.NDArray[np.float64]
    """How much the integral changed, on the same scale, when its points were doubled for the last time."""
    telling: npt.NDArray[np.bool_]
    """False where rounding hides the derivative."""


def compare(
    function: Callable[[Array], Array],
    gradient: Callable[[Array], Array],
    x: Array,
    rng: np.random.Generator,
    *,
    by_example: bool = True,
    magnitude: Array | None = None,
) -> Comparison:
    """Compare a function with its gradient along one random direction.

    Args:
        function: array like ``x`` -> one number for each example (N,), or (1,).
        gradient: array like ``x`` -> gradient of the sum of those numbers, of the shape of ``x``.
        x: where; its type is the one that both compute in.
        rng: source of the direction.
        by_example: the first axis of ``x`` are examples that do not depend on each other; else there is one number.
        magnitude: size of the numbers that the function is made of, where that is not its own: they are what is
            rounded.
    """
    axes = tuple(range(1, x.ndim)) if by_example else None
    middle = x.astype(np.float64)
    scale = float(np.sqrt(np.mean(np.square(middle)))) if x.size else 1.0
    direction = (scale or 1.0) * rng.standard_normal(x.shape)
    typical = (scale or 1.0) * np.sqrt(np.atleast_1d(np.square(gradient(x).astype(np.float64)).sum(axis=axes)))
    magnitude = np.abs(np.atleast_1d(function(x)).astype(np.float64)) if magnitude is None else magnitude
    rounding = _ROUNDINGS * float(np.finfo(x.dtype).eps) * magnitude
    ratios = rounding[typical > 0] / typical[typical > 0]
    wanted = float(np.median(ratios)) / _PRECISION.get(x.dtype.name, _ANY_PRECISION) if ratios.size else _LARGEST
    step = float(np.clip(wanted, _SMALLEST, _LARGEST))

    high, low = ((middle + sign * step * direction).astype(x.dtype) for sign in (1.0, -1.0))
    difference = np.atleast_1d(function(high).astype(np.float64) - function(low).astype(np.float64)) / (2 * step)
    # Rounding the two ends has turned the direction a little.
    half = (high.astype(np.float64) - low.astype(np.float64)) / 2
    centre = (high.astype(np.float64) + low.astype(np.float64)) / 2

    def slopes(places: Array) -> Array:
        found = [gradient((centre + place * half).astype(x.dtype)).astype(np.float64) * half for place in places]
        return np.stack([np.atleast_1d(products.sum(axis=axes)) / step for products in found])

    size = np.maximum(typical, np.abs(difference))
    size[size == 0] = 1.0
    count = _FEWEST
    values = slopes(np.linspace(-1, 1, count + 1))
    while True:
        coarse = _trapezoid(values)
        finer = np.empty((2 * count + 1, *values.shape[1:]))
        finer[::2], finer[1::2] = values, slopes(np.linspace(-1, 1, 2 * count + 1)[1::2])
        values, count = finer, 2 * count
        integral = _trapezoid(values)
        unsettled = np.abs(integral - coarse) / size
        if count >= _MOST or np.median(unsettled) <= _SETTLED:
            break
    # Not >, so that what is no number counts as an error.
    return Comparison(np.abs(difference - integral) / size, unsettled, ~(size * _TELLING <= rounding / step))


def _trapezoid(values: Array) -> Array:
    """Half the integral from -1 to 1 of values at equal distances."""
    return (values.sum(0) - (values[0] + values[-1]) / 2) / (len(values) - 1)
