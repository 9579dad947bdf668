"""Put right what an exporter writes that no ONNX operator set has.

Requires: a model as an exporter wrote it.
Ensures: no Erfc of the default domain. tf2onnx, and with it Keras, writes that name of TensorFlow's for an exact GELU;
no checker or runtime accepts it, and erfc(x) = 1 - erf(x).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["mend"]

_DEFAULT = ("", "ai.onnx")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def mend(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` itself where there is nothing to put right, else a copy."""
    if not any(_is_erfc(node) for nodes in _bodies(model) for node in nodes):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    one = numpy_helper.from_array(np.ones((), helper.tensor_dtype_to_np_dtype(_float_type(model))))
    for nodes in _bodies(copy):
        mended = []
        for node in nodes:
            if not _is_erfc(node):
                mended.append(node)
                continue
            (y,) = node.output
            mended += [
                helper.make_node("Erf", node.input, [f"{y}/erf"], name=f"{node.name or y}/Erf"),
                helper.make_node("Constant", [], [f"{y}/one"], name=f"{node.name or y}/Constant", value=one),
                helper.make_node("Sub", [f"{y}/one", f"{y}/erf"], [y], name=f"{node.name or y}/Sub"),
            ]
        del nodes[:]
        nodes.extend(mended)
    return copy


def _is_erfc(node: onnx.NodeProto) -> bool:
    return node.op_type == "Erfc" and node.domain in _DEFAULT


def _bodies(model: onnx.ModelProto) -> Iterator:
    """The node lists of the graph, of branches and loops in it, and of local functions."""
    stack = [model.graph.node, *(function.node for function in model.functions)]
    while stack:
        nodes = stack.pop()
        yield nodes
        for node in nodes:
            for attribute in node.attribute:
                stack += [graph.node for graph in (attribute.g, *attribute.graphs) if graph.node]


def _float_type(model: onnx.ModelProto) -> int:
    """The floating-point type of the model: that of its first weight that has one."""
    types = [tensor.data_type for tensor in model.graph.initializer]
    types += [value.type.tensor_type.elem_type for value in model.graph.input]
    return next((number for number in types if number in _FLOATS), onnx.TensorProto.FLOAT)
