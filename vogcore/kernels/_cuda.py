"""CUDA kernels on pixels: moments, scores, merge. Imported only when an array on a GPU turns up.

A block of threads works on one tile, a run of pixels of one example, and neighbouring threads on neighbouring pixels,
so that a warp's loads and stores are whole lines of memory. The kernels are bound by memory: 4 bytes a channel and 32
a pixel for float64 moments in both directions, against about ten operations in float64.

Sums are taken in a fixed order (within a thread, then a tree over the block, then tile after tile) and without
atomic additions. A tile covers the same pixels whatever the number of examples, so no result depends on the others of
the block, and the same call gives the same bits every time.
"""

from __future__ import annotations

import functools
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float64

from vogcore.kernels import _scalar
from vogcore.kernels._cuda_pixel import THREADS, block_sum, pixel_function, position

__all__ = [
    "TILE",
    "GradientKernels",
    "gradient_kernels",
    "merge_pixels",
    "score_tiles",
    "sum_parts",
]

TILE = 8 * THREADS
"""Pixels in a tile: eight for each thread, which hides the tree at the end of a tile behind the loads of others."""

_updated_mean = cuda.jit(_scalar.updated_mean, device=True)
_updated_m2 = cuda.jit(_scalar.updated_m2, device=True)
_merged_mean = cuda.jit(_scalar.merged_mean, device=True)
_merged_m2 = cuda.jit(_scalar.merged_m2, device=True)
_spread_of_sums = cuda.jit(_scalar.spread_of_sums, device=True)


def _update_kernel(pixel: Any) -> Any:
    @cuda.jit
    def update(
        gradients: Any,
        count: int,
        inner: int,
        mode: int,
        mean: Any,
        m2: Any,
        inverse_step: float,
        weight: float,
        magnitudes: Any,
    ) -> None:
        """Add one checkpoint's gradients (B, n) to moments (B, P); sums of magnitudes of every tile into (T, B)."""
        scratch = cuda.shared.array(THREADS, float64)
        reduced = cuda.shared.array(THREADS, float64)
        t = cuda.threadIdx.x
        width = cuda.blockDim.x
        n_tiles = magnitudes.shape[0]
        n_pixels = mean.shape[1]
        for tile in range(cuda.blockIdx.x, n_tiles * mean.shape[0], cuda.gridDim.x):
            b = tile // n_tiles
            part = tile - b * n_tiles
            stop = min((part + 1) * TILE, n_pixels)
            total = 0.0
            for chunk in range(part * TILE, stop, width):
                n = min(width, stop - chunk)
                # No branch before the last load: all loads of a pixel are on the way together.
                p = chunk + min(t, n - 1)
                own_mean = np.float64(mean[b, p])
                own_m2 = np.float64(m2[b, p])
                at = position(p, count, inner, n_pixels)
                value = pixel(gradients, b, chunk, n, at, count, inner, mode, scratch, reduced)
                if weight == 0.0:  # at the first checkpoint the buffers may hold anything, NaN included
                    own_mean = np.float64(0.0)
                    own_m2 = np.float64(0.0)
                if t < n:
                    delta = value - own_mean
                    mean[b, p] = _updated_mean(own_mean, delta, inverse_step)
                    m2[b, p] = _updated_m2(own_m2, delta, weight)
                    total += abs(value)
            total = block_sum(scratch, total)
            if t == 0:
                magnitudes[part, b] = total

    return update


def _four_steps(pixel: Any) -> Any:
    """Four checkpoints at a time, so that their loads are on the way together."""

    @cuda.jit(device=True)
    def sums(
        gradients: Any,
        b: int,
        chunk: int,
        n: int,
        at: int,
        starts: Any,
        count: int,
        inner: int,
        mode: int,
        scratch: Any,
        reduced: Any,
    ) -> Any:
        origin = pixel(gradients, starts[0] + b, chunk, n, at, count, inner, mode, scratch, reduced)
        magnitude = abs(origin)
        total = 0.0
        squares = 0.0
        k = 1
        while k + 4 <= starts.size:
            first = pixel(gradients, starts[k] + b, chunk, n, at, count, inner, mode, scratch, reduced)
            second = pixel(gradients, starts[k + 1] + b, chunk, n, at, count, inner, mode, scratch, reduced)
            third = pixel(gradients, starts[k + 2] + b, chunk, n, at, count, inner, mode, scratch, reduced)
            fourth = pixel(gradients, starts[k + 3] + b, chunk, n, at, count, inner, mode, scratch, reduced)
            magnitude += abs(first) + abs(second) + abs(third) + abs(fourth)
            first -= origin
            second -= origin
            third -= origin
            fourth -= origin
            total += first + second + third + fourth
            squares += first * first + second * second + third * third + fourth * fourth
            k += 4
        while k < starts.size:
            value = pixel(gradients, starts[k] + b, chunk, n, at, count, inner, mode, scratch, reduced)
            magnitude += abs(value)
            value -= origin
            total += value
            squares += value * value
            k += 1
        return total, squares, magnitude

    return sums


