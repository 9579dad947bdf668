"""Small models for the tests of the graph layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, DOUBLE, INT64, BOOL = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL


def value(name: str, shape: Sequence[int | str | None] | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def node(op: str, inputs: str, outputs: str, *, name: str = "", **attributes: Any) -> onnx.NodeProto:
    """A node named after its operator; names of inputs and outputs separated by blanks, "_" for one left out."""
    names = ["" if word == "_" else word for word in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=name or f"the_{op}", **attributes)


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    ir_version: int = 8,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), tensors)
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=list(functions))
    onnx.checker.check_model(model)
    return model


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def linear(batch: int | str = "N") -> onnx.ModelProto:
    """x (batch, 4) -> z (batch, 3)."""
    return build(
        [node("Gemm", "x w b", "z")],
        [value("x", [batch, 4])],
        [value("z", [batch, 3])],
        {"w": random(4, 3), "b": random(3)},
    )
