"""The score of a block whose gradients at all checkpoints are in memory: nothing but sums of a tile is written.

The spread of a pixel comes from one pass over sums of d and d², where d is the difference from the window's first
checkpoint. That checkpoint is one of the K, and none of K numbers is further than sqrt(K - 1) standard deviations from
their mean, so the subtraction that remains, sum(d²) - sum(d)²/K, loses at most a factor K of float64's precision,
whatever the gradients are; docs/decisions.md has the errors that were measured.

What limits such a loop is how many cache lines are on their way at once. Checkpoints are taken in groups of
:data:`WIDTH`, whose rows are read side by side; meanwhile the rows of the next group are prefetched, and the root at
the end of a window is taken inside of its last group, so that the divider works while memory is waited for.
"""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any

import numpy as np

from vogcore.kernels import _cpu, _scalar
from vogcore.kernels._jit import compiled, prefetch, widened

__all__ = ["ADJACENT", "PLANES", "REDUCED", "SINGLE", "TILE"]

# Pixels in a tile. Its sums (32 bytes a pixel) stay in a first-level cache, the rows of the next group at least in a
# second-level one; half of it was slower with 100 checkpoints.
TILE = 1024

# Checkpoints whose rows are read side by side. Wider groups spill registers, narrower ones wait for memory. Every width
# up to it has a loop for the beginning of a window (see _tiles).
WIDTH = 3

# Pixels between two rounds of prefetching: more at once would fill the line buffers, and loads then wait.
_STEP = 32

# Values in a cache line, of float32; a constant, because the loop over it has to be unrolled.
_LINE = 16

_spread = compiled(_scalar.spread_of_sums)
_merged_mean = compiled(_scalar.merged_mean)
_merged_m2 = compiled(_scalar.merged_m2)

# Offsets are unsigned: a signed one could be negative, which NumPy counts from the end, and such a loop does not
# vectorise.
_U = np.uint64


@compiled
def _single(values: Any, at: Any, inner: Any) -> float:
    """A pixel that is one number."""
    return widened(values[at])


@compiled
def _planes_of_3(values: Any, at: Any, inner: Any) -> float:
    """Sum of three channels that lie ``inner`` values apart."""
    return widened(values[at]) + widened(values[at + inner]) + widened(values[at + inner + inner])


@compiled
def _adjacent_3(values: Any, at: Any, inner: Any) -> float:
    """Sum of three adjacent channels."""
    return widened(values[at]) + widened(values[at + _U(1)]) + widened(values[at + _U(2)])


def _group(pixel: Any, stride: int, planes: int, width: int, *, first: bool, last: bool) -> Any:
    """The loop that adds ``width`` checkpoints to the sums of a tile.

    Args:
        pixel: reads a pixel: its value, or the sum of its channels.
        stride: values from one pixel to the next.
        planes: planes that a pixel is read from.
        width: checkpoints, read side by side.
        first: the window begins with them, and so do the sums.
        last: the window ends with them: spreads are summed, and the sums of the tile are not stored.
    """

    @partial(compiled, inline=True)
    def add_pixels(
        values: Any,
        at: Any,
        step: Any,
        inner: Any,
        begin: Any,
        length: int,
        origins: Any,
        totals: Any,
        squared: Any,
        weights: Any,
        inverse: float,
        root: bool,
    ) -> Any:
        """Add ``length`` pixels from ``begin`` on; returns the sums of spreads and of magnitudes if ``last``."""
        spreads, weight = 0.0, 0.0
        for k in range(length):
            j = begin + _U(k)
            here = at + j * _U(stride)
            total, squares, magnitude = 0.0, 0.0, 0.0
            if first:
                origin = pixel(values, here, inner)
                origins[j] = origin
                magnitude = abs(origin)
            else:
                origin = origins[j]
            for u in range(1 if first else 0, width):
                value = pixel(values, here + _U(u) * step, inner)
                delta = value - origin
                total += delta
                squares += delta * delta
                magnitude += abs(value)
            if not first:
                total += totals[j]
                squares += squared[j]
                magnitude += weights[j]
            if last:
                variance = _spread(total, squares, inverse)
                spreads += sqrt(variance) if root else variance
                weight += magnitude
            else:
                totals[j] = total
                squared[j] = squares
                weights[j] = magnitude
        return spreads, weight

    @compiled
    def add(
        values: Any, at: Any, step: Any, ahead: Any, shape: Any, n: int, rows: Any, inverse: float, root: bool
    ) -> Any:
        """Add the ``n`` pixels of a tile.

        Args:
            values: (n,) all gradients.
            at: offset of the first pixel at the first checkpoint.
            step: values from one checkpoint to the next.
            ahead: what ``at`` will be for the next group.
            shape: values from one channel to the next, channels, mode, values of an example, first pixel.
            n: pixels.
            rows: (4 + WIDTH, TILE) origin, sum of d, sum of d², sum of magnitudes; reduced pixels.
            inverse: 1 / checkpoints of the window.
            root: sum standard deviations, not variances.
        """
        inner = _U(shape[0])
        origins, totals, squared, weights = rows[0], rows[1], rows[2], rows[3]
        spreads, weight = 0.0, 0.0
        whole = n // _STEP
        for i in range(whole):
            begin = _U(i) * _U(_STEP)
            for u in range(width):
                for p in range(planes):
                    here = ahead + _U(u) * step + _U(p) * inner + begin * _U(stride)
                    for k in range(0, _STEP * stride, _LINE):
                        prefetch(values, here + _U(k))
            part = add_pixels(values, at, step, inner, begin, _STEP, origins, totals, squared, weights, inverse, root)
            spreads += part[0]
            weight += part[1]
        part = add_pixels(
            values,
            at,
            step,
            inner,
            _U(whole) * _U(_STEP),
            n - whole * _STEP,
            origins,
            totals,
            squared,
            weights,
            inverse,
            root,
        )
        return spreads + part[0], weight + part[1]

    return add


