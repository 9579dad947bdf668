"""Write down what old operators mean that ONNX's version converter leaves to the new defaults.

Requires: a model that the converter raised to opset 18, constants as initializers, shapes inferred; its opset before.
Ensures: the model computes what it did before.

- Upsample (opset 7 to 9) and Resize of opset 10, both Resize now, mapped output pixel o to o / scale ("asymmetric"),
  and to the nearest pixel by rounding down where they enlarge and up where they reduce, as ONNX Runtime does.
- PRelu below opset 7 took one slope for each channel, axis 1; since then slopes broadcast, from the last axis on.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vogcore.errors import ModelError
from vogcore.graph.shapes import constant, rank

__all__ = ["keep_old_meanings"]

RESIZE_HAS_MODES = 11
SLOPES_BROADCAST = 7


def keep_old_meanings(model: ir.Model, before: int | None) -> None:
    """Rewrite the nodes of ``model`` in place whose meaning changed since opset ``before``.

    Raises:
        ModelError: a Resize to the nearest pixel whose rounding no newer one has.
    """
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx") or before is None:
            continue
        if node.op_type == "Resize" and before < RESIZE_HAS_MODES:
            _name_mapping(node, before)
        if node.op_type == "PRelu" and before < SLOPES_BROADCAST:
            _align_slopes(model.graph, node)


def _name_mapping(node: ir.Node, before: int) -> None:
    mapping = ir.AttrString("coordinate_transformation_mode", "asymmetric")
    node.attributes[mapping.name] = mapping
    mode = node.attributes.get("mode")
    if mode is None or mode.as_string() == "nearest":
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", _rounding(node, before))


def _rounding(node: ir.Node, before: int) -> str:
    scales = constant(node.inputs[2])
    if before < 10 or (scales is not None and np.all(scales >= 1)):  # Upsample can only enlarge
        return "floor"
    if scales is not None and np.all(scales <= 1):
        return "ceil"
    raise ModelError(
        f"Resize node {node.name or node.outputs[0].name!r} of opset 10 enlarges one axis and reduces another, or by a "
        "scale that is computed at run time, to the nearest pixel; no newer Resize rounds like that, so export the "
        "model again with opset 11 or newer."
    )


def _align_slopes(graph: ir.Graph, node: ir.Node) -> None:
    data, slope = node.inputs[0], node.inputs[1]
    if data is None or slope is None or rank(slope) != 1 or slope.shape == ir.Shape([1]):
        return
    n = rank(data)
    if n is None:
        raise ModelError(
            f"PRelu node {node.name or node.outputs[0].name!r} has one slope for each channel and data of unknown "
            "rank; run ONNX shape inference on the model, or export it again with opset 7 or newer."
        )
    if n < 3:
        return
    axes = ir.Value(
        name=f"{node.outputs[0].name}/slope_axes",
        const_value=ir.tensor(np.arange(1, n - 1)),
        shape=ir.Shape([n - 2]),
        type=ir.TensorType(ir.DataType.INT64),
    )
    graph.register_initializer(axes)
    aligned = ir.node("Unsqueeze", [slope, axes], name=f"{node.outputs[0].name}/slope")
    aligned.outputs[0].name, aligned.outputs[0].type = aligned.name, slope.type
    aligned.outputs[0].shape = ir.Shape([*(slope.shape or ()), *[1] * (n - 2)])
    graph.insert_before(node, aligned)
    node.replace_input_with(1, aligned.outputs[0])
