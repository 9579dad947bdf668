"""A model in another floating-point type: ONNX Runtime has no float64 kernels for many operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

__all__ = ["in_type"]


def in_type(model: onnx.ModelProto, to: type, given: type = np.float64) -> onnx.ModelProto:
    """A copy of ``model`` with the type ``to`` in place of ``given``, in bodies of loops and branches too."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _convert(result.graph, *(helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (given, to)))
    return result


def _convert(graph: onnx.GraphProto, given: int, to: int) -> None:
    for info in [*graph.input, *graph.output, *graph.value_info]:
        if info.type.tensor_type.elem_type == given:
            info.type.tensor_type.elem_type = to
    for tensor in graph.initializer:
        _replace(tensor, given, to)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _replace(attribute.t, given, to)
            elif attribute.type == AttributeProto.GRAPH:
                _convert(attribute.g, given, to)
            elif attribute.name in ("to", "dtype") and attribute.i == given:
                attribute.i = to


def _replace(tensor: onnx.TensorProto, given: int, to: int) -> None:
    if tensor.data_type == given:
        array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(to))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
