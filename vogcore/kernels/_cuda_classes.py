"""CUDA kernels on scores and classes.

The examples are cut into slices of :data:`SLICE`. One thread has one class in one slice and goes through it in order,
and the slices are added up in order, so every sum is the same each time without sorting and without atomic additions.
All threads of a warp read the same example at once, which is one load.
"""

from __future__ import annotations

from math import isfinite, nan
from typing import Any

from numba import cuda

__all__ = ["SLICE", "first_of_class", "outside", "pick", "standardise", "sums_of_class"]

SLICE = 4096
"""Examples that one thread goes through."""


@cuda.jit
def outside(classes: Any, n_classes: int, first: Any) -> None:
    """Position of the first class of every slice that is not from -1 to C - 1, into (S,); N where all are."""
    for s in range(cuda.grid(1), first.size, cuda.gridsize(1)):
        found = classes.size
        for i in range(min((s + 1) * SLICE, classes.size) - 1, s * SLICE - 1, -1):
            if classes[i] < -1 or classes[i] >= n_classes:
                found = i
        first[s] = found


@cuda.jit
def first_of_class(classes: Any, count: Any, first: Any) -> None:
    """Examples of every class in every slice and the position of the first, into (S, C) each; N where there is none."""
    n_classes = count.shape[1]
    for item in range(cuda.grid(1), count.size, cuda.gridsize(1)):
        s = item // n_classes
        c = item - s * n_classes
        found = classes.size
        n = 0
        for i in range(s * SLICE, min((s + 1) * SLICE, classes.size)):
            if classes[i] == c:
                if n == 0:
                    found = i
                n += 1
        count[s, c] = n
        first[s, c] = found


@cuda.jit
def pick(scores: Any, positions: Any, out: Any) -> None:
    """The scores at some positions."""
    for i in range(cuda.grid(1), positions.size, cuda.gridsize(1)):
        out[i] = scores[positions[i]]


@cuda.jit
def sums_of_class(scores: Any, classes: Any, origin: Any, total: Any, squares: Any) -> None:
    """Sums over every class in every slice of score - origin of the class (C,), and of its square; into (S, C) each."""
    n_classes = origin.size
    for item in range(cuda.grid(1), total.size, cuda.gridsize(1)):
        s = item // n_classes
        c = item - s * n_classes
        part = 0.0
        square = 0.0
        for i in range(s * SLICE, min((s + 1) * SLICE, scores.size)):
            if classes[i] == c:
                delta = scores[i] - origin[c]
                part += delta
                square += delta * delta
        total[s, c] = part
        squares[s, c] = square


@cuda.jit
def standardise(scores: Any, classes: Any, mean: Any, std: Any, no_spread: Any, absolute: int, out: Any) -> None:
    """(score - mean of its class) / spread of its class; class -1 gives NaN, a class without spread gives 0."""
    for i in range(cuda.grid(1), scores.size, cuda.gridsize(1)):
        c = classes[i]
        if c < 0:
            out[i] = nan
        elif no_spread[c]:
            # Zero for every finite score, NaN for the others: a score that is not a number must not look average.
            out[i] = 0.0 if isfinite(scores[i]) else nan
        else:
            z = (scores[i] - mean[c]) / std[c]
            out[i] = abs(z) if absolute else z
