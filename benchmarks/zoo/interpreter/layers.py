"""Convolution, pooling, matrix products and normalisation."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.zoo.interpreter.node import Node

__all__ = ["OPERATORS"]


def _pads(node: Node, n: int, sizes: list[int], kernel: list[int], strides: list[int], dilations: list[int]):
    """Padding in front and behind, for each spatial axis."""
    auto = node.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        pads = node.attribute("pads") or [0] * 2 * n
        return pads[:n], pads[n:]
    totals = [
        max((-(-i // s) - 1) * s + (k - 1) * d + 1 - i, 0) for i, k, s, d in zip(sizes, kernel, strides, dilations)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def _padded(x: torch.Tensor, begin: list[int], end: list[int], value: float = 0.0) -> torch.Tensor:
    amounts = [amount for pair in zip(reversed(begin), reversed(end)) for amount in pair]
    return functional.pad(x, amounts, value=value)


def _conv(node: Node) -> torch.Tensor:
    x, weight, bias = node[0], node[1], node.optional(2)
    n = x.ndim - 2
    kernel = list(weight.shape[2:])
    strides, dilations = node.attribute("strides", [1] * n), node.attribute("dilations", [1] * n)
    begin, end = _pads(node, n, list(x.shape[2:]), kernel, strides, dilations)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[n - 1]
    return function(_padded(x, begin, end), weight, bias, strides, 0, dilations, node.attribute("group", 1))


def _conv_transpose(node: Node) -> torch.Tensor:
    x, weight, bias = node[0], node[1], node.optional(2)
    n = x.ndim - 2
    strides, dilations = node.attribute("strides", [1] * n), node.attribute("dilations", [1] * n)
    extra = node.attribute("output_padding", [0] * n)
    if node.attribute("output_shape") or node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotImplementedError("ConvTranspose with output_shape or auto_pad")
    pads = node.attribute("pads") or [0] * 2 * n
    function = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[n - 1]
    full = function(x, weight, bias, strides, 0, 0, node.attribute("group", 1), dilations)
    if bias is not None:  # rows that only output_padding adds hold the bias
        shape = [1, -1, *[1] * n]
        grown = _padded(full - bias.reshape(shape), [0] * n, extra) + bias.reshape(shape)
    else:
        grown = _padded(full, [0] * n, extra)
    cut = [slice(b, size - e) for b, e, size in zip(pads[:n], pads[n:], grown.shape[2:])]
    return grown[(..., *cut)]


def _windows(node: Node, x: torch.Tensor, fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Elements of ``x`` in every window of a pooling.

    Returns: (N, C, out..., taps) each:
        elements, with ``fill`` outside of the image; and 1 for the image, 0.5 for the padding, 0 beyond it.
    """
    n = x.ndim - 2
    kernel, strides = list(node.attribute("kernel_shape")), node.attribute("strides") or [1] * n
    dilations = node.attribute("dilations") or [1] * n
    sizes = list(x.shape[2:])
    begin, end = _pads(node, n, sizes, kernel, strides, dilations)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    room = [i + b + e - w for i, b, e, w in zip(sizes, begin, end, extent)]
    counts = [-(-r // s) + 1 if node.attribute("ceil_mode", 0) else r // s + 1 for r, s in zip(room, strides)]
    counts = [c - 1 if (c - 1) * s >= i + b else c for c, s, i, b in zip(counts, strides, sizes, begin)]
    reach = [max((c - 1) * s + w - i - b, e) for c, s, w, i, b, e in zip(counts, strides, extent, sizes, begin, end)]
    grown = _padded(x, begin, reach, fill)
    kinds = _padded(_padded(torch.ones(sizes, dtype=x.dtype)[None], begin, end, 0.5), [0] * n, [
        r - e for r, e in zip(reach, end)
    ])  # fmt: skip
    taps, marks = [], []
    for tap in itertools.product(*(range(k) for k in kernel)):
        at = tuple(slice(t * d, t * d + (c - 1) * s + 1, s) for t, d, c, s in zip(tap, dilations, counts, strides))
        taps.append(grown[(..., *at)])
        marks.append(kinds[(0, *at)])
    return torch.stack(taps, -1), torch.stack(marks, -1)


def _max_pool(node: Node) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    elements, _ = _windows(node, node[0], -torch.inf)
    # amax would share the gradient among ties; torch's own pooling gives it to the first.
    first = (elements == elements.amax(-1, keepdim=True)).to(torch.int8).argmax(-1, keepdim=True)
    y = elements.gather(-1, first).squeeze(-1)
    if node.outputs == 1:
        return y
    places = torch.arange(node[0].numel(), dtype=torch.float64).reshape(node[0].shape)
    return y, _windows(node, places, 0.0)[0].gather(-1, first).squeeze(-1).long()


def _average_pool(node: Node) -> torch.Tensor:
    elements, marks = _windows(node, node[0], 0.0)
    counted = (marks > 0) if node.attribute("count_include_pad", 0) else (marks == 1)
    return elements.sum(-1) / counted.sum(-1)


def _spatial(x: torch.Tensor) -> list[int]:
    return list(range(2, x.ndim))


def _per_channel(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return value.reshape([1, -1, *[1] * (x.ndim - 2)])


def _batch_norm(node: Node) -> torch.Tensor:
    x, scale, bias, mean, var = (node[i] for i in range(5))
    factor = scale / torch.sqrt(var + node.attribute("epsilon", 1e-5))
    return (x - _per_channel(x, mean)) * _per_channel(x, factor) + _per_channel(x, bias)


def _instance_norm(node: Node) -> torch.Tensor:
    return functional.instance_norm(node[0], weight=node[1], bias=node[2], eps=node.attribute("epsilon", 1e-5))


def _layer_norm(node: Node) -> tuple[torch.Tensor, ...]:
    x, scale, bias = node[0], node[1], node.optional(2)
    axes = list(range(node.attribute("axis", -1) % x.ndim, x.ndim))
    mean = x.mean(axes, keepdim=True)
    factor = ((x - mean).square().mean(axes, keepdim=True) + node.attribute("epsilon", 1e-5)).rsqrt()
    y = (x - mean) * factor * scale
    return (y if bias is None else y + bias), mean, factor


def _lrn(node: Node) -> torch.Tensor:
    x, size = node[0], node.attribute("size")
    squares = x.square()
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    sums = torch.stack([squares[:, max(0, c - before) : c + after + 1].sum(1) for c in range(x.shape[1])], 1)
    factor = node.attribute("bias", 1.0) + node.attribute("alpha", 1e-4) / size * sums
    return x * factor ** -node.attribute("beta", 0.75)


def _gemm(node: Node) -> torch.Tensor:
    a, b, c = node[0], node[1], node.optional(2)
    a = a.mT if node.attribute("transA", 0) else a
    b = b.mT if node.attribute("transB", 0) else b
    y = node.attribute("alpha", 1.0) * (a @ b)
    return y if c is None else y + node.attribute("beta", 1.0) * c


OPERATORS: dict[str, Callable[[Node], torch.Tensor | tuple[torch.Tensor, ...]]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node: node[0].mean(_spatial(node[0]), keepdim=True),
    "GlobalMaxPool": lambda node: node[0].amax(_spatial(node[0]), keepdim=True),
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "MatMul": lambda node: node[0] @ node[1],
    "MaxPool": _max_pool,
}
