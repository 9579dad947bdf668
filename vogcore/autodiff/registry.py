"""The table of gradient rules.

An operator is in one of three states, which must not be confused: it has a *rule*; it has *no gradient* (its output
is integer, boolean, or piecewise constant, so the derivative is zero wherever it exists); or it is *unknown*, which
is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx_ir as ir

from vogcore.errors import UnsupportedOpError
from vogcore.graph.emit import Emitter
from vogcore.graph.prepare import node_name
from vogcore.graph.shapes import bodies, constant, is_float, rank

__all__ = [
    "EXPLAINED",
    "NO_GRADIENT",
    "RULES",
    "STRAIGHT_THROUGH",
    "Call",
    "Deferred",
    "Options",
    "Rule",
    "inputs_with_gradient",
    "outputs_with_gradient",
    "qualified_name",
    "read_by_bodies",
    "rule",
]


class Deferred(Protocol):
    """A cotangent that is cheaper to add up in another form; the engine asks for its value when all uses are known."""

    def plus(self, emit: Emitter, other: object) -> Deferred | None:
        """The sum with another deferred cotangent of the same value; None where the two do not fit."""
        ...

    def value(self, emit: Emitter) -> ir.Value:
        """The cotangent as a tensor."""
        ...


Cotangents: TypeAlias = "Sequence[ir.Value | Deferred | None]"


@dataclass(frozen=True)
class Options:
    """Choices that a rule may depend on."""

    lowering: str = "cpu"
    """Which formulation rules emit where they have several: "cpu" or "cuda", the provider that it is fast on."""
    straight_through: bool = False
    """Let gradients pass through rounding to integers (QuantizeLinear) as if it were not there."""
    averaged: ir.Value | None = None
    """An image (N, C, ...) with one use, whose cotangent may be given averaged over the channels, (N, 1, ...)."""


@dataclass
class Call:
    """One node of the forward graph, as its gradient rule sees it."""

    node: ir.Node
    emit: Emitter
    cotangents: tuple[ir.Value | None, ...]
    """Cotangent of every output; None where nothing downstream depends on that output."""
    wanted: tuple[bool, ...]
    """For every input: does its cotangent have to be computed?"""
    options: Options = Options()
    captured: dict[ir.Value, ir.Value | None] = field(default_factory=dict)
    """Values from outside that the node's branches or loop body read and whose cotangents have to be computed. The
    rule puts the cotangents in; None is left where no output depends on the value."""

    @property
    def dy(self) -> ir.Value:
        """Cotangent of the first output."""
        if self.cotangents[0] is None:
            raise self.unsupported("only a secondary output of it is used")
        return self.cotangents[0]

    @property
    def x(self) -> ir.Value:
        """First input."""
        return self.input(0)

    @property
    def y(self) -> ir.Value:
        """First output."""
        return self.node.outputs[0]

    def input(self, index: int) -> ir.Value:
        """Input ``index``, which the operator requires."""
        value = self.node.inputs[index]
        if value is None:
            raise self.unsupported(f"its input {index} is missing")
        return value

    def optional(self, index: int) -> ir.Value | None:
        """Input ``index``, or None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def known(self, index: int) -> np.ndarray | None:
        """Content of input ``index`` where it is a constant."""
        return constant(self.optional(index))

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute as a plain Python object."""
        attribute = self.node.attributes.get(name)
        if attribute is None:
            return default
        value = attribute.value
        return list(value) if isinstance(value, tuple | list) else value

    def rank_of(self, value: ir.Value) -> int:
        """Rank of ``value``, which the rule cannot do without."""
        known = rank(value)
        if known is None:
            raise self.unsupported(f"the rank of {value.name!r} is not known; run ONNX shape inference on the model")
        return known

    def unsupported(self, why: str) -> UnsupportedOpError:
        """The error for a use of the operator that its rule does not cover."""
        op, name = qualified_name(self.node), node_name(self.node)
        return UnsupportedOpError(f"{op} node {name!r} cannot be differentiated: {why}.", op=op, node=name)


RuleFunction: TypeAlias = Callable[[Call], Cotangents]


@dataclass(frozen=True)
class Rule:
    """How an operator passes cotangents from its outputs to its inputs."""

    function: RuleFunction
    broadcasts: bool
    """The cotangents that the function returns have the shape of the output; the engine sums them over the axes
    along which the input was broadcast."""
    all_outputs: bool
    """The function reads the cotangents of all outputs; otherwise a use of a second floating-point output on the path
    is refused."""
    traces: bool = False
    """The function itself finds out which inputs the outputs depend on: None for a wanted input means that no output
    with a cotangent does. (Otherwise it would be an input that the rule does not cover.)"""


RULES: dict[str, Rule] = {}
"""Operator name (with its domain in front where that is not the default one) -> rule."""

NO_GRADIENT: frozenset[str] = frozenset(
    {
        "And", "ArgMax", "ArgMin", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
        "BlackmanWindow", "Ceil", "Constant", "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater",
        "GreaterOrEqual", "HammingWindow", "HannWindow", "Hardmax", "IsInf", "IsNaN", "Less", "LessOrEqual",
        "MelWeightMatrix", "Multinomial", "NonZero", "Not", "Or", "RandomNormal", "RandomNormalLike",
        "RandomUniform", "RandomUniformLike", "Round", "Shape", "Sign", "Size", "Xor",
        "ai.onnx.ml.Binarizer", "ai.onnx.ml.CategoryMapper", "ai.onnx.ml.LabelEncoder", "ai.onnx.ml.OneHotEncoder",
    }
)  # fmt: skip
"""Operators whose output does not change with a small change of a floating-point input."""


_FROM_SHAPE_OR_TYPE = {"CastLike": 1, "Dropout": 1}
"""Operators with an input from this position on that may be floating-point, but never changes the output's values:
the type to cast to, the ratio of a Dropout in evaluation mode."""

STRAIGHT_THROUGH = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
"""Operators whose first output, an integer, still stands for the real numbers that went in. Their derivative is zero,
but taking it so would lose the whole model behind them without a word; a gradient through them has to be asked for."""

_TREES = "the gradient of a tree ensemble is zero everywhere, so there is nothing to score"
_SVM = "only its decision values are covered; export it without probabilities, and a one-class machine not at all"
_LINEAR = "post_transform PROBIT and a classifier without intercepts are not covered"
_QUANTISED = "it works on quantised integers; quantise the model in the QDQ format instead (QuantFormat.QDQ)"
EXPLAINED = {
    "ai.onnx.ml.LinearClassifier": _LINEAR,
    "ai.onnx.ml.LinearRegressor": _LINEAR,
    "ai.onnx.ml.SVMClassifier": _SVM,
    "ai.onnx.ml.SVMRegressor": _SVM,
    "ai.onnx.ml.TreeEnsemble": _TREES,
    "ai.onnx.ml.TreeEnsembleClassifier": _TREES,
    "ai.onnx.ml.TreeEnsembleRegressor": _TREES,
    **{
        f"com.microsoft.{op}": _QUANTISED
        for op in (
            "MatMulIntegerToFloat", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat",
            "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean", "QLinearSigmoid",
            "QLinearSoftmax", "QLinearWhere",
        )
    },
}  # fmt: skip
"""Why an operator has no rule, where there is more to say than that. Operators of ai.onnx.ml that can be written in the
default domain have been by now (:mod:`vogcore.graph.ml`)."""


def rule(
    *ops: str, broadcasts: bool = False, all_outputs: bool = False, traces: bool = False
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a function as the rule of one or more operators."""

    def register(function: RuleFunction) -> RuleFunction:
        for op in ops:
            if op in RULES or op in NO_GRADIENT:
                raise ValueError(f"{op} is registered already")
            RULES[op] = Rule(function, broadcasts, all_outputs, traces)
        return function

    return register


