"""Activation functions of recurrent layers: the node that computes one, and its derivative from its value."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vogcore.autodiff.registry import Call
from vogcore.graph.emit import Emitter

__all__ = ["Activation", "activations"]

_ALPHA = {"affine": None, "elu": 1.0, "hardsigmoid": 0.2, "leakyrelu": 0.01, "scaledtanh": None, "thresholdedrelu": 1.0}
_BETA = {"affine": None, "hardsigmoid": 0.5, "scaledtanh": None}
"""Functions with a parameter, and its default: that of the operator of the same name. None: it has to be given."""

_PLAIN = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softsign": "Softsign", "softplus": "Softplus"}
_WITH_ALPHA = {"elu": "Elu", "leakyrelu": "LeakyRelu", "thresholdedrelu": "ThresholdedRelu"}


@dataclass(frozen=True)
class Activation:
    """One activation function with its parameters."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def value(self, emit: Emitter, x: ir.Value) -> ir.Value:
        """The function at ``x``."""
        name = self.name
        if name in _PLAIN:
            return emit.op(_PLAIN[name], x, like=x)
        if name in _WITH_ALPHA:
            return emit.op(_WITH_ALPHA[name], x, like=x, alpha=self.alpha)
        if name == "hardsigmoid":
            return emit.op("HardSigmoid", x, like=x, alpha=self.alpha, beta=self.beta)
        alpha, beta = emit.scalar(self.alpha, x), emit.scalar(self.beta, x)
        if name == "affine":
            return emit.op("Add", emit.op("Mul", x, alpha, like=x), beta, like=x)
        return emit.op("Mul", emit.op("Tanh", emit.op("Mul", x, beta, like=x), like=x), alpha, like=x)

    def slope(self, emit: Emitter, y: ir.Value) -> ir.Value:
        """The derivative where the function has the value ``y``."""

        def number(value: float) -> ir.Value:
            return emit.scalar(value, y)

        def op(name: str, *inputs: ir.Value) -> ir.Value:
            return emit.op(name, *inputs, like=y)

        name, one = self.name, number(1.0)
        if name == "sigmoid":
            return op("Sub", y, op("Mul", y, y))
        if name == "tanh":
            return op("Sub", one, op("Mul", y, y))
        if name == "scaledtanh":  # alpha beta (1 - tanh²)
            return op("Sub", number(self.alpha * self.beta), op("Mul", op("Mul", y, y), number(self.beta / self.alpha)))
        if name in ("relu", "thresholdedrelu"):
            return emit.cast(_like(emit.compare("Greater", y, number(0.0)), y), y.dtype or ir.DataType.FLOAT)
        if name == "leakyrelu":
            return emit.select(_like(emit.compare("Greater", y, number(0.0)), y), one, number(self.alpha), like=y)
        if name == "elu":
            return emit.select(
                _like(emit.compare("Greater", y, number(0.0)), y), one, op("Add", y, number(self.alpha)), like=y
            )
        if name == "hardsigmoid":
            inside = emit.typed(
                ir.DataType.BOOL, "And", emit.compare("Greater", y, number(0.0)), emit.compare("Less", y, one)
            )
            return emit.select(_like(inside, y), number(self.alpha), number(0.0), like=y)
        if name == "softsign":  # 1 / (1 + |x|)², and 1 - |y| = 1 / (1 + |x|)
            root = op("Sub", one, op("Abs", y))
            return op("Mul", root, root)
        if name == "softplus":  # sigmoid(x) = 1 - exp(-softplus(x))
            return op("Sub", one, op("Exp", op("Neg", y)))
        return emit.expand_like(number(self.alpha), y)  # affine


def _like(value: ir.Value, other: ir.Value) -> ir.Value:
    value.shape = other.shape
    return value


def activations(call: Call, default: list[str], directions: int) -> list[list[Activation]]:
    """The functions of each direction, in the order of the operator's attribute ``activations``."""
    names = [name.lower() for name in call.attribute("activations", default * directions)]
    if len(names) != len(default) * directions:
        raise call.unsupported(f"its attribute activations has {len(names)} entries, not {len(default) * directions}")
    alphas, betas = iter(call.attribute("activation_alpha", [])), iter(call.attribute("activation_beta", []))
    result = []
    for name in names:
        if name not in {*_PLAIN, *_ALPHA}:
            raise call.unsupported(f"the derivative of its activation {name!r} is not known")
        # Only functions that have the parameter take one of the list.
        alpha = next(alphas, _ALPHA[name]) if name in _ALPHA else 0.0
        beta = next(betas, _BETA[name]) if name in _BETA else 0.0
        if alpha is None or beta is None:
            raise call.unsupported(f"the parameters of its activation {name!r} are not given")
        if (name in ("elu", "leakyrelu", "scaledtanh") and alpha <= 0) or (name == "thresholdedrelu" and alpha < 0):
            raise call.unsupported(f"its activation {name!r} has alpha {alpha}, and only positive ones are covered")
        result.append(Activation(name, float(alpha), float(beta)))
    return [result[i * len(default) : (i + 1) * len(default)] for i in range(directions)]
