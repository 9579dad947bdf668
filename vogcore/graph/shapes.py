"""What is known about a value before the model runs: type, rank, sizes, constant content; the bodies of a node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

__all__ = ["bodies", "constant", "dims", "is_float", "rank", "same_dim", "static_dims"]

Dim = int | str | None
"""A size: an integer, the name of a symbolic size, or None when nothing is known."""

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def dims(value: ir.Value) -> tuple[Dim, ...] | None:
    """Sizes of ``value``, or None where not even the rank is known."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else size.value for size in value.shape)


def static_dims(value: ir.Value, axes: Sequence[int] | None = None) -> tuple[int, ...] | None:
    """Sizes along ``axes`` (all by default) when every one of them is a known integer, else None."""
    sizes = dims(value)
    if sizes is None:
        return None
    chosen = [sizes[axis] for axis in axes] if axes is not None else sizes
    return tuple(size for size in chosen if isinstance(size, int)) if all(isinstance(s, int) for s in chosen) else None


def rank(value: ir.Value) -> int | None:
    """Number of axes of ``value``, or None."""
    return None if value.shape is None else len(value.shape)


def same_dim(first: Dim, second: Dim) -> bool:
    """True when two sizes are certainly equal: the same integer or the same symbol."""
    return first is not None and first == second


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Content of an initializer or constant; None for anything computed at run time."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def is_float(value: ir.Value) -> bool:
    """True when ``value`` has a floating-point element type that gradients exist for."""
    return value.dtype in _FLOATS


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among the attributes of ``node``: branches, the body of a loop."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()
