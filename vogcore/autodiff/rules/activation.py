"""Activations of one input. At kinks the convention is torch's; formulas from the ONNX operator specification."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.graph.gelu import become_product, normal_cdf, tanh_factor

FLOAT32_MAX = float(np.finfo(np.float32).max)
# Defaults of the ONNX specification, spelled out there to more digits than float32 holds.
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


@rule("Relu")
def relu(call: Call) -> Cotangents:
    """y = max(x, 0): dx = dy where y > 0; zero at the kink."""
    emit, y = call.emit, call.y
    if y.dtype == ir.DataType.FLOAT:
        # min(1, y * 3.4e38) is 1 for every normal y > 0 and 0 at 0. Unlike Where it is threaded and keeps the blocked
        # channel layout of the CPU provider (docs/decisions.md, 6).
        return [emit.op("Mul", call.dy, emit.op("HardSigmoid", y, alpha=FLOAT32_MAX, beta=0.0))]
    return [emit.masked(emit.compare("Greater", y, emit.scalar(0.0, y)), call.dy)]


@rule("LeakyRelu")
def leaky_relu(call: Call) -> Cotangents:
    """y = x or alpha x: dx = dy where x > 0, else alpha dy."""
    emit = call.emit
    slope = emit.scalar(call.attribute("alpha", 0.01), call.dy)
    positive = emit.compare("Greater", call.x, emit.scalar(0.0, call.x))
    return [emit.select(positive, call.dy, emit.op("Mul", call.dy, slope), like=call.dy)]


@rule("ThresholdedRelu")
def thresholded_relu(call: Call) -> Cotangents:
    """y = x where x > alpha, else 0: dx = dy where x > alpha."""
    emit = call.emit
    return [emit.masked(emit.compare("Greater", call.x, emit.scalar(call.attribute("alpha", 1.0), call.x)), call.dy)]


@rule("Elu")
def elu(call: Call) -> Cotangents:
    """y = alpha (exp x - 1) for x <= 0: dx = dy (y + alpha) there, dy elsewhere."""
    emit = call.emit
    slope = emit.op("Add", call.y, emit.scalar(call.attribute("alpha", 1.0), call.y))
    positive = emit.compare("Greater", call.x, emit.scalar(0.0, call.x))
    return [emit.select(positive, call.dy, emit.op("Mul", call.dy, slope), like=call.dy)]


@rule("Selu")
def selu(call: Call) -> Cotangents:
    """y = gamma x for x > 0, else gamma alpha (exp x - 1): dx = gamma dy, else dy (y + gamma alpha)."""
    emit = call.emit
    alpha, gamma = call.attribute("alpha", SELU_ALPHA), call.attribute("gamma", SELU_GAMMA)
    positive = emit.compare("Greater", call.x, emit.scalar(0.0, call.x))
    slope = emit.op("Add", call.y, emit.scalar(gamma * alpha, call.y))
    factor = emit.select(positive, emit.scalar(gamma, call.y), slope, like=call.y)
    return [emit.op("Mul", call.dy, factor)]


@rule("Celu")
def celu(call: Call) -> Cotangents:
    """y = alpha (exp(x / alpha) - 1) for x <= 0: dx = dy (y / alpha + 1) there, dy elsewhere."""
    emit = call.emit
    scaled = emit.op("Div", call.y, emit.scalar(call.attribute("alpha", 1.0), call.y))
    slope = emit.op("Add", scaled, emit.scalar(1.0, call.y))
    positive = emit.compare("Greater", call.x, emit.scalar(0.0, call.x))
    return [emit.select(positive, call.dy, emit.op("Mul", call.dy, slope), like=call.dy)]


@rule("PRelu", broadcasts=True)
def prelu(call: Call) -> Cotangents:
    """y = x or slope x: dx = dy or slope dy; dslope = x dy where x <= 0."""
    emit, x, slope = call.emit, call.x, call.input(1)
    positive = emit.compare("Greater", x, emit.scalar(0.0, x))
    dx = emit.select(positive, call.dy, emit.op("Mul", call.dy, slope), like=call.dy)
    dslope = None
    if call.wanted[1]:
        dslope = emit.select(positive, emit.scalar(0.0, x), emit.op("Mul", call.dy, x), like=call.dy)
    return [dx, dslope]


@rule("Clip")
def clip(call: Call) -> Cotangents:
    """y = min(max(x, low), high): dx = dy where low <= x <= high, for torch.clamp keeps the gradient at the bounds.

    torch.relu6, which is exported as a Clip to (0, 6), drops it there: 0 is common in front of it.
    """
    emit, x, result = call.emit, call.x, call.dy
    bounds = [None if (known := call.known(i)) is None else float(known.reshape(-1)[0]) for i in (1, 2)]
    strict = bounds == [0.0, 6.0]
    for index, op in ((1, "Greater" if strict else "GreaterOrEqual"), (2, "Less" if strict else "LessOrEqual")):
        bound = call.optional(index)
        if bound is not None:
            result = emit.masked(emit.compare(op, x, bound), result)
    return [result]


@rule("Sigmoid")
def sigmoid(call: Call) -> Cotangents:
    """dx = dy y (1 - y)."""
    emit, y = call.emit, call.y
    slope = emit.op("Mul", y, emit.op("Sub", emit.scalar(1.0, y), y))
    return [emit.op("Mul", call.dy, slope)]


@rule("HardSigmoid")
def hard_sigmoid(call: Call) -> Cotangents:
    """y = clip(alpha x + beta, 0, 1): dx = alpha dy strictly between the bounds."""
    emit, y = call.emit, call.y
    above = emit.compare("Greater", y, emit.scalar(0.0, y))
    below = emit.compare("Less", y, emit.scalar(1.0, y))
    inside = emit.typed(ir.DataType.BOOL, "And", above, below)
    return [emit.masked(inside, emit.op("Mul", call.dy, emit.scalar(call.attribute("alpha", 0.2), y)))]


@rule("HardSwish")
def hard_swish(call: Call) -> Cotangents:
    """y = x clip(x/6 + 1/2, 0, 1): dy (x/3 + 1/2) for -3 < x < 3, 0 below, dy above."""
    emit, x = call.emit, call.x
    slope = emit.op("Add", emit.op("Div", x, emit.scalar(3.0, x)), emit.scalar(0.5, x))
    upper = emit.compare("GreaterOrEqual", x, emit.scalar(3.0, x))
    lower = emit.compare("LessOrEqual", x, emit.scalar(-3.0, x))
    inner = emit.select(lower, emit.scalar(0.0, x), slope, like=x)
    return [emit.op("Mul", call.dy, emit.select(upper, emit.scalar(1.0, x), inner, like=x))]


@rule("Tanh")
def tanh(call: Call) -> Cotangents:
    """dx = dy (1 - y²)."""
    emit, y = call.emit, call.y
    return [emit.op("Mul", call.dy, emit.op("Sub", emit.scalar(1.0, y), emit.op("Mul", y, y)))]


@rule("Softplus")
def softplus(call: Call) -> Cotangents:
    """y = log(1 + exp x): dx = dy sigmoid(x)."""
    return [call.emit.op("Mul", call.dy, call.emit.op("Sigmoid", call.x))]


@rule("Softsign")
def softsign(call: Call) -> Cotangents:
    """y = x / (1 + |x|): dx = dy / (1 + |x|)²."""
    emit, x = call.emit, call.x
    bottom = emit.op("Add", emit.op("Abs", x), emit.scalar(1.0, x))
    return [emit.op("Div", call.dy, emit.op("Mul", bottom, bottom))]


@rule("Mish")
def mish(call: Call) -> Cotangents:
    """y = x t, t = tanh(softplus x): dx = dy (t + x sigmoid(x) (1 - t²))."""
    emit, x = call.emit, call.x
    t = emit.op("Tanh", emit.op("Softplus", x))
    inner = emit.op("Sub", emit.scalar(1.0, x), emit.op("Mul", t, t))
    slope = emit.op("Add", t, emit.op("Mul", emit.op("Mul", x, emit.op("Sigmoid", x)), inner))
    return [emit.op("Mul", call.dy, slope)]


@rule("Swish")
def swish(call: Call) -> Cotangents:
    """y = x s, s = sigmoid(alpha x): dx = dy (s + alpha y (1 - s))."""
    emit, x = call.emit, call.x
    alpha = emit.scalar(call.attribute("alpha", 1.0), x)
    s = emit.op("Sigmoid", emit.op("Mul", x, alpha))
    rest = emit.op("Mul", emit.op("Mul", call.y, alpha), emit.op("Sub", emit.scalar(1.0, x), s))
    return [emit.op("Mul", call.dy, emit.op("Add", s, rest))]


@rule("Gelu")
def gelu(call: Call) -> Cotangents:
    """y = x Phi(x): dx = dy (Phi(x) + x phi(x)); or the tanh approximation (Hendrycks & Gimpel 2016, eq. 2).

    Forward and backward pass share Phi(x): the node becomes the product of x with it.
    """
    emit, node, x = call.emit, call.node, call.x
    if call.attribute("approximate", "none") == "tanh":
        with emit.before(node):
            t, factor = tanh_factor(emit, x)
        # d/dx (1 + t)/2 = (1 - t²)/2 sqrt(2/pi) (1 + 3 * 0.044715 x²)
        c, k = math.sqrt(2 / math.pi), 0.044715
        inner = emit.op("Mul", emit.op("Mul", x, x), emit.scalar(1.5 * c * k, x))
        inner = emit.op("Add", inner, emit.scalar(0.5 * c, x))
        change = emit.op("Mul", emit.op("Sub", emit.scalar(1.0, x), emit.op("Mul", t, t)), inner)
    else:
        with emit.before(node):
            u, factor = normal_cdf(emit, x)
        # phi(x) = exp(-u² - log sqrt(2 pi)), u = x / sqrt 2
        height = emit.scalar(-0.5 * math.log(2 * math.pi), x)
        change = emit.op("Exp", emit.op("Sub", height, emit.op("Mul", u, u), like=x))
    become_product(node, x, factor)
    return [emit.op("Mul", call.dy, emit.op("Add", factor, emit.op("Mul", x, change)))]


@rule("Softmax")
def softmax(call: Call) -> Cotangents:
    """dx = y dy - y sum(y dy) along the axis."""
    emit, y = call.emit, call.y
    product = emit.op("Mul", call.dy, y)
    total = emit.op("ReduceSum", product, emit.ints(call.attribute("axis", -1)), keepdims=1)
    return [emit.op("Sub", product, emit.op("Mul", y, total))]


@rule("LogSoftmax")
def log_softmax(call: Call) -> Cotangents:
    """dx = dy - exp(y) sum(dy) along the axis."""
    emit = call.emit
    total = emit.op("ReduceSum", call.dy, emit.ints(call.attribute("axis", -1)), keepdims=1)
    return [emit.op("Sub", call.dy, emit.op("Mul", emit.op("Exp", call.y), total))]


@rule("Shrink")
def shrink(call: Call) -> Cotangents:
    """y = x + bias below -lambd, x - bias above lambd, else 0: dx = dy outside, zero in between (torch.hardshrink)."""
    emit = call.emit
    bound = emit.scalar(call.attribute("lambd", 0.5), call.x)
    outside = emit.typed(
        ir.DataType.BOOL,
        "Or",
        emit.compare("Greater", call.x, bound),
        emit.compare("Less", call.x, emit.op("Neg", bound)),
    )
    return [emit.masked(outside, call.dy)]


@rule("SwiGLU")
def swiglu(call: Call) -> Cotangents:
    """y = a s b, s = sigmoid(alpha a): da = dy b s (1 + alpha a (1 - s)), db = dy a s."""
    emit, a, b = call.emit, call.input(0), call.input(1)
    scaled = emit.op("Mul", a, emit.scalar(call.attribute("alpha", 1.0), a))
    s = emit.op("Sigmoid", scaled)
    one = emit.scalar(1.0, a)
    bend = emit.op("Add", one, emit.op("Mul", scaled, emit.op("Sub", one, s)))
    weighted = emit.op("Mul", call.dy, s)
    return [emit.op("Mul", emit.op("Mul", weighted, b), bend), emit.op("Mul", weighted, a)]
