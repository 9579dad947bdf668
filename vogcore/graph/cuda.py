"""Which nodes of a graph ONNX Runtime's CUDA provider would leave to the CPU.

The table ``cuda_kernels.json`` holds the kernels that every supported ONNX Runtime has in its CUDA build, as its own
list of kernels gives them (tests/data/make_cuda_kernels.py): operator -> version of its schema -> combinations of
types. A kernel that was registered without an end matches only the version it starts with, so an operator can be
covered at opset 18 and not at 22.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import AttributeProto, TensorProto, defs

__all__ = ["CLEAN_OPSETS", "Fallback", "cuda_fallbacks", "has_kernel"]

CLEAN_OPSETS = range(18, 22)
"""Opsets at which the CUDA provider has every operator that it has at 18."""

_TABLE = Path(__file__).with_name("cuda_kernels.json")

_INLINED = {
    "CastLike": ("Cast",),
    "GroupNormalization": ("Cast", "Reshape", "Shape", "Concat", "Unsqueeze", "Flatten"),
    "Mish": ("Softplus", "Tanh", "Mul"),
    "NegativeLogLikelihoodLoss": ("GatherElements", "Neg", "ReduceMean", "ReduceSum", "Squeeze", "Where"),
    "SoftmaxCrossEntropyLoss": ("LogSoftmax", "NegativeLogLikelihoodLoss", "Reshape", "Transpose"),
    "Swish": ("Sigmoid", "Mul"),
}
"""Operators without any kernel in ONNX Runtime, which writes out their definition instead, and what that consists
of."""

_MEASURES = frozenset({"Shape", "Size"})
"""Operators that read a shape and not the data; ONNX Runtime does arithmetic on their results on the CPU."""

_INTEGERS = frozenset(
    {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT64}
)


class Fallback(NamedTuple):
    """A node that would run on the CPU."""

    name: str
    op: str
    why: str


@functools.cache
def _kernels() -> Mapping[str, Mapping[int, list[dict[str, frozenset[str]]]]]:
    with open(_TABLE, encoding="utf-8") as file:
        table = json.load(file)["kernels"]
    return {
        op: {
            int(version): [{name: frozenset(types.split()) for name, types in entry.items()} for entry in entries]
            for version, entries in versions.items()
        }
        for op, versions in table.items()
    }


def has_kernel(op: str, opset: int) -> bool:
    """True when the CUDA provider has a kernel for the operator, as it is defined at ``opset``, for some type."""
    if op in _INLINED and op not in _kernels():
        return all(has_kernel(part, opset) for part in _INLINED[op])
    return _version(op, opset) in _kernels().get(op, {})


def cuda_fallbacks(model: onnx.ModelProto) -> list[Fallback]:
    """Nodes of ``model`` that would run on the CPU in a session with the CUDA provider.

    Left out are nodes that depend on constants alone, which ONNX Runtime computes when it loads the model, and integer
    arithmetic on shapes, which it does on the CPU on purpose.

    Args:
        model: a model whose intermediate types are recorded, as gradient graphs have them. A type that is not known
            counts as covered.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    found: list[Fallback] = []
    _scan(model.graph, opset, {}, set(), set(), found)
    return found


def _scan(
    graph: onnx.GraphProto, opset: int, types: dict[str, int], fixed: set[str], shapes: set[str], found: list[Fallback]
) -> None:
    """Collect the fallbacks of a graph; ``fixed`` are constant values, ``shapes`` those on the CPU on purpose."""
    types, fixed, shapes = dict(types), set(fixed), set(shapes)
    types |= {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    inputs = {value.name for value in graph.input}
    fixed |= {tensor.name for tensor in graph.initializer if tensor.name not in inputs}
    for node in graph.node:
        bodies = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
        read = [name for name in node.input if name]
        if not bodies and all(name in fixed for name in read) and not node.op_type.startswith("Random"):
            fixed.update(node.output)
            continue
        counts = all(types.get(name, TensorProto.INT64) in _INTEGERS for name in node.output if name)
        derived = node.op_type in _MEASURES or all(name in shapes or name in fixed for name in read)
        if not bodies and counts and derived:
            shapes.update(node.output)
            continue
        why = _why_not(node, opset, types)
        if why is not None:
            found.append(Fallback(node.name or (node.output[0] if node.output else ""), node.op_type, why))
        for body in bodies:
            _scan(body, opset, types, fixed, shapes, found)


def _why_not(node: onnx.NodeProto, opset: int, types: Mapping[str, int]) -> str | None:
    """Why a node does not run on CUDA, or None where it does."""
    if node.domain not in ("", "ai.onnx"):
        return f"no kernel for the domain {node.domain}"
    if not has_kernel(node.op_type, opset):
        return f"no kernel at opset {opset}"
    if node.op_type not in _INLINED and not _types_fit(node, opset, types):
        shown = ", ".join(_type(types[name]) for name in (*node.input, *node.output) if name in types)
        return f"no kernel for these types ({shown})"
    return _attributes(node)


def _types_fit(node: onnx.NodeProto, opset: int, types: Mapping[str, int]) -> bool:
    version = _version(node.op_type, opset)
    schema = defs.get_schema(node.op_type, version, "")
    given: dict[str, set[str]] = {}
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, name in enumerate(names):
            formal = formals[min(index, len(formals) - 1)]
            if name and types.get(name):
                given.setdefault(formal.type_str, set()).add(_type(types[name]))
    return any(
        all(types_here <= entry[name] for name, types_here in given.items() if name in entry)
        for entry in _kernels()[node.op_type][version]
    )


def _attributes(node: onnx.NodeProto) -> str | None:
    """Uses that the provider refuses although it has a kernel (its GetCapability)."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "ConvTranspose":
        pads = values.get("pads", [])
        if list(pads[: len(pads) // 2]) != list(pads[len(pads) // 2 :]):
            return "asymmetric pads"
        if values.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
            return "auto_pad"
    if node.op_type == "GRU" and not values.get("linear_before_reset", 0):
        return "linear_before_reset=0"
    if node.op_type == "LSTM" and (values.get("input_forget", 0) or (len(node.input) > 7 and node.input[7])):
        return "input_forget or peepholes"
    if node.op_type in ("GRU", "LSTM", "RNN"):
        if "clip" in values or "activation_alpha" in values or "activation_beta" in values:
            return "clip or parameters of activations"
        usual = {"GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"], "RNN": ["tanh"]}[node.op_type]
        activations = [name.decode().lower() for name in values.get("activations", [])]
        if activations not in ([], usual, usual * 2):
            return "activations other than the default"
    return None


def _version(op: str, opset: int) -> int:
    """Version of the operator's schema that is in force at ``opset``; 0 where there is none."""
    try:
        return int(defs.get_schema(op, opset, "").since_version)
    except defs.SchemaError:
        return 0


def _type(element: int) -> str:
    return str(TensorProto.DataType.Name(element)).lower()
