"""Bring a forward model into the form that differentiation works on.

Requires: a model that :func:`vogcore.graph.load.load_model` accepts.
Ensures: default-domain opset of at least 18; no local functions, no Constant nodes, no initializers among the inputs,
no nodes that the outputs do not need; no operators of ai.onnx.ml that the default domain can express; shapes inferred
as far as ONNX can; evaluation mode.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx import shape_inference, version_converter

from vogcore.errors import ModelError
from vogcore.graph.ml import lower_ml, without_maps
from vogcore.graph.own_operators import NONE, OwnOperators, restore, stand_ins
from vogcore.graph.recorded import forget_shapes, recall_shapes
from vogcore.graph.shapes import constant

__all__ = ["MINIMUM_OPSET", "node_name", "prepare"]

MINIMUM_OPSET = 18
"""Oldest opset that gradient rules emit. At 17 and 18 the CUDA provider has a kernel for every op they use."""

INITIALIZERS_APART = 4
"""First version of the file format in which initializers need not be inputs."""

_KEEP_SHAPE: OwnOperators = {("", "GroupNormalization"): 0, ("", "MeanVarianceNormalization"): 0}
"""Operators whose output has the shape of the input, which ONNX's shape inference does not know (1.23)."""

# onnx-ir tells about every value it could not lift or fold; none of it concerns the user of a gradient graph.
logging.getLogger("onnx_ir").setLevel(logging.ERROR)


def node_name(node: ir.Node) -> str:
    """How messages call a node: its name, or that of its first output."""
    return node.name or (node.outputs[0].name if node.outputs else "") or "(unnamed)"


def prepare(model: onnx.ModelProto, own: OwnOperators = NONE) -> ir.Model:
    """Return an in-memory copy of ``model`` ready for differentiation; ``model`` is left as it is.

    Args:
        model: the forward model.
        own: operators that have a rule of the user's own. A local function among them is kept as it is.

    Raises:
        ModelError: the opset cannot be raised to 18, or a node was left in training mode.
    """
    # Functions first: the version converter would drop their bodies.
    work = _simplified(ir.from_proto(without_maps(model)), own)
    recorded = forget_shapes(work.graph)
    model = _infer_shapes(_raise_opset(ir.to_proto(work), own), own)
    result = _simplified(ir.from_proto(model), own)  # the converter writes Constant nodes
    recall_shapes(result.graph, recorded)
    _match_bounds(result.graph)
    if lower_ml(result.graph):
        result = ir.from_proto(_infer_shapes(ir.to_proto(result), own))
    passes.RemoveUnusedNodesPass()(result)
    return result


def _simplified(model: ir.Model, own: OwnOperators) -> ir.Model:
    """Functions inlined, constants and overridable inputs turned into plain initializers; refused in training mode."""
    if model.functions:
        _require_one_opset(model)
        passes.InlinePass(lambda function: (function.domain, function.name) not in own)(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveInitializersFromInputsPass()(model)
    # Older formats required every initializer among the inputs.
    model.ir_version = max(model.ir_version, INITIALIZERS_APART)
    _require_evaluation_mode(model.graph)
    return model


def _require_one_opset(model: ir.Model) -> None:
    """Inlining keeps the nodes of a function as they are, which is right at its own opset only."""
    version = model.opset_imports.get("")
    for function in model.functions.values():
        own = function.opset_imports.get("")
        if own is not None and version is not None and own != version:
            raise ModelError(
                f"The local function {function.name!r} has opset {own} but the model has opset {version}; export the "
                "model again without local functions."
            )


def _raise_opset(model: onnx.ModelProto, own: OwnOperators) -> onnx.ModelProto:
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    if version is None or version >= MINIMUM_OPSET:
        return model
    for function in model.functions:
        if (function.domain, function.name) in own:
            raise ModelError(
                f"The model has opset {version}, and its local function {function.name!r}, which has a gradient rule "
                f"of its own, cannot be raised to opset {MINIMUM_OPSET}; export the model with opset {MINIMUM_OPSET} "
                "or newer."
            )
    try:
        return version_converter.convert_version(model, MINIMUM_OPSET)
    except Exception as error:  # noqa: BLE001 - the C++ converter raises bare RuntimeErrors and assertion texts
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The model has opset {version} and ONNX could not raise it to {MINIMUM_OPSET} ({reason}); "
            f"export it again with opset {MINIMUM_OPSET} or newer."
        ) from None


_BOUNDS = {"Clip": (1, 2), "Pad": (2,)}
"""Operators whose attributes, always float32, became inputs, which have the type of the data."""


def _match_bounds(graph: ir.Graph) -> None:
    """Bounds and padding values in the type of the data; the converter leaves them as float32 in other types."""
    for node in graph:
        data = node.inputs[0] if node.op_type in _BOUNDS and node.domain in ("", "ai.onnx") else None
        if data is None or data.dtype is None:
            continue
        for index in _BOUNDS[node.op_type]:
            bound = node.inputs[index] if index < len(node.inputs) else None
            known = constant(bound)
            if bound is None or known is None or bound.dtype == data.dtype:
                continue
            limits = data.dtype.min, data.dtype.max  # -3.4e38 stands for "no bound"
            content = np.clip(known.astype(np.float64), *limits).astype(data.dtype.numpy())
            value = ir.Value(name=f"{bound.name}/{node_name(node)}", const_value=ir.tensor(content))
            value.shape, value.type = bound.shape, ir.TensorType(data.dtype)
            graph.register_initializer(value)
            node.replace_input_with(index, value)


def _infer_shapes(model: onnx.ModelProto, own: OwnOperators) -> onnx.ModelProto:
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        return model  # the C++ pass would serialise it
    replaced = stand_ins(model, {**_KEEP_SHAPE, **own})
    try:
        return restore(shape_inference.infer_shapes(model, data_prop=True), replaced)
    except Exception:  # noqa: BLE001 - rules read sizes at run time; those that need a rank say so
        return restore(model, replaced)


def _require_evaluation_mode(graph: ir.Graph) -> None:
    for node in graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
            mode = constant(node.inputs[2])
            if mode is None or bool(mode.any()):
                raise ModelError(_training_message(node))
        if node.op_type == "BatchNormalization":
            attribute = node.attributes.get("training_mode")
            if (attribute is not None and attribute.as_int()) or len(node.outputs) > 1:
                raise ModelError(_training_message(node))


def _training_message(node: ir.Node) -> str:
    return (
        f"{node.op_type} node {node_name(node)!r} is in training mode, so its output is not a function of one example; "
        "put the model into evaluation mode (torch: model.eval()) and export the checkpoint again."
    )
