"""The value of a pixel from its channels, read in the order in which they lie on the GPU; sums over a block of threads.

Every ``pixel`` function has the same arguments: gradients (rows, n), the row, the first pixel of a chunk of ``n`` (at
most the threads of a block), where the first channel of the thread's own pixel lies (:func:`position`), ``count``
channels that lie ``inner`` values apart, the mode, and two shared arrays for threads that share the work. It gives each
thread the value of its own pixel; all threads of a block must call it. Threads beyond the chunk name the last pixel and
leave the result alone: a branch around the loads would keep those of several rows from being on the way together.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
from numba import cuda

from vogcore.kernels import _scalar
from vogcore.kernels._cpu import L2, MAGNITUDE, MEAN

__all__ = ["ENCODINGS", "LAYOUTS", "PLAIN", "THREADS", "block_sum", "choose_layout", "pixel_function", "position"]

THREADS = 256
"""Most threads of a block; a power of two, as the trees need."""

PLAIN = "plain"
"""Encoding of gradients that the GPU computes with as they are; the others are "bfloat16" and "float16" (bits)."""

_THIRD = 1.0 / 3.0

_bfloat16_bits_to_float32 = cuda.jit(_scalar.bfloat16_bits_to_float32, device=True)
_float16_bits_to_float32 = cuda.jit(_scalar.float16_bits_to_float32, device=True)


@cuda.jit(device=True)
def _widen(value: Any) -> Any:
    return np.float64(value)


@cuda.jit(device=True)
def _widen_bfloat16(bits: Any) -> Any:
    return np.float64(_bfloat16_bits_to_float32(bits))


@cuda.jit(device=True)
def _widen_float16(bits: Any) -> Any:
    return np.float64(_float16_bits_to_float32(bits))


_WIDEN = {PLAIN: _widen, "bfloat16": _widen_bfloat16, "float16": _widen_float16}


@cuda.jit(device=True)
def _tree(scratch: Any, lane: int, width: int) -> None:
    """Sum ``width`` neighbours, a power of two, into the first of each; every thread of the block must call it."""
    t = cuda.threadIdx.x
    step = width // 2
    while step > 0:
        cuda.syncthreads()
        if lane < step:
            scratch[t] += scratch[t + step]
        step //= 2
    cuda.syncthreads()


@cuda.jit(device=True)
def block_sum(scratch: Any, value: float) -> float:
    """Sum over the block of one value from each thread; ``scratch`` may be used again when it returns."""
    t = cuda.threadIdx.x
    scratch[t] = value
    _tree(scratch, t, cuda.blockDim.x)
    total = scratch[0]
    cuda.syncthreads()
    return total


@cuda.jit(device=True)
def _magnitude_part(value: float, mode: int) -> float:
    """What one channel adds to a pixel's sum in a mode other than MEAN."""
    return abs(value) if mode == MAGNITUDE else value * value


@cuda.jit(device=True)
def _finished(total: float, mode: int, inverse: float) -> float:
    """The pixel from its sum over the channels; ``inverse`` is one over their number."""
    return sqrt(total) if mode == L2 else total * inverse


@cuda.jit(device=True)
def position(pixel: int, count: int, inner: int, n_pixels: int) -> int:
    """Where the first channel of a pixel lies in its example; a division only where channels are in the middle."""
    if inner == 1:
        return pixel * count
    if inner == n_pixels:
        return pixel
    outer = pixel // inner
    return outer * count * inner + pixel - outer * inner


def _single_pixel(widen: Any) -> Any:
    """No channels, or one."""

    @cuda.jit(device=True)
    def pixel(
        gradients: Any,
        row: int,
        chunk: int,
        n: int,
        at: int,
        count: int,
        inner: int,
        mode: int,
        scratch: Any,
        reduced: Any,
    ) -> float:
        value = widen(gradients[row, at])
        return value if mode == MEAN else _finished(_magnitude_part(value, mode), mode, 1.0)

    return pixel


def _mean_of_3_pixel(widen: Any) -> Any:
    """The mean of three channels, first or last: three independent loads."""

    @cuda.jit(device=True)
    def pixel(
        gradients: Any,
        row: int,
        chunk: int,
        n: int,
        at: int,
        count: int,
        inner: int,
        mode: int,
        scratch: Any,
        reduced: Any,
    ) -> float:
        first = widen(gradients[row, at])
        second = widen(gradients[row, at + inner])
        third = widen(gradients[row, at + 2 * inner])
        return (first + second + third) * _THIRD

    return pixel


def _narrow_pixel(widen: Any) -> Any:
    """A thread reads all channels of its pixel: channels first, or a few channels last (the cache then serves them)."""

    @cuda.jit(device=True)
    def pixel(
        gradients: Any,
        row: int,
        chunk: int,
        n: int,
        at: int,
        count: int,
        inner: int,
        mode: int,
        scratch: Any,
        reduced: Any,
    ) -> float:
        total = 0.0
        for c in range(count):
            value = widen(gradients[row, at + c * inner])
            total += value if mode == MEAN else _magnitude_part(value, mode)
        return _finished(total, mode, 1.0 / count)

    return pixel


def _wide_pixel(widen: Any) -> Any:
    """Up to 32 threads share the channels of a pixel, which lie side by side: many channels last."""

    @cuda.jit(device=True)
    def pixel(
        gradients: Any,
        row: int,
        chunk: int,
        n: int,
        at: int,
        count: int,
        inner: int,
        mode: int,
        scratch: Any,
        reduced: Any,
    ) -> float:
        t = cuda.threadIdx.x
        lanes = 32
        while lanes > count:
            lanes //= 2
        lane = t % lanes
        groups = cuda.blockDim.x // lanes
        for base in range(0, n, groups):
            j = base + t // lanes
            part = 0.0
            if j < n:
                for c in range(lane, count, lanes):
                    value = widen(gradients[row, (chunk + j) * count + c])
                    part += value if mode == MEAN else _magnitude_part(value, mode)
            scratch[t] = part
            _tree(scratch, lane, lanes)
            if lane == 0 and j < n:
                reduced[j] = _finished(scratch[t], mode, 1.0 / count)
            cuda.syncthreads()
        value = reduced[t] if t < n else 0.0
        cuda.syncthreads()
        return value

    return pixel


_PIXELS: dict[str, Callable[[Any], Any]] = {
    "single": _single_pixel,
    "mean_of_3": _mean_of_3_pixel,
    "narrow": _narrow_pixel,
    "wide": _wide_pixel,
}
ENCODINGS = tuple(_WIDEN)
LAYOUTS = tuple(_PIXELS)


def choose_layout(count: int, inner: int, mode: int) -> str:
    """Which of :data:`LAYOUTS` serves ``count`` channels that lie ``inner`` values apart."""
    if count == 1:
        return "single"
    if count == 3 and mode == MEAN:
        return "mean_of_3"
    # A thread that walks along its own channels touches a line of memory of its own; eight floats are a quarter of it.
    return "wide" if inner == 1 and count > 8 else "narrow"


def pixel_function(encoding: str, layout: str) -> Any:
    """The device function for gradients of one of :data:`ENCODINGS` in one of :data:`LAYOUTS`."""
    return _PIXELS[layout](_WIDEN[encoding])
