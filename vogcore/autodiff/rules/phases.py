"""The adjoint of a strided convolution on the CPU, one convolution for each phase of the image.

With stride s the positions of an image fall into phases, i = s q + r. The cotangents at the positions of one phase r
are an ordinary convolution, with stride 1, of dY with those taps of the kernel that reach phase r (sub-pixel
convolution: Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"). The arithmetic is that
of the forward pass, and it runs on the provider's convolution kernels, where ConvTranspose is several times slower.

A cotangent stays in phases until all uses of the value are known: the shortcut of a residual block, a 1x1 convolution
with the same stride, only adds to phase (0, 0). Then the phases are put together once.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.rules.window import Window
from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import dims, static_dims

__all__ = ["FEW_CHANNELS", "Phases", "few_channel_cotangent", "phase_cotangents"]

FEW_CHANNELS = 16
"""Channels that the blocked kernels compute at a time; fewer are filled up."""
_WIDEST_PRODUCT = 192
"""Widest row that is put in order by a product with a permutation matrix. It is faster than DepthToSpace, which copies
number by number, as long as the product is small beside the convolutions."""


class _Taps(NamedTuple):
    """One axis of one phase: y[q] = sum over j of kernel[first + j step] dY[q + low + j dilation]."""

    first: int
    step: int
    size: int
    low: int
    dilation: int

    @property
    def high(self) -> int:
        return self.low + (self.size - 1) * self.dilation


@dataclass
class Phases:
    """A cotangent in phases; what the engine adds up before it asks for the whole.

    Attributes:
        parts: phase -> cotangents (N, C, q...) of its positions; phases that are missing are zero.
        strides: distance between two positions of a phase, for each spatial axis.
        like: the value whose cotangent this is, (N, C, i...) with known i.
    """

    parts: dict[tuple[int, ...], ir.Value]
    strides: tuple[int, ...]
    like: ir.Value

    def plus(self, emit: Emitter, other: object) -> Phases | None:
        """The sum with another cotangent in the same phases; None where the two do not fit."""
        if not isinstance(other, Phases) or other.strides != self.strides:
            return None
        parts = dict(self.parts)
        for phase, value in other.parts.items():
            parts[phase] = emit.op("Add", parts[phase], value, like=value) if phase in parts else value
        return Phases(parts, self.strides, self.like)

    def value(self, emit: Emitter) -> ir.Value:
        """The cotangent (N, C, i...)."""
        sizes = static_dims(self.like, range(2, 2 + len(self.strides)))
        assert sizes is not None  # phases are made of images of known size only
        lengths = [-(-i // s) for i, s in zip(sizes, self.strides)]
        channels = static_dims(self.like, [1])
        row = math.prod(self.strides) * lengths[-1]
        whole = set(itertools.product(*map(range, self.strides)))
        if row > _WIDEST_PRODUCT and set(self.parts) == whole and len(set(self.strides)) == 1 and len(sizes) == 2:
            stacked = emit.op("Concat", *(self.parts[phase] for phase in sorted(whole)), axis=1)
            return _depth_to_space(emit, stacked, self.strides[0], sizes, lengths, self.like)
        assert channels is not None
        ordered = sorted(self.parts)
        side_by_side = [self.parts[phase] for phase in ordered]
        axis = 1 + len(sizes)
        together = emit.op("Concat", *side_by_side, axis=axis) if len(ordered) > 1 else side_by_side[0]
        order = emit.constant(_interleaving(ordered, self.strides, lengths[-1], sizes[-1]), self.like.dtype)
        rows = emit.op("MatMul", together, order)
        if len(sizes) == 1:
            rows.shape = self.like.shape
            return emit.blocked(rows)
        grown = emit.op("Reshape", rows, emit.ints(-1, *channels, self.strides[0] * lengths[0], sizes[1]))
        if self.strides[0] * lengths[0] != sizes[0]:
            grown = emit.op("Slice", grown, emit.ints(0), emit.ints(sizes[0]), emit.ints(2))
        grown.shape, grown.type = self.like.shape, self.like.type
        return emit.blocked(grown)


def _depth_to_space(
    emit: Emitter, stacked: ir.Value, stride: int, sizes: tuple[int, ...], lengths: list[int], like: ir.Value
) -> ir.Value:
    """Phases that are blocks of channels, phase-major, put in their places."""
    whole = emit.op("DepthToSpace", stacked, blocksize=stride, mode="DCR")
    if any(stride * q != i for q, i in zip(lengths, sizes)):
        whole = emit.op("Slice", whole, emit.ints(0, 0), emit.ints(*sizes), emit.ints(2, 3))
    whole.shape, whole.type = like.shape, like.type
    return emit.blocked(whole)


def _interleaving(phases: list[tuple[int, ...]], strides: tuple[int, ...], length: int, size: int) -> np.ndarray:
    """Permutation matrix from the rows of all phases, side by side, to stride[0] whole rows one after the other.

    Sums over it have one term that is not zero, so that products with it are exact.
    """
    rows = strides[0] if len(strides) == 2 else 1
    matrix = np.zeros((len(phases) * length, rows * size))
    for block, phase in enumerate(phases):
        row, column = (phase[0], phase[1]) if len(strides) == 2 else (0, phase[0])
        for q in range(length):
            place = strides[-1] * q + column
            if place < size:
                matrix[block * length + q, row * size + place] = 1.0
    return matrix


def phase_cotangents(
    emit: Emitter, dy: ir.Value, flipped: ir.Value, geometry: Window, group: int, like: ir.Value
) -> Phases | None:
    """Cotangent of the input of a strided convolution.

    Args:
        emit: emitter on the graph.
        dy: cotangent (N, M, o...) of the output.
        flipped: weights (C, M/group, k...) with channels exchanged and every spatial axis reversed.
        geometry: of the forward convolution.
        group: of the forward convolution.
        like: the input (N, C, i...).

    Returns:
        The cotangent in phases; None where this formulation does not cover the case: more than two spatial axes, an
        image of open size, or padding that reaches further than the kernel.
    """
    n = len(geometry.kernel)
    channels, sizes, outputs = (
        static_dims(like, [1]),
        static_dims(like, range(2, 2 + n)),
        static_dims(dy, range(2, 2 + n)),
    )
    if n > 2 or channels is None or sizes is None or outputs is None:
        return None
    lengths = [-(-i // s) for i, s in zip(sizes, geometry.strides)]
    axes = [
        {r: _taps(r, *parameters) for r in range(parameters[1])}
        for parameters in zip(geometry.kernel, geometry.strides, geometry.dilations, geometry.begin)
    ]
    parts: dict[tuple[int, ...], ir.Value] = {}
    for phase in itertools.product(*(range(s) for s in geometry.strides)):
        taps = [axis[r] for axis, r in zip(axes, phase)]
        if any(tap is None for tap in taps):
            continue  # no tap of the kernel reaches this phase
        known = [tap for tap in taps if tap is not None]
        pads = _pads(known, lengths, outputs)
        if pads is None:
            return None
        value = emit.op(
            "Conv",
            dy,
            _pick(emit, flipped, known, geometry),
            dilations=[tap.dilation for tap in known],
            group=group,
            pads=pads,
            kernel_shape=[tap.size for tap in known],
        )
        batch = dims(like)
        assert batch is not None
        value.shape = ir.Shape([batch[0], channels[0], *lengths])
        parts[phase] = value
    return Phases(parts, geometry.strides, like) if parts else None


def _taps(r: int, kernel: int, stride: int, dilation: int, begin: int) -> _Taps | None:
    """The taps k with k dilation = r + begin modulo the stride, in ascending order of the position in dY they read."""
    reached = [k for k in range(kernel) if (r + begin - k * dilation) % stride == 0]
    if not reached:
        return None
    step = stride // math.gcd(stride, dilation)
    last = reached[-1]  # reads the lowest position
    return _Taps(
        kernel - 1 - last, step, len(reached), (r + begin - last * dilation) // stride, step * dilation // stride
    )


def _pads(taps: list[_Taps], lengths: list[int], outputs: tuple[int, ...]) -> list[int] | None:
    begins = [-tap.low for tap in taps]
    ends = [q - o + tap.high for tap, q, o in zip(taps, lengths, outputs)]
    return [*begins, *ends] if min(*begins, *ends) >= 0 else None


def _pick(emit: Emitter, flipped: ir.Value, taps: list[_Taps], geometry: Window) -> ir.Value:
    """The taps of one phase out of the flipped kernel."""
    if all(tap.size == k for tap, k in zip(taps, geometry.kernel)):
        return flipped
    axes = emit.ints(*range(2, 2 + len(taps)))
    ends = emit.ints(*(tap.first + (tap.size - 1) * tap.step + 1 for tap in taps))
    return emit.op(
        "Slice", flipped, emit.ints(*(tap.first for tap in taps)), ends, axes, emit.ints(*(t.step for t in taps))
    )


def few_channel_cotangent(
    emit: Emitter, dy: ir.Value, flipped: ir.Value, geometry: Window, like: ir.Value
) -> ir.Value | None:
    """Cotangent of an input with few channels, an image: one convolution computes whole blocks of b x b positions.

    The blocked kernels compute 16 channels at a time, an image has three or, for its mean over the colours, one. So the
    positions of a block become channels too: with stride s and b = s m, the cotangents at b q + r are a convolution of
    dY with stride m, whose kernel covers the taps of every r. The block is chosen for the least arithmetic.

    Args:
        emit, dy, flipped, geometry: as for :func:`phase_cotangents`; one group, two spatial axes.
        like: the input (N, C, i...), or a stand-in with its sizes and another C.

    Returns:
        The cotangent; None where the case is not covered.
    """
    if len(geometry.kernel) != 2:
        return None
    sizes, outputs, channels = static_dims(like, [2, 3]), static_dims(dy, [2, 3]), static_dims(like, [1])
    if sizes is None or outputs is None or channels is None or len(set(geometry.strides)) != 1:
        return None
    if set(geometry.dilations) != {1}:
        return None
    stride = geometry.strides[0]
    choices = [(_block_cost(geometry, channels[0], stride * m, sizes), stride * m) for m in (1, 2, 3, 4)]
    for _, block in sorted(choices):
        result = _in_blocks(emit, dy, flipped, geometry, block, sizes, outputs, like)
        if result is not None:
            return result
    return None


def _block_cost(geometry: Window, channels: int, block: int, sizes: tuple[int, ...]) -> float:
    """Multiplications for each channel of dY, up to a common factor."""
    stride = geometry.strides[0]
    covered = math.prod((block - 1 + k - 1) // stride + 1 for k in geometry.kernel)
    filled = -(-channels * block**2 // FEW_CHANNELS) * FEW_CHANNELS
    positions = math.prod(-(-size // block) for size in sizes)
    return float(covered * filled * positions)


def _in_blocks(
    emit: Emitter, dy: ir.Value, flipped: ir.Value, geometry: Window, block: int, sizes: tuple[int, ...],
    outputs: tuple[int, ...], like: ir.Value,
) -> ir.Value | None:  # fmt: skip
    stride = geometry.strides[0]
    lengths = [-(-size // block) for size in sizes]
    axes = [[_taps(r, k, stride, 1, begin) for r in range(block)] for k, begin in zip(geometry.kernel, geometry.begin)]
    every = [[tap for tap in axis if tap is not None] for axis in axes]
    if any(len(known) < block for known in every):
        return None  # a position that no tap reaches: only where the stride is larger than the kernel
    low, high = [min(t.low for t in axis) for axis in every], [max(t.high for t in axis) for axis in every]
    step = block // stride
    begins, ends = [-v for v in low], [(q - 1) * step + v + 1 - o for q, o, v in zip(lengths, outputs, high)]
    if min(begins) < 0:
        return None
    kernels = []
    for taps in itertools.product(*every):
        picked = _pick(emit, flipped, list(taps), geometry)
        before, after = [t.low - v for t, v in zip(taps, low)], [v - t.high for t, v in zip(taps, high)]
        if any(before) or any(after):
            picked = emit.op("Pad", picked, emit.ints(0, 0, *before, 0, 0, *after))
        kernels.append(picked)
    weight = emit.op("Concat", *kernels, axis=0)
    # What lies behind the last position of dY that a block reads (a negative end) is not read either way.
    pads = [*begins, *(max(end, 0) for end in ends)]
    kernel = [h - v + 1 for v, h in zip(low, high)]
    stacked = emit.op("Conv", dy, weight, pads=pads, kernel_shape=kernel, strides=[step] * 2)
    reached = [(o + b + e - k) // step + 1 for o, b, e, k in zip(outputs, begins, pads[2:], kernel)]
    if block == 1:
        whole = stacked
    else:
        whole = emit.op("DepthToSpace", stacked, blocksize=block, mode="DCR")
    if any(block * q != size for q, size in zip(reached, sizes)):
        whole = emit.op("Slice", whole, emit.ints(0, 0), emit.ints(*sizes), emit.ints(2, 3))
    whole.shape, whole.type = like.shape, like.type
    return whole
