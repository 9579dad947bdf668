"""Operators that act on each element, and those that run along one axis."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from onnx import numpy_helper
from torch.nn import functional

from benchmarks.zoo.interpreter.node import Node

__all__ = ["OPERATORS"]


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Node], torch.Tensor]:
    return lambda node: function(node[0])


def _fold(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[Node], torch.Tensor]:
    return lambda node: functools.reduce(function, [value for value in node.inputs if value is not None])


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[Node], torch.Tensor]:
    def apply(node: Node) -> torch.Tensor:
        left, right = node[0], node[1]
        if node.opset < 7 and node.attribute("broadcast", 0) and "axis" in node._attributes:
            # Until opset 6 the second operand lay at `axis` of the first.
            right = right.reshape([*right.shape, *[1] * (left.ndim - node.attribute("axis") - right.ndim)])
        return function(left, right)

    return apply


def _divide(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    if left.is_floating_point():
        return left / right
    return torch.div(left, right, rounding_mode="trunc")


def _clip(node: Node) -> torch.Tensor:
    low, high = node.attribute("min", node.optional(1)), node.attribute("max", node.optional(2))
    return node[0] if low is None and high is None else torch.clamp(node[0], low, high)


def _softmax(function: Callable[..., torch.Tensor]) -> Callable[[Node], torch.Tensor]:
    def apply(node: Node) -> torch.Tensor:
        x = node[0]
        if node.opset >= 13:
            return function(x, node.attribute("axis", -1))
        axis = node.attribute("axis", 1) % x.ndim  # all axes from this one on are one
        rows = x.reshape([int(np.prod(x.shape[:axis])), -1])
        return function(rows, 1).reshape(x.shape)

    return apply


def _gelu(node: Node) -> torch.Tensor:
    return functional.gelu(node[0], approximate=node.attribute("approximate", "none"))


def _selu(node: Node) -> torch.Tensor:
    alpha, gamma = (
        node.attribute("alpha", 1.67326319217681884765625),
        node.attribute("gamma", 1.05070102214813232421875),
    )
    return gamma * functional.elu(node[0], alpha)


def _prelu(node: Node) -> torch.Tensor:
    x, slope = node[0], node[1]
    if node.opset < 7 and slope.ndim == 1 and slope.numel() > 1:
        slope = slope.reshape([-1, *[1] * (x.ndim - 2)])  # until opset 6: one for each channel
    return torch.where(x > 0, x, slope * x)


def _shrink(node: Node) -> torch.Tensor:
    x, edge, bias = node[0], node.attribute("lambd", 0.5), node.attribute("bias", 0.0)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, torch.zeros_like(x)))


def _hard_sigmoid(node: Node) -> torch.Tensor:
    return torch.clamp(node.attribute("alpha", 0.2) * node[0] + node.attribute("beta", 0.5), 0, 1)


def _cast(node: Node) -> torch.Tensor:
    floating = node.attribute("to") in (1, 10, 11, 16)
    return node[0].to(node.dtype) if floating else node[0].to(torch.bool if node.attribute("to") == 9 else torch.int64)


def _constant(node: Node) -> torch.Tensor:
    (value,) = node._attributes.values()
    array = np.array(numpy_helper.to_array(value) if hasattr(value, "data_type") else value)
    tensor = torch.from_numpy(array)
    return tensor.to(node.dtype) if tensor.is_floating_point() else tensor


def _leaky(node: Node) -> torch.Tensor:
    return functional.leaky_relu(node[0], node.attribute("alpha", 0.01))


OPERATORS: dict[str, Callable[[Node], torch.Tensor]] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Cast": _cast,
    "Ceil": _unary(torch.ceil),
    "Clip": _clip,
    "Constant": _constant,
    "Div": _binary(_divide),
    "Dropout": _unary(lambda x: x),
    "Elu": lambda node: functional.elu(node[0], node.attribute("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "LeakyRelu": _leaky,
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Max": _fold(torch.maximum),
    "Mean": lambda node: sum(node.inputs) / len(node.inputs),  # type: ignore[arg-type,operator]
    "Min": _fold(torch.minimum),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Softmax": _softmax(torch.softmax),
    "Softplus": _unary(lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "Softsign": _unary(functional.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _fold(torch.add),
    "Tanh": _unary(torch.tanh),
    "Where": lambda node: torch.where(node[0], node[1], node[2]),
}
