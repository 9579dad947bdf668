"""Models without their weights, and the size of those weights: what can be had without copying or encoding them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import onnx
from onnx import TensorProto

__all__ = ["LARGE", "nbytes", "shell", "structure_digest", "weights_nbytes"]

LARGE = 1024
"""Bytes from which a weight counts as large. Smaller ones (shapes, axes, scales) matter to inference."""

_NARROW = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}  # not all known to older onnx
_BITS = {
    **dict.fromkeys((TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT64, TensorProto.COMPLEX64), 64),
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT32), 32),
    **dict.fromkeys((TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT16, TensorProto.UINT16), 16),
    **{getattr(TensorProto, name): bits for name, bits in _NARROW.items() if hasattr(TensorProto, name)},
    TensorProto.COMPLEX128: 128,
}


def shell(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` without the initializers of its main graph."""
    copy = onnx.ModelProto()
    _copy_fields(model, copy, leave_out="graph")
    _copy_fields(model.graph, copy.graph, leave_out="initializer")
    return copy


def structure_digest(model: onnx.ModelProto) -> str:
    """Hex SHA-256 of all that a model computes apart from its large weights, of which names and shapes count.

    Notes, names of nodes and recorded shapes do not count.
    """
    digest = hashlib.sha256()

    def add(*parts: Any) -> None:
        digest.update(repr(parts).encode())

    add([(opset.domain, opset.version) for opset in model.opset_import])
    for value in (*model.graph.input, *model.graph.output):
        digest.update(value.SerializeToString(deterministic=True))
    for function in model.functions:
        digest.update(function.SerializeToString(deterministic=True))
    for node in model.graph.node:
        add(node.domain, node.op_type, list(node.input), list(node.output))
        for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
            digest.update(attribute.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        add(tensor.name, tensor.data_type, list(tensor.dims))
        if nbytes(tensor) < LARGE:
            digest.update(tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()


def nbytes(tensor: onnx.TensorProto) -> int:
    """Bytes of the content of a tensor, by its type and shape; an element of a type not listed has 8 bits."""
    return (math.prod(tensor.dims) * _BITS.get(tensor.data_type, 8) + 7) // 8


def weights_nbytes(model: onnx.ModelProto) -> int:
    """Bytes of all initializers of the main graph."""
    return sum(nbytes(tensor) for tensor in model.graph.initializer)


def _copy_fields(
    source: onnx.ModelProto | onnx.GraphProto, to: onnx.ModelProto | onnx.GraphProto, *, leave_out: str
) -> None:
    for field, value in source.ListFields():
        if field.name == leave_out:
            continue
        if isinstance(value, str | bytes | int | float):
            setattr(to, field.name, value)
        elif isinstance(value, Iterable):
            getattr(to, field.name).extend(value)
        else:
            getattr(to, field.name).CopyFrom(value)