@compiled
def _in_place(values: Any, at: Any, step: Any, ahead: Any, width: int, shape: Any, n: int, rows: Any) -> Any:
    """Where the pixels of the next ``width`` checkpoints are: in the gradients themselves."""
    return values, at, step, ahead


@compiled
def _reduced(values: Any, at: Any, step: Any, ahead: Any, width: int, shape: Any, n: int, rows: Any) -> Any:
    """Reduce the pixels of the next ``width`` checkpoints into rows, from any layout; returns where they are."""
    inner, count, mode, size, start = shape
    for u in range(width):
        begin = np.int64(at) + u * np.int64(step)
        _cpu.reduce_range(values[begin : begin + size], start, start + n, count, inner, mode, rows[4 + u, :n])
    return rows[4:].reshape(-1), _U(0), _U(TILE), _U(0)


def _tiles(pixel: Any, stride: int, planes: int, load: Any) -> Any:
    """The kernel of a layout.

    Args:
        pixel: reads a pixel where ``load`` says it is.
        stride: values from one pixel to the next in the gradients, 0 where ``load`` finds the tile's pixels itself.
        planes: planes of the gradients that a pixel is read from, 0 to prefetch nothing.
        load: makes the pixels of a few checkpoints ready.
    """
    group = partial(_group, pixel, max(stride, 1), planes)
    begin_1 = group(1, first=True, last=False)
    begin_2 = group(2, first=True, last=False)
    begin_3 = group(3, first=True, last=False)
    go_on = group(WIDTH, first=False, last=False)
    end = group(WIDTH, first=False, last=True)

    @compiled
    def add_segment(
        values: Any, at: Any, step: Any, after: Any, shape: Any, n: int, count: int, rows: Any, ends: bool, root: bool
    ) -> Any:
        """Sums of a tile over ``count`` checkpoints; with ``ends`` the sums of spreads and magnitudes."""
        width = (count - 1) % WIDTH + 1
        inverse = 1.0 / count
        done = 0
        while done < count:
            ahead = at + _U(width) * step if done + width < count else after
            source, place, pace, coming = load(values, at, step, ahead, width, shape, n, rows)
            if done > 0:
                if ends and done + width == count:
                    return end(source, place, pace, coming, shape, n, rows, inverse, root)
                go_on(source, place, pace, coming, shape, n, rows, inverse, root)
            elif width == 1:
                begin_1(source, place, pace, coming, shape, n, rows, inverse, root)
            elif width == 2:
                begin_2(source, place, pace, coming, shape, n, rows, inverse, root)
            else:
                begin_3(source, place, pace, coming, shape, n, rows, inverse, root)
            done += width
            at = ahead
            width = WIDTH
        return 0.0, 0.0

    @compiled
    def tiles(
        values: Any,
        step: int,
        layout: Any,
        n_pixels: int,
        segments: Any,
        member: Any,
        slots: Any,
        totals: Any,
        root: bool,
        first: int,
        last: int,
        spreads: Any,
        magnitudes: Any,
    ) -> None:
        """Sum spreads and magnitudes over the tiles ``first`` to ``last``.

        Args:
            values: (n,) all gradients, float32, float64 or 16-bit floats as their bits.
            step: values from one checkpoint to the next.
            layout: values from one channel to the next, channels, mode, values of an example.
            n_pixels: pixels of an example.
            segments: (S, 2) first checkpoint and number of checkpoints of runs that are in the same windows.
            member: (S, W) whether a segment is in a window.
            slots: (W,) buffer in which a window of several segments is merged, -1 for a window of one.
            totals: (W,) checkpoints in a window.
            root: sum standard deviations, not variances.
            first: first tile; tile t is the part t % T of the example t // T, with T tiles to an example.
            last: end of the tiles, exclusive.
            spreads: (W, T, B) receives the sum over the pixels of every tile.
            magnitudes: like ``spreads``, sums of magnitudes over pixels and checkpoints.
        """
        inner, count, mode, size = layout
        n_windows, n_tiles = spreads.shape[0], spreads.shape[1]
        rows = np.empty((4 + WIDTH, TILE))
        merged = np.empty((2 * max(slots.max() + 1, 0), TILE))
        for tile in range(first, last):
            b = tile // n_tiles
            part = tile - b * n_tiles
            n = min(TILE, n_pixels - part * TILE)
            following = min(tile + 1, last - 1)
            shape = (inner, count, mode, size, part * TILE)
            at = b * size + part * TILE * stride
            next_at = (following // n_tiles) * size + (following % n_tiles) * TILE * stride
            spreads[:, part, b] = 0.0
            magnitudes[:, part, b] = 0.0
            for s in range(segments.shape[0]):
                begin, length = segments[s]
                if s + 1 < segments.shape[0]:
                    after = at + segments[s + 1, 0] * step
                else:
                    after = next_at + segments[0, 0] * step
                ends = length > WIDTH
                for w in range(n_windows):
                    ends = ends and not (member[s, w] and slots[w] >= 0)
                spread, weight = add_segment(
                    values, _U(at + begin * step), _U(step), _U(after), shape, n, length, rows, ends, root
                )
                if not ends:
                    weight = _finish(rows, n, length)
                    spread = _sum_spreads(rows[2, :n], 1.0 / length, root)
                for w in range(n_windows):
                    if not member[s, w]:
                        continue
                    magnitudes[w, part, b] += weight
                    if slots[w] < 0:
                        spreads[w, part, b] = spread
                        continue
                    mean, m2 = merged[2 * slots[w]], merged[2 * slots[w] + 1]
                    before = _before(segments, member, s, w)
                    _merge(rows, mean, m2, n, before, length)
                    if before + length == totals[w]:
                        spreads[w, part, b] = _sum_spreads(m2[:n], 1.0 / totals[w], root)

    return tiles


@compiled
def _before(segments: Any, member: Any, segment: int, window: int) -> int:
    """Checkpoints of the window in the segments before this one."""
    count = 0
    for s in range(segment):
        if member[s, window]:
            count += segments[s, 1]
    return count


@compiled
def _finish(rows: Any, n: int, count: int) -> float:
    """Turn sums into moments, the mean in row 1 and M2 in row 2; returns the sum of magnitudes."""
    origin, total, squares, magnitude = rows[0, :n], rows[1, :n], rows[2, :n], rows[3, :n]
    inverse = 1.0 / count
    weight = 0.0
    for j in range(n):
        squares[j] = _spread(total[j], squares[j], inverse) * count
        total[j] = origin[j] + total[j] * inverse
        weight += magnitude[j]
    return weight


@compiled
def _sum_spreads(m2: Any, inverse: float, root: bool) -> float:
    total = 0.0
    for j in range(m2.size):
        variance = m2[j] * inverse
        total += sqrt(variance) if root else variance
    return total


@compiled
def _merge(rows: Any, mean: Any, m2: Any, n: int, before: int, count: int) -> None:
    """Merge the moments in rows 1 and 2, of ``count`` checkpoints, into those of ``before`` checkpoints."""
    mean_weight = count / (before + count)
    m2_weight = before * mean_weight
    if before == 0:
        mean[:n] = rows[1, :n]
        m2[:n] = rows[2, :n]
        return
    for j in range(n):
        delta = rows[1, j] - mean[j]
        mean[j] = _merged_mean(mean[j], delta, mean_weight)
        m2[j] = _merged_m2(m2[j], rows[2, j], delta, m2_weight)


SINGLE = _tiles(_single, 1, 1, _in_place)
PLANES = _tiles(_planes_of_3, 1, 3, _in_place)
ADJACENT = _tiles(_adjacent_3, 3, 1, _in_place)
REDUCED = _tiles(_single, 0, 0, _reduced)
