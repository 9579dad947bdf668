"""Models to be checked: a network with one kink, one with many, a text classifier, one with unknown operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.graph.models import FLOAT, INT64, build, node, random, value

X, Z = value("x", ["N", 20]), value("z", ["N", 5])
WEIGHTS = {"w1": random(20, 64) / 4, "b1": random(64), "w2": random(64, 5, seed=1) / 8}
DOMAIN = "com.example"


def mlp(activation: str = "Relu", softmax: bool = False, batch: int | str = "N") -> onnx.ModelProto:
    nodes = [node("Gemm", "x w1 b1", "a", name="first"), node(activation, "a", "h"),
             node("MatMul", "h w2", "z", name="last")]  # fmt: skip
    if softmax:
        nodes.append(node("Softmax", "z", "p", axis=-1))
    return build(nodes, [value("x", [batch, 20])], [value("p" if softmax else "z", [batch, 5])], WEIGHTS)


def cnn(*, batch: int | str = "N", size: int | str = "S") -> onnx.ModelProto:
    """Many kinks: two ReLUs and a max-pooling."""
    return build(
        [
            node("Conv", "x k1", "c1", name="conv 1", pads=[1] * 4),
            node("Relu", "c1", "r1", name="relu 1"),
            node("MaxPool", "r1", "m", kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", "m k2", "c2", name="conv 2", pads=[1] * 4),
            node("Relu", "c2", "r2", name="relu 2"),
            node("GlobalAveragePool", "r2", "g"),
            node("Flatten", "g", "f"),
            node("MatMul", "f w", "z"),
        ],
        [value("x", [batch, 3, size, size])],
        [value("z", [batch, 5])],
        {"k1": random(8, 3, 3, 3) / 5, "k2": random(16, 8, 3, 3) / 8, "w": random(16, 5) / 4},
    )


def text() -> onnx.ModelProto:
    """Token ids and a mask, both integers."""
    return build(
        [
            node("Cast", "mask", "kept", name="to float", to=FLOAT),
            node("Unsqueeze", "kept last", "wide"),
            node("Gather", "table ids", "embedded"),
            node("Mul", "embedded wide", "m"),
            node("ReduceMean", "m one", "pooled", keepdims=0),
            node("MatMul", "pooled w", "z"),
        ],
        [value("ids", ["N", "L"], INT64), value("mask", ["N", "L"], INT64)],
        [value("z", ["N", 5])],
        {"table": random(7, 6), "w": random(6, 5), "last": np.asarray([2]), "one": np.asarray([1])},
    )


def unknown() -> onnx.ModelProto:
    return build(
        [
            node("MatMul", "x w1", "a", name="first"),
            helper.make_node("Odd", ["a"], ["b"], "odd 1", domain=DOMAIN),
            node("Relu", "b", "c"),
            helper.make_node("Odd", ["c"], ["d"], "odd 2", domain=DOMAIN),
            helper.make_node("Strange", ["d"], ["e"], "strange", domain=DOMAIN),
            node("MatMul", "e w2", "z", name="last"),
        ],
        [X], [Z], WEIGHTS, domains=[DOMAIN],
    )  # fmt: skip
