"""CPU kernels: loops over tiles of (example, pixels).

Every loop that matters runs over one-dimensional contiguous rows, which is what LLVM vectorises; indexing a
four-dimensional array in the inner loop ran at a quarter to a half of the speed. Kernels are serial and release the
GIL; :mod:`vogcore.kernels.threads` hands ranges of tiles to threads. A tile always covers the same pixels of one
example, so no result depends on the block, on the range or on the number of threads.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from vogcore.kernels import _scalar
from vogcore.kernels._jit import compiled, widened

__all__ = [
    "L2",
    "MAGNITUDE",
    "MEAN",
    "TILE",
    "class_moments",
    "merge_range",
    "reduce_range",
    "score_tiles",
    "standardise",
    "update_tiles",
]

# Pixels in a tile. A reduced row (8 bytes a pixel), the moments it is added to and one row of gradients fit a
# first-level cache together; longer tiles were not faster.
TILE = 1024

# How channels become one value; plain integers because a kernel sees them as compile-time constants.
MEAN, MAGNITUDE, L2 = 0, 1, 2

_THIRD = 1.0 / 3.0

_updated_mean = compiled(_scalar.updated_mean)
_updated_m2 = compiled(_scalar.updated_m2)
_merged_mean = compiled(_scalar.merged_mean)
_merged_m2 = compiled(_scalar.merged_m2)


@compiled
def _update_row(values: Any, mean: Any, m2: Any, inverse_step: float, weight: float) -> float:
    """Add one value to the moments of every pixel of a row; returns the sum of magnitudes."""
    total = 0.0
    for j in range(mean.size):
        value = widened(values[j])
        delta = value - mean[j]
        mean[j] = _updated_mean(mean[j], delta, inverse_step)
        m2[j] = _updated_m2(m2[j], delta, weight)
        total += abs(value)
    return total


@compiled
def _update_planes_of_3(
    first: Any, second: Any, third: Any, mean: Any, m2: Any, inverse_step: float, weight: float
) -> float:
    """Like :func:`_update_row` for the mean of three channels, each a row of its own."""
    total = 0.0
    for j in range(mean.size):
        value = (widened(first[j]) + widened(second[j]) + widened(third[j])) * _THIRD
        delta = value - mean[j]
        mean[j] = _updated_mean(mean[j], delta, inverse_step)
        m2[j] = _updated_m2(m2[j], delta, weight)
        total += abs(value)
    return total


@compiled
def _update_pixels_of_3(values: Any, mean: Any, m2: Any, inverse_step: float, weight: float) -> float:
    """Like :func:`_update_row` for the mean of three adjacent channels of every pixel."""
    total = 0.0
    for j in range(mean.size):
        value = (widened(values[3 * j]) + widened(values[3 * j + 1]) + widened(values[3 * j + 2])) * _THIRD
        delta = value - mean[j]
        mean[j] = _updated_mean(mean[j], delta, inverse_step)
        m2[j] = _updated_m2(m2[j], delta, weight)
        total += abs(value)
    return total


@compiled
def _finish_reduction(out: Any, count: int, mode: int) -> None:
    """Turn sums over channels into the mean, or the root for L2."""
    if mode == L2:
        for j in range(out.size):
            out[j] = sqrt(out[j])
    else:
        inverse = 1.0 / count
        for j in range(out.size):
            out[j] *= inverse


@compiled
def _reduce_planes(row: Any, base: int, inner: int, count: int, mode: int, out: Any) -> None:
    """Reduce ``count`` channels that lie ``inner`` values apart, for the ``out.size`` pixels from ``base`` on."""
    n = out.size
    out[:] = 0.0
    for c in range(count):
        plane = row[base + c * inner : base + c * inner + n]
        if mode == MEAN:
            for j in range(n):
                out[j] += widened(plane[j])
        elif mode == MAGNITUDE:
            for j in range(n):
                out[j] += abs(widened(plane[j]))
        else:
            for j in range(n):
                out[j] += widened(plane[j]) * widened(plane[j])
    _finish_reduction(out, count, mode)


@compiled
def _reduce_pixels(values: Any, count: int, mode: int, out: Any) -> None:
    """Reduce ``count`` adjacent channels of every pixel: the channels-last layout."""
    for j in range(out.size):
        pixel = values[j * count : (j + 1) * count]
        total = 0.0
        if mode == MEAN:
            for c in range(count):
                total += widened(pixel[c])
        elif mode == MAGNITUDE:
            for c in range(count):
                total += abs(widened(pixel[c]))
        else:
            for c in range(count):
                total += widened(pixel[c]) * widened(pixel[c])
        out[j] = total
    _finish_reduction(out, count, mode)


@compiled
def _mean_of_planes_of_3(first: Any, second: Any, third: Any, out: Any) -> None:
    """Mean of three channels, each a row of its own."""
    for j in range(out.size):
        out[j] = (widened(first[j]) + widened(second[j]) + widened(third[j])) * _THIRD


@compiled
def reduce_range(row: Any, start: int, stop: int, count: int, inner: int, mode: int, out: Any) -> None:
    """Values S of the pixels ``start`` to ``stop`` of one example (outer * count * inner,) into ``out``."""
    if inner == 1:
        _reduce_pixels(row[start * count : stop * count], count, mode, out)
        return
    pixel = start
    while pixel < stop:
        outer = pixel // inner
        offset = pixel - outer * inner
        n = min(inner - offset, stop - pixel)
        _reduce_planes(row, outer * count * inner + offset, inner, count, mode, out[pixel - start : pixel - start + n])
        pixel += n


@compiled
def update_tiles(
    gradients: Any,
    count: int,
    inner: int,
    mode: int,
    mean: Any,
    m2: Any,
    step: int,
    first: int,
    last: int,
    magnitudes: Any,
) -> None:
    """Add the tiles ``first`` to ``last`` of one checkpoint's gradients to the moments.

    Args:
        gradients: (B, outer * count * inner) float32, float64 or 16-bit floats as their bits.
        count: channels.
        inner: values from one channel to the next.
        mode: MEAN, MAGNITUDE or L2.
        mean: (B, P) float64 or float32, updated.
        m2: like ``mean``.
        step: 1-based number of the checkpoint.
        first: first tile; tile t is the part t % T of the example t // T, with T tiles to an example.
        last: end of the tiles, exclusive.
        magnitudes: (T, B) float64, receives the sum of magnitudes of every tile.
    """
    n_tiles = magnitudes.shape[0]
    n_pixels = mean.shape[1]
    inverse_step = 1.0 / step
    weight = (step - 1.0) / step
    reduced = np.empty(TILE, np.float64)
    for tile in range(first, last):
        b = tile // n_tiles
        part = tile - b * n_tiles
        start = part * TILE
        stop = min(start + TILE, n_pixels)
        row = gradients[b]
        mean_row = mean[b, start:stop]
        m2_row = m2[b, start:stop]
        if step == 1:
            # The buffers may hold anything, NaN included. With zeros the update below is the initialisation.
            mean_row[:] = 0.0
            m2_row[:] = 0.0
        total = 0.0
        if inner == 1:
            pixels = row[start * count : stop * count]
            if mode == MEAN and count == 3:
                total = _update_pixels_of_3(pixels, mean_row, m2_row, inverse_step, weight)
            else:
                _reduce_pixels(pixels, count, mode, reduced[: stop - start])
                total = _update_row(reduced, mean_row, m2_row, inverse_step, weight)
        else:
            pixel = start
            while pixel < stop:
                outer = pixel // inner
                offset = pixel - outer * inner
                n = min(inner - offset, stop - pixel)
                base = outer * count * inner + offset
                mean_part = mean_row[pixel - start : pixel - start + n]
                m2_part = m2_row[pixel - start : pixel - start + n]
                if mode == MEAN and count == 1:
                    total += _update_row(row[base : base + n], mean_part, m2_part, inverse_step, weight)
                elif mode == MEAN and count == 3:
                    second = base + inner
                    third = second + inner
                    total += _update_planes_of_3(
                        row[base : base + n],
                        row[second : second + n],
                        row[third : third + n],
                        mean_part,
                        m2_part,
                        inverse_step,
                        weight,
                    )
                else:
                    _reduce_planes(row, base, inner, count, mode, reduced[:n])
                    total += _update_row(reduced, mean_part, m2_part, inverse_step, weight)
                pixel += n
        magnitudes[part, b] = total


@compiled
def score_tiles(m2: Any, scale: float, root: bool, first: int, last: int, sums: Any) -> None:
    """Sum of sqrt(m2 * scale), or of m2 * scale, over every tile ``first`` to ``last`` of m2 (B, P); into (T, B)."""
    n_tiles = sums.shape[0]
    n_pixels = m2.shape[1]
    for tile in range(first, last):
        b = tile // n_tiles
        part = tile - b * n_tiles
        row = m2[b, part * TILE : min(part * TILE + TILE, n_pixels)]
        total = 0.0
        if root:
            for j in range(row.size):
                total += sqrt(np.float64(row[j]) * scale)
        else:
            for j in range(row.size):
                total += np.float64(row[j]) * scale
        sums[part, b] = total


@compiled
def merge_range(mean: Any, m2: Any, other_mean: Any, other_m2: Any, mean_weight: float, m2_weight: float) -> None:
    """Merge moments (n,) of other checkpoints of the same pixels into the first two arrays."""
    for j in range(mean.size):
        own = np.float64(mean[j])
        delta = np.float64(other_mean[j]) - own
        mean[j] = _merged_mean(own, delta, mean_weight)
        m2[j] = _merged_m2(np.float64(m2[j]), np.float64(other_m2[j]), delta, m2_weight)


@compiled
def class_moments(scores: Any, classes: Any, count: Any, mean: Any, std: Any) -> None:
    """Count, mean and population standard deviation of the scores of every class; class -1 counts nowhere.

    Two passes. Sums are of differences from the first score of the class, so that scores that are all equal have a
    spread of exactly zero, and the second pass corrects both moments for the rounding of the first.
    """
    origin = np.zeros(count.size)
    residual = np.zeros(count.size)
    for i in range(scores.size):
        c = classes[i]
        if c >= 0:
            if count[c] == 0:
                origin[c] = scores[i]
            count[c] += 1
            mean[c] += scores[i] - origin[c]
    for c in range(count.size):
        mean[c] = origin[c] + mean[c] / count[c] if count[c] > 0 else np.nan
    for i in range(scores.size):
        c = classes[i]
        if c >= 0:
            deviation = scores[i] - mean[c]
            residual[c] += deviation
            std[c] += deviation * deviation
    for c in range(count.size):
        if count[c] > 0:
            shift = residual[c] / count[c]
            # max() would turn the NaN of a class with a NaN score into zero.
            variance = std[c] / count[c] - shift * shift
            std[c] = 0.0 if variance < 0.0 else sqrt(variance)
            mean[c] += shift
        else:
            std[c] = np.nan


@compiled
def standardise(scores: Any, classes: Any, mean: Any, std: Any, no_spread: Any, absolute: bool, out: Any) -> None:
    """(score - mean of its class) / spread of its class; class -1 gives NaN, a class without spread gives 0."""
    for i in range(scores.size):
        c = classes[i]
        if c < 0:
            out[i] = np.nan
        elif no_spread[c]:
            # Zero for every finite score, NaN for the others: a score that is not a number must not look average.
            out[i] = 0.0 if np.isfinite(scores[i]) else np.nan
        else:
            z = (scores[i] - mean[c]) / std[c]
            out[i] = abs(z) if absolute else z
