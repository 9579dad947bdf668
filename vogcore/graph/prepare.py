"""Bring a forward model into the form that differentiation works on.

Requires: a model that :func:`vogcore.graph.load.load_model` accepts.
Ensures: default-domain opset of at least 18, and no higher than the nodes need; no local functions, no Constant nodes,
no If with a constant condition, no initializers in bodies or among the inputs, no nodes that the outputs do not need,
no operators of ai.onnx.ml that the default domain can express, no sequences that are known; arithmetic on known sizes
computed, shapes inferred as far as ONNX and that arithmetic go, and also what loops carry; evaluation mode.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from vogcore.errors import ModelError
from vogcore.graph.branches import inline_constant_branches
from vogcore.graph.decompose import decompose_for_cuda
from vogcore.graph.fold import fold_shape_arithmetic
from vogcore.graph.load import first_line
from vogcore.graph.loop_shapes import with_loop_shapes
from vogcore.graph.lower_opset import lower_opset
from vogcore.graph.ml import lower_ml, without_maps
from vogcore.graph.old_operators import keep_old_meanings
from vogcore.graph.onnx_passes import infer_shapes, inline_converting, raise_opset
from vogcore.graph.own_operators import NONE, OwnOperators
from vogcore.graph.reads import watch
from vogcore.graph.recorded import forget_shapes, recall_shapes
from vogcore.graph.sequences import write_out_sequences
from vogcore.graph.shapes import constant

__all__ = ["MINIMUM_OPSET", "node_name", "prepare"]

MINIMUM_OPSET = 18
"""Oldest opset that gradient rules emit. At 17 and 18 the CUDA provider has a kernel for every op they use."""

INITIALIZERS_APART = 4
"""First version of the file format in which initializers need not be inputs."""

_KEEP_SHAPE: OwnOperators = {("", "GroupNormalization"): 0, ("", "MeanVarianceNormalization"): 0}
"""Operators whose output has the shape of the input, which ONNX's shape inference does not know (1.23)."""

_BOUNDS = {"Clip": (1, 2), "Pad": (2,)}
"""Operators whose attributes, always float32, became inputs, which have the type of the data."""

_ROUNDS = 8
"""Most rounds of folding: each can decide a branch, or give a shape, that the next one builds on."""

_FORMAT_OF_18 = 8
"""Version of the file format that came with opset 18."""

_OLD_TYPES = {ir.DataType(number) for number in range(1, 17)}
"""Element types that this format has, up to bfloat16."""

# onnx-ir tells about every value it could not lift or fold; none of it concerns the user of a gradient graph.
logging.getLogger("onnx_ir").setLevel(logging.ERROR)


def node_name(node: ir.Node) -> str:
    """How messages call a node: its name, or that of its first output."""
    return node.name or (node.outputs[0].name if node.outputs else "") or "(unnamed)"


def prepare(model: onnx.ModelProto, own: OwnOperators = NONE, *, opset: str = "lowest") -> ir.Model:
    """Return an in-memory copy of ``model`` ready for differentiation; ``model`` is left as it is.

    Args:
        model: the forward model. Its weights are shared, not copied.
        own: operators that have a rule of the user's own. A local function among them is kept as it is, and with it
            the opset of the model.
        opset: ``"lowest"`` lowers the opset as far as the nodes allow, to 18 at the least; ``"cuda"`` also writes out
            operators that only newer opsets have, where that takes the model to an opset that the CUDA provider
            covers; ``"keep"`` leaves an opset from 18 on as it is.

    Raises:
        ModelError: the opset cannot be raised to 18, or a node was left in training mode.
    """
    work = ir.from_proto(without_maps(model))
    watch(work.graph)
    try:
        work = _without_functions(work, own)
    except (ValueError, KeyError) as error:  # the checker of ONNX does not look at what local functions are called with
        raise ModelError(
            f"A call of a local function does not fit it ({first_line(error)}); export the model again."
        ) from error
    _drop_notes(work.graph)
    _simplify(work)
    recorded = forget_shapes(work.graph)
    version = work.opset_imports.get("")
    alike = {**_KEEP_SHAPE, **own}
    if version is not None and version < MINIMUM_OPSET:
        _refuse_own_functions(work)
        work = raise_opset(work, MINIMUM_OPSET)
        _simplify(work)  # the converter writes Constant nodes
    passes.RemoveUnusedNodesPass()(work)  # shape inference costs by the node
    work = infer_shapes(work, alike)
    if recall_shapes(work.graph, recorded):
        work = infer_shapes(work, alike)  # now also behind operators that ONNX does not know
    keep_old_meanings(work, version)
    write_out_sequences(work.graph)
    _match_bounds(work.graph)
    if lower_ml(work.graph):
        passes.RemoveUnusedNodesPass()(work)
        work = infer_shapes(work, alike)
    for _ in range(_ROUNDS):
        found = fold_shape_arithmetic(work)
        if not inline_constant_branches(work) and not found:
            break
        passes.RemoveUnusedNodesPass()(work)
        work = infer_shapes(work, alike)
    work = with_loop_shapes(work, lambda part: infer_shapes(part, alike))
    _require_fixed_dropout(work.graph)
    if opset == "cuda":
        decompose_for_cuda(work)
    if opset != "keep" and not work.functions:
        lower_opset(work)
    passes.RemoveUnusedNodesPass()(work)
    _lower_format(work)
    return work


