"""A single-operator graph, and the numbers it is tried with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper


@dataclass
class Case:
    """One operator with its attributes and inputs."""

    op: str
    inputs: list[Any]
    """float64 arrays are differentiated; other arrays are constants of the graph; None is left out."""
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 18
    constants: tuple[int, ...] = ()
    """Positions of float64 inputs that are constants of the graph (weights)."""
    dynamic: bool = False
    """Leave the sizes of the inputs open."""
    label: str = ""
    of: int = 0
    """The output that is differentiated."""

    @property
    def id(self) -> str:
        shapes = "-".join("x".join(map(str, np.shape(a))) if a is not None else "none" for a in self.inputs)
        settings = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        output = f"output {self.of}" if self.of else ""
        parts = [self.op, self.label, output, shapes, settings, f"v{self.opset}", "dynamic" if self.dynamic else ""]
        return ":".join(part for part in parts if part)

    @property
    def wrt(self) -> list[int]:
        """Positions of the inputs that are differentiated."""
        return [
            i
            for i, a in enumerate(self.inputs)
            if isinstance(a, np.ndarray) and a.dtype == np.float64 and i not in self.constants
        ]

    def model(self) -> onnx.ModelProto:
        """The operator as a model; differentiated inputs are graph inputs, all else is constant."""
        names = ["" if a is None else f"in{i}" for i, a in enumerate(self.inputs)]
        outs = [f"out{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, outs, name=f"the_{self.op}", **self.attributes)
        sizes = {
            i: [None] * np.ndim(self.inputs[i]) if self.dynamic else list(np.shape(self.inputs[i])) for i in self.wrt
        }
        inputs = [helper.make_tensor_value_info(names[i], TensorProto.DOUBLE, sizes[i]) for i in self.wrt]
        fixed = [
            onnx.numpy_helper.from_array(np.asarray(a), names[i])
            for i, a in enumerate(self.inputs)
            if a is not None and i not in self.wrt
        ]
        graph = helper.make_graph([node], "case", inputs, [_untyped(outs[self.of])], fixed)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)


def _untyped(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.DOUBLE, None)


RNG = np.random.default_rng(20080821)


def normal(*shape: int) -> np.ndarray:
    """Values away from the kinks at 0, ±1, ±3 and from each other."""
    values = RNG.normal(size=shape)
    for kink in (-3.0, -1.0, 0.0, 0.5, 1.0, 3.0):
        values = np.where(np.abs(values - kink) < 0.02, values + 0.05, values)
    return np.asarray(values)


def positive(*shape: int) -> np.ndarray:
    return np.asarray(RNG.uniform(0.3, 2.5, size=shape))


def within(low: float, high: float, *shape: int) -> np.ndarray:
    return np.asarray(RNG.uniform(low, high, size=shape))


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)