def _one_step(pixel: Any) -> Any:
    """One checkpoint at a time: its channels are loads enough."""

    @cuda.jit(device=True)
    def sums(
        gradients: Any,
        b: int,
        chunk: int,
        n: int,
        at: int,
        starts: Any,
        count: int,
        inner: int,
        mode: int,
        scratch: Any,
        reduced: Any,
    ) -> Any:
        origin = pixel(gradients, starts[0] + b, chunk, n, at, count, inner, mode, scratch, reduced)
        magnitude = abs(origin)
        total = 0.0
        squares = 0.0
        for k in range(1, starts.size):
            value = pixel(gradients, starts[k] + b, chunk, n, at, count, inner, mode, scratch, reduced)
            magnitude += abs(value)
            value -= origin
            total += value
            squares += value * value
        return total, squares, magnitude

    return sums


def _block_kernel(sums_over_steps: Any) -> Any:
    @cuda.jit
    def block_score(
        gradients: Any, starts: Any, count: int, inner: int, n_pixels: int, mode: int, root: int, sums: Any, parts: Any
    ) -> None:
        """Spread over some checkpoints of gradients (K * B, n), and magnitudes, summed over every tile; (T, B) each.

        ``starts`` (k,) are the first rows of the checkpoints. Their gradients are read once, and nothing of the size of
        the pixels is written: spread comes from sums of differences from the first of the checkpoints and of their
        squares (shifted data, Chan, Golub & LeVeque 1983). The shift is one of the values, so the squares add up to at
        most k times the squared deviations, and the subtraction loses at most that factor of float64's precision.
        """
        scratch = cuda.shared.array(THREADS, float64)
        reduced = cuda.shared.array(THREADS, float64)
        t = cuda.threadIdx.x
        width = cuda.blockDim.x
        n_tiles, n_examples = sums.shape
        for tile in range(cuda.blockIdx.x, n_tiles * n_examples, cuda.gridDim.x):
            b = tile // n_tiles
            part = tile - b * n_tiles
            stop = min((part + 1) * TILE, n_pixels)
            spread = 0.0
            magnitude = 0.0
            for chunk in range(part * TILE, stop, width):
                n = min(width, stop - chunk)
                at = position(chunk + min(t, n - 1), count, inner, n_pixels)
                total, squares, absolute = sums_over_steps(
                    gradients, b, chunk, n, at, starts, count, inner, mode, scratch, reduced
                )
                if t < n:
                    magnitude += absolute
                    variance = _spread_of_sums(total, squares, 1.0 / starts.size)
                    spread += sqrt(variance) if root else variance
            spread = block_sum(scratch, spread)
            magnitude = block_sum(scratch, magnitude)
            if t == 0:
                sums[part, b] = spread
                parts[part, b] = magnitude

    return block_score


class GradientKernels(NamedTuple):
    """The kernels that read gradients, for one encoding and one layout."""

    update: Any
    block_score: Any


@functools.cache
def gradient_kernels(encoding: str, layout: str) -> GradientKernels:
    """Kernels for gradients of one of :data:`ENCODINGS` in one of :data:`LAYOUTS`."""
    pixel = pixel_function(encoding, layout)
    over_steps = _four_steps if layout in ("single", "mean_of_3") else _one_step
    return GradientKernels(_update_kernel(pixel), _block_kernel(over_steps(pixel)))


@cuda.jit
def score_tiles(m2: Any, scale: float, root: int, sums: Any) -> None:
    """Sum of sqrt(m2 * scale), or of m2 * scale, over every tile of m2 (B, P); into (T, B)."""
    scratch = cuda.shared.array(THREADS, float64)
    t = cuda.threadIdx.x
    n_tiles, n_examples = sums.shape
    for tile in range(cuda.blockIdx.x, n_tiles * n_examples, cuda.gridDim.x):
        b = tile // n_tiles
        part = tile - b * n_tiles
        stop = min((part + 1) * TILE, m2.shape[1])
        total = 0.0
        for p in range(part * TILE + t, stop, cuda.blockDim.x):
            variance = np.float64(m2[b, p]) * scale
            total += sqrt(variance) if root else variance
        total = block_sum(scratch, total)
        if t == 0:
            sums[part, b] = total


@cuda.jit
def sum_parts(parts: Any, out: Any) -> None:
    """Sum (T, B) over T into (B,), part after part."""
    for b in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        total = parts[0, b]
        for part in range(1, parts.shape[0]):
            total += parts[part, b]
        out[b] = total


@cuda.jit
def merge_pixels(
    mean: Any, m2: Any, other_mean: Any, other_m2: Any, mean_weight: float, m2_weight: float, replace: int
) -> None:
    """Merge moments (n,) of other checkpoints of the same pixels into the first two arrays, or put them there."""
    for j in range(cuda.grid(1), mean.size, cuda.gridsize(1)):
        if replace:  # the first two may hold anything
            mean[j] = other_mean[j]
            m2[j] = other_m2[j]
        else:
            own = np.float64(mean[j])
            delta = np.float64(other_mean[j]) - own
            mean[j] = _merged_mean(own, delta, mean_weight)
            m2[j] = _merged_m2(np.float64(m2[j]), np.float64(other_m2[j]), delta, m2_weight)
