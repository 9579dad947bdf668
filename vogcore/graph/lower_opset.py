"""Lower the default-domain opset of a model as far as its nodes allow, to 18 at the least.

Requires: local functions inlined; types inferred as far as ONNX can.
Ensures: the opset is the smallest from the floor on at which every node means what it meant; no node is added or
removed. Where nothing can be lowered the model stays as it is.

Most new versions of an operator only admit further element types. Such a node need not be rewritten: under an older
opset the same node has the same meaning. ONNX Runtime's CUDA provider has kernels at opsets 18 to 21 that it lacks
from 22 on (:mod:`vogcore.graph.cuda`); on the CPU the opset makes no difference in time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping

import onnx_ir as ir
from onnx import defs

from vogcore.graph.shapes import rank

__all__ = ["lower_opset", "lowest_opset"]

_WIDENED: Mapping[str, frozenset[int]] = {
    op: frozenset(versions)
    for ops, versions in (
        (
            "Acos Acosh Asin Asinh Atan Atanh Bernoulli Conv ConvTranspose Cos Cosh Det Dropout Elu EyeLike GRU "
            "GlobalAveragePool GlobalLpPool GlobalMaxPool HardSigmoid HardSwish InstanceNormalization LSTM "
            "LpNormalization LpPool MaxPool MaxRoiPool MaxUnpool Mish Multinomial NegativeLogLikelihoodLoss RNN "
            "RandomNormal RandomNormalLike RandomUniform RandomUniformLike RoiAlign Round Selu Sin Sinh Softplus "
            "Softsign Tan ThresholdedRelu",
            (22,),
        ),
        ("BitShift Celu Compress DepthToSpace Einsum OneHot ReduceLogSum ReduceLogSumExp ReverseSequence", (28,)),
        ("CastLike Constant ConstantOfShape Flatten Identity If Loop Pad Reshape Scan Shape Size Squeeze "
         "Transpose Unsqueeze", (19, 20, 21, 23, 24, 25)),
        ("Cast", (19, 21, 23, 24, 25, 28)),
        ("SpaceToDepth", (28,)),
        ("AveragePool", (19, 22)),
        ("DequantizeLinear QuantizeLinear", (19, 21, 23, 24, 25, 28)),
        ("Equal Resize", (19,)),
        ("GridSample", (20, 22)),
        ("IsInf IsNaN ReduceMax ReduceMin", (20,)),
        ("Range", (27,)),
        ("SplitToSequence TopK", (24,)),
    )
    for op in ops.split()
}  # fmt: skip
"""Operator -> versions that only widened it: more element types, or attributes and modes that a node need not use."""

_NEUTRAL: Mapping[str, Callable[[ir.Attr], bool]] = {
    "dilations": lambda attribute: all(step == 1 for step in attribute.as_ints()),
    "saturate": lambda attribute: True,  # concerns types that the older version does not admit
    "round_mode": lambda attribute: True,  # likewise
    "stash_type": lambda attribute: True,  # of Range; the types that it concerns are checked below
    "block_size": lambda attribute: attribute.as_int() == 0,
    "output_dtype": lambda attribute: attribute.as_int() == 0,
    "precision": lambda attribute: attribute.as_int() == 0,
    "mode": lambda attribute: attribute.as_string() == "DCR",  # of SpaceToDepth
}
"""Attributes that an older version lacks -> when leaving them out changes nothing."""

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_RENAMED_MODES = {"linear": "bilinear", "cubic": "bicubic"}
"""GridSample's interpolation modes: name since 20 -> name before."""


def lower_opset(model: ir.Model, floor: int = 18) -> None:
    """Lower the default-domain opset of ``model`` in place to :func:`lowest_opset`."""
    target = lowest_opset(model, floor)
    if target == model.opset_imports.get(""):
        return
    for node in _default_nodes(model):
        allowed = _schema(node.op_type, target).attributes
        for name in [name for name in node.attributes if name not in allowed]:
            del node.attributes[name]
        if node.op_type == "GridSample" and target < 20 and "mode" in node.attributes:
            mode = node.attributes["mode"].as_string()
            node.attributes["mode"] = ir.AttrString("mode", _RENAMED_MODES.get(mode, mode))
        node.version = None
    model.opset_imports[""] = target