def qualified_name(node: ir.Node) -> str:
    """Operator name, with the domain in front where it is not the default one."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def inputs_with_gradient(node: ir.Node) -> Iterator[ir.Value]:
    """Values that the output may depend on differentiably: the inputs, and what a branch or loop body reads."""
    stop = _FROM_SHAPE_OR_TYPE.get(qualified_name(node))
    yield from (value for value in node.inputs[:stop] if value is not None)
    yield from read_by_bodies(node)


def read_by_bodies(node: ir.Node) -> Iterator[ir.Value]:
    """Values that the branches or the loop body of ``node`` may depend on differentiably, their own ones among them."""
    for graph in bodies(node):
        yield from graph.outputs  # a branch may hand an outer value straight on
        for inner in graph:
            if any(True for _ in outputs_with_gradient(inner)):
                yield from inputs_with_gradient(inner)


def outputs_with_gradient(node: ir.Node) -> Iterator[ir.Value]:
    """Outputs that pass a small change of a floating-point input on."""
    name = qualified_name(node)
    if name in STRAIGHT_THROUGH:  # of the scale and zero point of DynamicQuantizeLinear there is none
        yield node.outputs[0]
    elif name not in NO_GRADIENT or name in RULES:  # a rule of the user's own may replace "no gradient"
        yield from (v for v in node.outputs if v.type is None or is_float(v))
