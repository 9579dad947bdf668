"""Make a fixed batch dimension symbolic.

Requires: a valid model.
Ensures: the leading dimension of every dynamic-data input and of every output is a symbol, and constant shapes that
spelled the old batch size out in front (targets of Reshape and Expand, repeats of Tile, shapes of ConstantOfShape)
follow the batch of the run instead. Whether the model's meaning survived cannot be read off the graph alone:
:func:`vogcore.runtime.make_batch_dynamic` compares the two numerically.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from vogcore.graph.load import constant_tensor

__all__ = ["dynamic_batch"]

_SYMBOL = "vogcore_batch"
_SHAPE_INPUT = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0}
"""Operators that take a shape, and which of their inputs it is."""


def dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Rewrite a model whose inputs have a fixed leading dimension.

    Returns:
        ``model`` itself when the batch is dynamic already; a rewritten copy; or None where the rewriting is not
        possible (inputs without a common leading size, or an output whose leading size is another one).
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    sizes = {_leading(value) for value in inputs}
    if sizes <= {None}:
        return model
    if len(sizes) != 1:
        return None
    (batch,) = sizes
    if not batch or any(_leading(value) not in (None, batch) for value in model.graph.output):
        return None  # an empty batch, or an output in which the examples are mixed

    known = _inferred_shapes(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in [*(v for v in copy.graph.input if v.name not in initializers), *copy.graph.output]:
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].Clear()
            shape.dim[0].dim_param = _SYMBOL
    _free_shapes(copy, batch, known, inputs[0].name)
    return copy


def _leading(value: onnx.ValueInfoProto) -> int | None:
    shape = value.type.tensor_type.shape
    return shape.dim[0].dim_value if shape.dim and shape.dim[0].HasField("dim_value") else None


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Sizes at the fixed batch of every value whose sizes are all known."""
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        return {}
    try:
        model = shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001 - the C++ pass raises bare RuntimeErrors; without it fewer targets can be freed
        return {}
    values = [*model.graph.value_info, *model.graph.output]
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
        if value.type.tensor_type.HasField("shape")
        and all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    }


def _free_shapes(model: onnx.ModelProto, batch: int, known: dict[str, list[int]], data: str) -> None:
    """Replace the batch size in front of constant shapes by one that follows the batch of the run."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: constant_tensor(node.attribute[0])
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute
    }
    at_run_time: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        index = _SHAPE_INPUT.get(node.op_type)
        if index is None or index >= len(node.input) or node.input[index] not in constants:
            continue
        target = numpy_helper.to_array(constants[node.input[index]]).astype(np.int64)
        if target.ndim != 1 or target.size == 0:
            continue
        name = f"vogcore_shape_{number}"
        if node.op_type == "Reshape":
            freed = _free_reshape(target, batch, known.get(node.output[0]))
            if freed is None:
                continue
            model.graph.initializer.append(numpy_helper.from_array(freed, name))
        elif target[0] == batch and (batch > 1 or node.op_type == "Expand"):
            # A 1 in front of Tile or ConstantOfShape is more often just a 1 than the batch.
            model.graph.initializer.append(numpy_helper.from_array(target[1:], f"{name}_rest"))
            at_run_time.append(helper.make_node("Concat", [f"{_SYMBOL}_size", f"{name}_rest"], [name], name, axis=0))
        else:
            continue
        node.input[index] = name
    if at_run_time:
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), f"{_SYMBOL}_axis"))
        first = [
            helper.make_node("Shape", [data], [f"{_SYMBOL}_shape"], f"{_SYMBOL}_shape"),
            helper.make_node("Gather", [f"{_SYMBOL}_shape", f"{_SYMBOL}_axis"], [f"{_SYMBOL}_size"], f"{_SYMBOL}_size"),
        ]
        nodes = [*first, *at_run_time, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def _free_reshape(target: np.ndarray, batch: int, result: list[int] | None) -> np.ndarray | None:
    """A Reshape target that means the same at the old batch and leaves the leading size open; None to keep it."""
    if target[0] in (0, -1) or target[0] % batch:
        return None
    sizes = target[1:]
    if result is not None and len(result) == len(target) and 0 not in result:
        sizes = np.asarray(result[1:], np.int64)  # with -1 and 0 spelled out, so that the one -1 can go in front
    if -1 in sizes:
        # Another size is open already and not known: 0 takes the leading size from the Reshape's input.
        return np.asarray([0, *sizes], np.int64) if target[0] == batch else None
    return np.asarray([-1, *sizes], np.int64)
