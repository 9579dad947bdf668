"""A float64 model in float32, for ONNX Runtime, which has no float64 kernels for many operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

__all__ = ["in_float32"]


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` with every double made a float, bodies of loops and branches included."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _convert(result.graph)
    return result


def _convert(graph: onnx.GraphProto) -> None:
    for info in [*graph.input, *graph.output, *graph.value_info]:
        if info.type.tensor_type.elem_type == TensorProto.DOUBLE:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        tensor.CopyFrom(_single(tensor))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                attribute.t.CopyFrom(_single(attribute.t))
            elif attribute.type == AttributeProto.GRAPH:
                _convert(attribute.g)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT


def _single(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type != TensorProto.DOUBLE:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