def _without_functions(model: ir.Model, own: OwnOperators) -> ir.Model:
    """Local functions inlined, each converted to the opset of the model where it has another one."""
    functions = {key: function for key, function in model.functions.items() if key[:2] not in own}
    if not functions:
        return model
    versions = {function.opset_imports[""] for function in functions.values() if "" in function.opset_imports}
    if "" not in model.opset_imports:  # nothing but calls in the main graph
        model.opset_imports[""] = max(versions, default=MINIMUM_OPSET)
    if not versions - {model.opset_imports[""]}:
        passes.InlinePass(lambda function: (function.domain, function.name) not in own)(model)
        return model
    if len(functions) < len(model.functions):
        raise ModelError(
            "The model has local functions of another opset than its own, and others that have a gradient rule of "
            f"their own; export it with one opset, {MINIMUM_OPSET} or newer."
        )
    highest = max(versions)
    if highest > model.opset_imports[""]:
        model.functions.clear()  # the converter would drop their bodies
        model = raise_opset(model, highest)
        model.functions.update(functions)
    return inline_converting(model)


def _refuse_own_functions(model: ir.Model) -> None:
    for function in model.functions.values():
        raise ModelError(
            f"The model has opset {model.opset_imports['']}, and its local function {function.name!r}, which has a "
            f"gradient rule of its own, cannot be raised to opset {MINIMUM_OPSET}; export the model with opset "
            f"{MINIMUM_OPSET} or newer."
        )


def _drop_notes(graph: ir.Graph) -> None:
    """Forget what exporters note beside each node: stack traces, with the paths of their machine."""
    for inner in (graph, *graph.subgraphs()):
        inner.metadata_props.clear()
        for node in inner:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()


def _simplify(model: ir.Model) -> None:
    """Constants and overridable inputs turned into plain initializers; refused in training mode."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.LiftSubgraphInitializersToMainGraphPass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    # Older formats required every initializer among the inputs.
    model.ir_version = max(model.ir_version, INITIALIZERS_APART)
    _require_fixed_normalization(model.graph)


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


def _lower_format(model: ir.Model) -> None:
    """The version of the file format that the opset came with, where no newer element type needs a newer one.

    ONNX Runtime refuses a file of a newer format than it knows, whatever is in it.
    """
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph.all_nodes() for value in node.outputs]
    if all(value.dtype is None or value.dtype in _OLD_TYPES for value in values):
        imports = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
        needed = onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True)
        model.ir_version = min(model.ir_version, max(needed, _FORMAT_OF_18))


def _require_fixed_normalization(graph: ir.Graph) -> None:
    for node in graph.all_nodes():
        if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"):
            attribute = node.attributes.get("training_mode")
            if (attribute is not None and attribute.as_int()) or len(node.outputs) > 1:
                raise ModelError(_training_message(node))


def _require_fixed_dropout(graph: ir.Graph) -> None:
    for node in graph.all_nodes():
        if node.op_type == "Dropout" and node.domain in ("", "ai.onnx") and len(node.inputs) > 2:
            mode = constant(node.inputs[2])
            if node.inputs[2] is not None and (mode is None or bool(mode.any())):
                raise ModelError(_training_message(node))


def _training_message(node: ir.Node) -> str:
    return (
        f"{node.op_type} node {node_name(node)!r} is in training mode, so its output is not a function of one example; "
        "put the model into evaluation mode (torch: model.eval()) and export the checkpoint again."
    )
