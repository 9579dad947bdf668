"""Say how old resampling nodes choose pixels, after the opset was raised.

Requires: a model that ONNX's version converter raised to opset 18, constants as initializers, and its opset before.
Ensures: Upsample (opset 7 to 9) and Resize of opset 10, both Resize now, compute what they did before. They mapped
output pixel o to o / scale ("asymmetric"), and to the nearest pixel by rounding down where they enlarge and up where
they reduce, as ONNX Runtime does. The converter writes no attribute, and the default is another mapping.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vogcore.errors import ModelError
from vogcore.graph.shapes import constant

__all__ = ["name_old_resampling"]

NEWER = 11
"""Opset from which on Resize has an attribute for its mapping."""


def name_old_resampling(model: ir.Model, before: int | None) -> None:
    """Add the attributes to the resampling nodes of ``model``, in place, where its opset was below 11 ``before``.

    Raises:
        ModelError: a node to the nearest pixel whose rounding no newer node has.
    """
    if before is None or before >= NEWER:
        return
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx") or node.op_type != "Resize":
            continue
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