def lowest_opset(model: ir.Model, floor: int = 18, without: Collection[str] = ()) -> int:
    """The smallest opset from ``floor`` on, but none above the model's, at which its nodes mean the same.

    Args:
        model: with local functions inlined.
        floor: the smallest opset wanted.
        without: operators whose nodes are not counted.
    """
    opset = model.opset_imports.get("")
    if opset is None or opset <= floor:
        return opset if opset is not None else floor
    lowest = floor
    for node in _default_nodes(model):
        if node.op_type not in without:
            lowest = max(lowest, _lowest_version(node, opset, floor))
        if lowest >= opset:
            return opset
    return lowest


def _default_nodes(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph.all_nodes() if node.domain in ("", "ai.onnx")]


def _lowest_version(node: ir.Node, opset: int, floor: int) -> int:
    """Version of the oldest schema, not older than that of ``floor``, under which ``node`` means the same."""
    versions = [version for version in _versions(node.op_type) if version <= opset]
    if not versions:
        return opset  # not known here; leave it alone
    while len(versions) > 1 and versions[-1] > floor:
        newer, older = versions[-1], versions[-2]
        if newer not in _WIDENED.get(node.op_type, ()) or not _fits(node, _schema(node.op_type, older), newer):
            return newer
        versions.pop()
    return versions[-1]


def _fits(node: ir.Node, older: defs.OpSchema, newer: int) -> bool:
    """True when ``node``, of version ``newer``, can be written and means the same under the schema ``older``."""
    if older.deprecated or len(node.inputs) > older.max_input or len(node.outputs) > older.max_output:
        return False
    for name, attribute in node.attributes.items():
        if name not in older.attributes and not (name in _NEUTRAL and _NEUTRAL[name](attribute)):
            return False
    return _types_fit(node, older) and _meaning_fits(node, newer)


def _types_fit(node: ir.Node, older: defs.OpSchema) -> bool:
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in older.type_constraints}
    for values, formals in ((node.inputs, older.inputs), (node.outputs, older.outputs)):
        for index, value in enumerate(values):
            if value is None or not formals:
                continue
            formal = formals[min(index, len(formals) - 1)].type_str
            if not _admits(value, allowed.get(formal, (formal,))):
                return False
    return True


def _admits(value: ir.Value, types: Collection[str]) -> bool:
    """True when the type of ``value`` is among ``types``; one that is not known, only where every float is."""
    if value.type is None:
        return {"tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"} <= set(types)
    return _name(value.type) in types


def _name(kind: ir.TypeProtocol) -> str:
    """A type as schemas write it."""
    if isinstance(kind, ir.SequenceType):
        return f"seq({_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({_name(kind.elem_type)})"
    return f"tensor({kind.dtype.name.lower()})"


def _meaning_fits(node: ir.Node, newer: int) -> bool:
    """What types and attributes do not tell: modes, and numbers, that a version added."""
    attributes = node.attributes
    if node.op_type == "AveragePool" and newer == 19:
        # Before, windows that reach beyond the padding were averaged over their whole size.
        return not (_integer(attributes, "ceil_mode") and _integer(attributes, "count_include_pad"))
    if node.op_type == "GridSample" and newer == 20:
        return node.inputs[0] is not None and rank(node.inputs[0]) == 4
    if node.op_type == "Pad" and newer == 19:
        return _string(attributes, "mode") != "wrap"
    if node.op_type == "Resize" and newer == 19:
        return _string(attributes, "coordinate_transformation_mode") != "half_pixel_symmetric"
    if node.op_type == "Range" and newer == 27:
        return node.outputs[0].dtype is not None and node.outputs[0].dtype not in _HALF
    return True


def _integer(attributes: Mapping[str, ir.Attr], name: str) -> int:
    return attributes[name].as_int() if name in attributes else 0


def _string(attributes: Mapping[str, ir.Attr], name: str) -> str | None:
    return attributes[name].as_string() if name in attributes else None


@functools.cache
def _history() -> dict[str, list[int]]:
    history: dict[str, list[int]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema.since_version)
    return {name: sorted(versions) for name, versions in history.items()}


def _versions(op: str) -> list[int]:
    return _history().get(op, [])


@functools.cache
def _schema(op: str, opset: int) -> defs.OpSchema:
    return defs.get_schema(op, opset, "")
