"""Operators that move elements, and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from onnx import numpy_helper
from torch.nn import functional

from benchmarks.zoo.interpreter.node import Node

__all__ = ["OPERATORS"]

Result = torch.Tensor | tuple[torch.Tensor, ...]


def _reshape(node: Node) -> torch.Tensor:
    x, shape = node[0], node.ints("shape", 1) or []
    return x.reshape(
        [x.shape[i] if size == 0 and not node.attribute("allowzero", 0) else size for i, size in enumerate(shape)]
    )


def _flatten(node: Node) -> torch.Tensor:
    axis = node.attribute("axis", 1)
    return node[0].reshape(math.prod(node[0].shape[: axis if axis >= 0 else node[0].ndim + axis]), -1)


def _transpose(node: Node) -> torch.Tensor:
    return node[0].permute(node.attribute("perm") or list(range(node[0].ndim))[::-1])


def _squeeze(node: Node) -> torch.Tensor:
    axes = node.ints("axes", 1)
    return node[0].squeeze() if axes is None else node[0].squeeze(axes)


def _unsqueeze(node: Node) -> torch.Tensor:
    x, axes = node[0], node.ints("axes", 1) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(node: Node) -> torch.Tensor:
    x, starts, ends = node[0], node.ints("starts", 1) or [], node.ints("ends", 2) or []
    axes = node.ints("axes", 3, list(range(len(starts)))) or []
    steps = node.ints("steps", 4, [1] * len(starts)) or []
    for start, end, axis, step in zip(starts, ends, axes, steps):
        places = range(x.shape[axis])[start:end:step]  # Python clamps as ONNX does
        x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def _split(node: Node) -> tuple[torch.Tensor, ...]:
    x, axis = node[0], node.attribute("axis", 0)
    sizes = node.ints("split", 1)
    if sizes is None:
        part = -(-x.shape[axis] // node.outputs)
        return tuple(x.split(part, axis))
    return tuple(x.split(sizes, axis))


def _pad(node: Node) -> torch.Tensor:
    x = node[0]
    pads = node.ints("pads", 1) or node.attribute("paddings") or []
    axes = node.ints("axes", 3, list(range(x.ndim))) or []
    value = node.optional(2)
    fill = float(value) if value is not None else node.attribute("value", 0.0)
    mode = node.attribute("mode", "constant")
    if mode == "constant":
        amounts = [0] * 2 * x.ndim
        for i, axis in enumerate(axes):
            place = 2 * (x.ndim - 1 - axis % x.ndim)
            amounts[place], amounts[place + 1] = pads[i], pads[len(axes) + i]
        return functional.pad(x, amounts, value=fill)
    for i, axis in enumerate(axes):
        places = np.pad(np.arange(x.shape[axis]), (pads[i], pads[len(axes) + i]), mode)
        x = x.index_select(axis, torch.from_numpy(places))
    return x


def _gather(node: Node) -> torch.Tensor:
    x, indices, axis = node[0], node[1], node.attribute("axis", 0) % node[0].ndim
    rows = x.index_select(axis, indices.reshape(-1) % x.shape[axis])
    return rows.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _tile(node: Node) -> torch.Tensor:
    if node.opset < 6:  # how often, and along which axis
        repeats = [1] * node[0].ndim
        repeats[int(node[2])] = int(node[1])
        return node[0].repeat(repeats)
    return node[0].repeat(node[1].tolist())


def _expand(node: Node) -> torch.Tensor:
    return node[0].expand(torch.broadcast_shapes(node[0].shape, tuple(node[1].tolist())))


def _constant_of_shape(node: Node) -> torch.Tensor:
    given = node.attribute("value")
    value = torch.zeros(1) if given is None else torch.from_numpy(np.array(numpy_helper.to_array(given)))
    return (value.to(node.dtype) if value.is_floating_point() else value).expand(node[0].tolist()).clone()


def _scatter_elements(node: Node) -> torch.Tensor:
    x, indices, updates, axis = node[0], node[1], node[2], node.attribute("axis", 0)
    how = {"none": None, "add": "sum"}[node.attribute("reduction", "none")]
    indices = indices % x.shape[axis]
    if how is None:
        return x.scatter(axis, indices, updates)
    return x.scatter_reduce(axis, indices, updates, how, include_self=True)


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _depth_to_space(node: Node) -> torch.Tensor:
    x, block = node[0], node.attribute("blocksize")
    n, channels, height, width = x.shape
    out = channels // block**2
    if node.attribute("mode", "DCR") == "DCR":
        y = x.reshape(n, block, block, out, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, out, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, out, height * block, width * block)


def _range(node: Node) -> torch.Tensor:
    return torch.arange(*(node[i].item() for i in range(3)), dtype=node[0].dtype)


def _reduce(function: Callable[[torch.Tensor, list[int], bool], torch.Tensor]) -> Callable[[Node], torch.Tensor]:
    def apply(node: Node) -> torch.Tensor:
        axes = node.ints("axes", 1)
        if not axes:
            if node.attribute("noop_with_empty_axes", 0):
                return node[0]
            axes = list(range(node[0].ndim))
        return function(node[0], axes, bool(node.attribute("keepdims", 1)))

    return apply


OPERATORS: dict[str, Callable[[Node], Result]] = {
    "Concat": lambda node: torch.cat([value for value in node.inputs if value is not None], node.attribute("axis", 1)),
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "NonZero": lambda node: node[0].nonzero().mT,
    "Pad": _pad,
    "Range": _range,
    "ReduceL2": _reduce(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "Shape": lambda node: torch.tensor(node[0].shape[node.attribute("start", 0) : node.attribute("end")]),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
