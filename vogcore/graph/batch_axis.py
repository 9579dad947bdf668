"""Make a fixed batch dimension symbolic.

Requires: a valid model.
Ensures: the leading dimension of every dynamic-data input and of every output is a symbol, and Reshape targets that
spelled the old batch size out say "as it was" instead. Whether the model's meaning survived cannot be read off the
graph alone: :func:`vogcore.runtime.make_batch_dynamic` compares the two numerically.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["dynamic_batch"]

_SYMBOL = "vogcore_batch"
_BATCH_SHAPED = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Tile": 1}


def dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Rewrite a model whose inputs have a fixed leading dimension.

    Returns:
        ``model`` itself when the batch is dynamic already; a rewritten copy; or None where the rewriting is not
        possible (inputs without a common leading size, or a batch size built into an operator other than Reshape).
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    sizes = {_leading(value) for value in inputs}
    if sizes == {None}:
        return model
    if len(sizes) != 1:
        return None
    (batch,) = sizes
    assert batch is not None

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    names = {tensor.name for tensor in copy.graph.initializer}
    for value in [*(v for v in copy.graph.input if v.name not in names), *copy.graph.output]:
        shape = value.type.tensor_type.shape
        if shape.dim:
            if shape.dim[0].HasField("dim_value") and shape.dim[0].dim_value != batch:
                return None  # an output whose leading size is not the batch: examples are mixed
            shape.dim[0].Clear()
            shape.dim[0].dim_param = _SYMBOL
    return copy if _free_shapes(copy, batch) else None


def _leading(value: onnx.ValueInfoProto) -> int | None:
    shape = value.type.tensor_type.shape
    return shape.dim[0].dim_value if shape.dim and shape.dim[0].HasField("dim_value") else None


def _free_shapes(model: onnx.ModelProto, batch: int) -> bool:
    """Replace the batch size at the head of constant Reshape targets by 0, "the size of the input there"."""
    constants = {t.name: t for t in model.graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.attribute}
    for number, node in enumerate(model.graph.node):
        if node.op_type not in _BATCH_SHAPED or _BATCH_SHAPED[node.op_type] >= len(node.input):
            continue
        tensor = constants.get(node.input[_BATCH_SHAPED[node.op_type]])
        if tensor is None:
            continue
        target = numpy_helper.to_array(tensor).copy()
        if target.ndim != 1 or target.size == 0 or target[0] != batch:
            continue
        if node.op_type == "Expand":
            target[0] = 1  # Expand keeps a size where the target says one
        elif node.op_type == "Reshape":
            # With one free size the old target already fits any batch, unless it carried the batch in front.
            target[0] = 0 if -1 in target else -1
        elif node.op_type == "Tile":
            if batch == 1:
                continue
            return False
        else:
            return False
        name = f"vogcore_target_{number}"
        model.graph.initializer.append(numpy_helper.from_array(target.astype(np.int64), name))
        node.input[_BATCH_SHAPED[node.op_type]] = name
    return True
