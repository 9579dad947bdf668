"""The C++ passes of the onnx package on a model of any size: shape inference, version conversion, inlining.

Requires: a model whose initializers are no inputs.
Ensures: the pass sees the graph without its large weights, which take no part in any of these passes; so nothing is
copied, and protobuf's limit of 2 GB does not matter. The result has them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import onnx
import onnx_ir as ir
from onnx import inliner, shape_inference, version_converter

from vogcore.errors import ModelError
from vogcore.graph.light import LARGE
from vogcore.graph.load import first_line
from vogcore.graph.own_operators import NONE, OwnOperators, restore, stand_ins

__all__ = ["infer_shapes", "inline_converting", "is_invented", "raise_opset"]

_READ_FLOATS = {"OneHot", "Range", "Resize", "Upsample"}
"""Operators of which these passes read floating-point inputs; elsewhere they read integers only."""

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def infer_shapes(model: ir.Model, alike: OwnOperators = NONE) -> ir.Model:
    """A model with types and shapes as far as ONNX can infer them; ``model`` where it cannot at all.

    Names of open sizes that an earlier inference made up are inferred anew: now they may have a size, or a name of the
    model's own.

    Args:
        model: the model; what inference made up is taken out of it.
        alike: operators that ONNX cannot infer, and the input that their output looks like.
    """
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None and any(is_invented(size) for size in value.shape):
                value.shape = ir.Shape([None if is_invented(size) else size for size in value.shape])
    for data_prop in (True, False):
        try:
            return _without_weights(model, partial(_inferred, alike, data_prop))
        except Exception:  # noqa: BLE001 - the C++ pass raises bare RuntimeErrors; rules read sizes at run time then
            continue
    return model


def _inferred(alike: OwnOperators, data_prop: bool, proto: onnx.ModelProto) -> onnx.ModelProto:
    replaced = stand_ins(proto, alike)
    return restore(shape_inference.infer_shapes(proto, data_prop=data_prop), replaced)


def is_invented(size: object) -> bool:
    """True for the name that ONNX's inference gives to an open size of its own accord."""
    name = size.value if isinstance(size, ir.SymbolicDim) else size
    return isinstance(name, str) and name.startswith("unk__")


def raise_opset(model: ir.Model, opset: int) -> ir.Model:
    """A model at the default-domain opset ``opset``, converted from an older one.

    Raises:
        ModelError: ONNX cannot convert it.
    """
    version = model.opset_imports.get("")
    try:
        return _without_weights(model, lambda proto: version_converter.convert_version(proto, opset))
    except Exception as error:  # noqa: BLE001 - the C++ converter raises bare RuntimeErrors and assertion texts
        raise ModelError(
            f"The model has opset {version} and ONNX could not raise it to {opset} ({first_line(error)}); "
            f"export it again with opset {opset} or newer."
        ) from None


def inline_converting(model: ir.Model) -> ir.Model:
    """A model without local functions, whose bodies are converted from their own opset to the model's.

    Raises:
        ModelError: ONNX cannot convert one of them.
    """
    version = model.opset_imports.get("")
    try:
        return _without_weights(model, _inline_by_levels)
    except Exception as error:  # noqa: BLE001 - as above
        raise ModelError(
            f"A local function of the model has another opset than the model ({version}), and ONNX could not convert "
            f"it ({first_line(error)}); export the model again without local functions."
        ) from None


def _inline_by_levels(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Inline what the main graph calls, until it calls nothing more.

    The converter wants to know the types of what goes into a function. Inference tells those in the main graph, but
    not those between two calls inside of a function.
    """
    functions = {(function.domain, function.name): function for function in proto.functions}
    while called := {key for key in _calls(proto.graph.node) if key in functions}:
        level = {key for key in called if not called & set(_calls(functions[key].node))}
        if not level:
            raise ValueError("its functions call each other in a circle")
        proto = shape_inference.infer_shapes(proto)
        del proto.functions[:]
        proto.functions.extend(functions[key] for key in level)
        proto = inliner.inline_local_functions(proto, convert_version=True)
        del proto.functions[:]
        proto.functions.extend(functions.values())
    del proto.functions[:]
    return proto


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _calls(attribute.g.node)


def _without_weights(model: ir.Model, apply: Callable[[onnx.ModelProto], onnx.ModelProto]) -> ir.Model:
    graph = model.graph
    weights = {name: value for name, value in graph.initializers.items() if not _is_read(value)}
    for name, value in weights.items():
        del graph.initializers[name]
        graph.inputs.append(value)
    try:
        proto = ir.to_proto(model)
    finally:
        for value in weights.values():
            graph.inputs.remove(value)
            graph.register_initializer(value)
    result = ir.from_proto(apply(proto))
    _give_back(result.graph, weights)
    return result


def _give_back(graph: ir.Graph, weights: Mapping[str, ir.Value]) -> None:
    for value in [value for value in graph.inputs if value.name in weights]:
        graph.inputs.remove(value)
        value.const_value = weights[value.name or ""].const_value
        graph.register_initializer(value)


def _is_read(value: ir.Value) -> bool:
    """True for an initializer whose content matters to the passes: a shape, axes, scales."""
    tensor = value.const_value
    if tensor is None or value.name is None:
        return True
    if tensor.dtype in _FLOATS and not any(node.op_type in _READ_FLOATS for node in value.consumers()):
        return False
    return tensor.nbytes < LARGE
