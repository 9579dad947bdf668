"""One table of single-operator graphs: every gradient rule has at least one entry here (test_rules.py insists)."""

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

    @property
    def id(self) -> str:
        shapes = "-".join("x".join(map(str, np.shape(a))) if a is not None else "none" for a in self.inputs)
        settings = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        parts = [self.op, self.label, shapes, settings, f"v{self.opset}", "dynamic" if self.dynamic else ""]
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
        graph = helper.make_graph([node], "case", inputs, [_untyped(outs[0])], fixed)
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


def _unary() -> list[Case]:
    cases = [
        Case(op, [normal(2, 3, 4)])
        for op in (
            "Relu",
            "Sigmoid",
            "Tanh",
            "Softplus",
            "Softsign",
            "Neg",
            "Abs",
            "Exp",
            "Erf",
            "Sin",
            "Cos",
            "Sinh",
            "Cosh",
            "Atan",
            "Asinh",
            "Identity",
            "HardSwish",
            "LeakyRelu",
            "ThresholdedRelu",
            "Elu",
            "Selu",
            "Celu",
            "HardSigmoid",
            "Mish",
        )
    ]
    cases += [Case("Relu", [normal(2, 3)], dynamic=True)]
    cases += [Case(op, [positive(2, 3)]) for op in ("Log", "Sqrt", "Reciprocal")]
    cases += [Case("Reciprocal", [-positive(3)]), Case("Tan", [within(-1, 1, 5)])]
    cases += [Case(op, [within(-0.9, 0.9, 2, 3)]) for op in ("Asin", "Acos", "Atanh")]
    cases += [Case("Acosh", [within(1.2, 3, 4)])]
    cases += [
        Case("LeakyRelu", [normal(6)], {"alpha": 0.3}),
        Case("ThresholdedRelu", [normal(6)], {"alpha": 0.5}),
        Case("Elu", [normal(6)], {"alpha": 0.7}),
        Case("Selu", [normal(6)], {"alpha": 1.3, "gamma": 0.8}),
        Case("Celu", [normal(6)], {"alpha": 0.6}),
        Case("HardSigmoid", [normal(6)], {"alpha": 0.4, "beta": 0.3}),
        Case("Gelu", [normal(2, 5)], opset=20),
        Case("Gelu", [normal(2, 5)], {"approximate": "tanh"}, opset=20),
        Case("Swish", [normal(2, 5)], opset=24),
        Case("Swish", [normal(2, 5)], {"alpha": 1.5}, opset=24),
        Case("Cast", [normal(4)], {"to": TensorProto.DOUBLE}),
        Case("CastLike", [normal(4), np.zeros(1)], constants=(1,), opset=19),
        Case("Dropout", [normal(4), np.asarray(0.5)], constants=(1,), opset=18),
        Case("Dropout", [normal(4), np.asarray(0.5), np.asarray(False)], constants=(1,), opset=18),
        Case("Clip", [normal(8), np.asarray(-0.7), np.asarray(0.7)], constants=(1, 2)),
        Case("Clip", [normal(8), None, np.asarray(0.7)], constants=(2,)),
        Case("Clip", [normal(8), np.asarray(0.1)], constants=(1,)),
        Case("Clip", [normal(8)]),
    ]
    for op in ("Softmax", "LogSoftmax"):
        cases += [
            Case(op, [normal(2, 4)]),
            Case(op, [normal(2, 4, 3)], {"axis": 1}),
            Case(op, [normal(2, 4, 3)], {"axis": -2}),
        ]
    return cases


def _binary() -> list[Case]:
    cases: list[Case] = []
    shapes = [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1, 4), (3, 1)), ((), (2, 2)), ((1, 1), (4, 5)), ((3, 1), (1, 3))]
    for a, b in shapes:
        for op in ("Add", "Sub", "Mul"):
            cases.append(Case(op, [normal(*a), normal(*b)]))
        cases.append(Case("Div", [normal(*a), positive(*b)]))
        cases.append(Case("Pow", [positive(*a), normal(*b)]))
        cases += [Case(op, [normal(*a), normal(*b)]) for op in ("Max", "Min")]
        cases.append(Case("PRelu", [normal(2, 3, 4), normal(3, 1)]))
        cases.append(Case("Where", [np.asarray(RNG.random(np.broadcast_shapes(a, b)) < 0.5), normal(*a), normal(*b)]))
    for op in ("Add", "Mul", "Div", "Sub", "Max"):
        cases.append(Case(op, [normal(2, 1, 4), positive(3, 1)], dynamic=True))
    cases += [
        Case("Mul", [normal(2, 3), normal(3)], constants=(1,)),
        Case("Div", [normal(3), positive(2, 3)], constants=(0,)),
        Case("Pow", [normal(5), np.asarray(2.0)], constants=(1,)),
        Case("Pow", [normal(5), np.asarray(3.0)], constants=(1,)),
        Case("Pow", [positive(5), np.asarray([0.5])], constants=(1,)),
        Case("Pow", [positive(2, 3), np.asarray([0.0, 1.0, 2.5])], constants=(1,)),
        Case("Sum", [normal(2, 3), normal(3), normal(1, 1)]),
        Case("Sum", [normal(2, 3)]),
        Case("Mean", [normal(2, 3), normal(3), normal(1, 1)]),
        Case("Max", [normal(2, 3), normal(3), normal(1, 1)]),
        Case("Max", [normal(2, 3)]),
        Case("PRelu", [normal(2, 3), np.asarray([0.2])], constants=(1,)),
    ]
    return cases


def _reductions() -> list[Case]:
    cases: list[Case] = []
    ops = (
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceProd",
        "ReduceLogSumExp",
        "ReduceLogSum",
    )
    for op in ops:
        make = positive if op in ("ReduceLogSum",) else normal
        for axes in (None, ints(1), ints(0, -1), ints(-2)):
            for keep in (0, 1):
                cases.append(Case(op, [make(2, 3, 4), axes], {"keepdims": keep}))
        cases.append(Case(op, [make(2, 3), ints(1)], {"keepdims": 0}, dynamic=True))
        cases.append(Case(op, [make(2, 3), None], {"keepdims": 0}, dynamic=True))
    cases.append(Case("ReduceSum", [normal(2, 3), ints()], {"noop_with_empty_axes": 1}))
    cases.append(
        Case("ReduceProd", [np.asarray([[0.0, 2.0, 3.0], [0.0, 0.0, 4.0], [1.0, 2.0, 5.0]]), ints(1)], label="zeros")
    )
    # The axes were an attribute before opset 18 (ReduceSum: 13).
    cases += [
        Case(op, [normal(2, 3)], {"axes": [1], "keepdims": 0}, opset=11)
        for op in ("ReduceSum", "ReduceMean", "ReduceMax")
    ]
    return cases


def _shapes() -> list[Case]:
    x = normal(2, 3, 4)
    cases = [
        Case("Reshape", [x, ints(4, -1)]),
        Case("Reshape", [x, ints(0, -1)], dynamic=True),
        Case("Flatten", [x], {"axis": 1}),
        Case("Flatten", [x], {"axis": 0}),
        Case("Flatten", [x], {"axis": -1}, dynamic=True),
        Case("Squeeze", [normal(2, 1, 3, 1), ints(1)]),
        Case("Squeeze", [normal(2, 1, 3, 1)]),
        Case("Unsqueeze", [x, ints(0, -1)]),
        Case("Transpose", [x]),
        Case("Transpose", [x], {"perm": [1, 2, 0]}),
        Case("Concat", [normal(2, 1), normal(2, 3), normal(2, 2)], {"axis": 1}),
        Case("Concat", [normal(2, 1), normal(2, 3)], {"axis": -1}, dynamic=True),
        Case("Concat", [normal(2, 1), normal(2, 3)], {"axis": 1}, constants=(0,)),
        Case("Concat", [normal(2, 1)], {"axis": 1}),
        Case("Split", [normal(2, 5), ints(2, 3)], {"axis": 1}, outputs=2),
        Case("Split", [normal(6, 2)], {"num_outputs": 3}, outputs=3),
        Case("Split", [normal(6, 2), ints(1, 5)], outputs=2, dynamic=True),
        Case("Slice", [x, ints(1), ints(3), ints(1)]),
        Case("Slice", [x, ints(0, -3), ints(1, -1), ints(0, 2)]),
        Case("Slice", [x, ints(-1), ints(-100), ints(2), ints(-2)]),
        Case("Slice", [x, ints(0), ints(4), ints(-1), ints(3)]),
        Case("Slice", [x, ints(1, 0), ints(2, 2)]),
        Case("Slice", [x, ints(1), ints(2**62), ints(1)], dynamic=True),
        Case("Slice", [x, ints(-1, 3), ints(-9, 0), ints(1, 2), ints(-1, -2)], dynamic=True),
        Case("Gather", [x, np.asarray(2, np.int64)], {"axis": 1}),
        Case("Gather", [x, np.asarray(-1, np.int64)], {"axis": 2}),
        Case("Gather", [x, ints(1, 1, 0)], {"axis": 0}),
        Case("Gather", [x, ints(2)], {"axis": -2}),
        Case("Gather", [x, ints(0, -1, 2)], {"axis": -1}),
        Case("Gather", [x, np.asarray([[0, 2], [1, 1]], np.int64)], {"axis": 1}),
        Case("Gather", [x, np.asarray([[0, 2], [1, 1]], np.int32)], {"axis": 1}, dynamic=True),
        Case("Gather", [x, np.asarray(1, np.int64)], {"axis": 1}, dynamic=True),
        Case("Expand", [normal(3, 1), ints(2, 3, 4)]),
        Case("Expand", [normal(3, 1), ints(2, 3, 4)], dynamic=True),
        Case("Tile", [normal(2, 3), ints(2, 3)]),
        Case("Tile", [normal(2, 3), ints(1, 2)], dynamic=True),
        Case("Pad", [x, ints(0, 1, 2, 1, 0, 3)]),
        Case("Pad", [x, ints(1, 2), None, ints(-1)]),
        Case("Pad", [x, ints(0, 1, 2, 1, 0, 3)], dynamic=True),
        Case("Pad", [x, ints(0, 1, 2, 0, 0, 3)], {"mode": "edge"}),
        Case("Pad", [x, ints(0, 1, 2, 0, 2, 3)], {"mode": "reflect"}),
        Case("Pad", [x, ints(0, 2, 1, 0, 1, 2)], {"mode": "wrap"}, opset=19),
    ]  # fmt: skip
    # Axes that moved from attributes to inputs: opset 13, 10, 11.
    cases += [
        Case("Squeeze", [normal(2, 1, 3)], {"axes": [1]}, opset=11),
        Case("Unsqueeze", [x], {"axes": [0]}, opset=9),
        Case("Slice", [x], {"starts": [1], "ends": [3], "axes": [1]}, opset=9),
        Case("Pad", [x], {"pads": [0, 1, 2, 1, 0, 3]}, opset=9),
        Case("Split", [normal(2, 5)], {"split": [2, 3], "axis": 1}, outputs=2, opset=11),
    ]
    return cases


def _products() -> list[Case]:
    cases = [
        Case("MatMul", [normal(*a), normal(*b)])
        for a, b in [
            ((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
            ((5, 2, 3), (5, 3, 4)), ((2, 1, 2, 3), (4, 3, 2)), ((5, 2, 3), (3,)), ((3,), (5, 3, 2)),
        ]
    ]  # fmt: skip
    cases += [
        Case("MatMul", [normal(5, 2, 3), normal(1, 3, 4)], dynamic=True),
        Case("MatMul", [normal(5, 2, 3), normal(3, 4)], dynamic=True),
    ]
    for trans_a in (0, 1):
        for trans_b in (0, 1):
            a, b = normal(2, 3), normal(3, 4)
            attributes = {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0}
            cases.append(
                Case("Gemm", [a.T.copy() if trans_a else a, b.T.copy() if trans_b else b, normal(4)], attributes)
            )
    cases += [
        Case("Gemm", [normal(2, 3), normal(3, 4)]),
        Case("Gemm", [normal(2, 3), normal(3, 4), normal(2, 1)]),
        Case("Gemm", [normal(2, 3), normal(3, 4), normal(4)], constants=(1, 2), dynamic=True),
    ]
    return cases


def _convolutions() -> list[Case]:
    cases = []

    def conv(x: tuple[int, ...], w: tuple[int, ...], dynamic: bool = False, **attributes: Any) -> None:
        inputs = [normal(*x), normal(*w), normal(w[0])]
        cases.append(Case("Conv", inputs, attributes, constants=(1,), dynamic=dynamic))

    conv((2, 3, 7, 6), (4, 3, 3, 3))
    conv((2, 3, 7, 6), (4, 3, 1, 1))
    conv((2, 3, 7, 6), (4, 3, 3, 2), pads=[1, 0, 1, 1])
    conv((2, 3, 7, 6), (4, 3, 3, 3), pads=[3, 3, 3, 3])  # padding wider than the kernel reaches
    conv((1, 3, 9, 8), (2, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    conv((1, 3, 9, 8), (2, 3, 3, 3), strides=[2, 3])
    conv((1, 3, 9, 8), (2, 3, 1, 1), strides=[2, 2])
    conv((1, 3, 9, 8), (2, 3, 3, 3), dilations=[2, 1], pads=[2, 1, 2, 1])
    conv((1, 3, 9, 8), (2, 3, 3, 3), dilations=[2, 2], strides=[2, 2])
    conv((2, 4, 6, 6), (6, 2, 3, 3), group=2, pads=[1, 1, 1, 1])
    conv((2, 4, 6, 6), (4, 1, 3, 3), group=4, pads=[1, 1, 1, 1], strides=[2, 2])
    conv((2, 4, 6, 6), (8, 1, 3, 3), group=4)
    conv((2, 3, 8), (4, 3, 3), pads=[1, 1])
    conv((1, 2, 5, 4, 4), (3, 2, 2, 2, 2), strides=[1, 2, 1])
    conv((2, 3, 7, 6), (4, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    conv((2, 3, 7, 6), (4, 3, 2, 2), auto_pad="SAME_LOWER")
    conv((2, 3, 7, 6), (4, 3, 3, 3), auto_pad="VALID")
    conv((2, 3, 7, 6), (4, 3, 3, 3), dynamic=True, pads=[1, 1, 1, 1])
    conv((2, 3, 8, 6), (4, 3, 3, 3), dynamic=True, pads=[1, 0, 0, 1], strides=[2, 2])

    def deconv(x: tuple[int, ...], w: tuple[int, ...], **attributes: Any) -> None:
        cases.append(Case("ConvTranspose", [normal(*x), normal(*w)], attributes, constants=(1,)))

    deconv((1, 3, 4, 5), (3, 2, 3, 3))
    deconv((1, 3, 4, 5), (3, 2, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    deconv((1, 3, 4, 5), (3, 2, 2, 2), strides=[2, 2])
    deconv((1, 3, 4, 5), (3, 2, 2, 2), strides=[3, 3], output_padding=[1, 0])
    deconv((1, 4, 4, 5), (4, 2, 3, 3), group=2, dilations=[2, 1])
    return cases


def _pools() -> list[Case]:
    cases = []
    x = normal(2, 3, 7, 6)
    for attributes in (
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [1, 2], "auto_pad": "SAME_UPPER"},
    ):
        cases.append(Case("MaxPool", [x], attributes))
        cases.append(Case("AveragePool", [x], attributes))
        cases.append(Case("AveragePool", [x], {**attributes, "count_include_pad": 1}))
    cases += [
        Case("MaxPool", [x], {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        Case("MaxPool", [normal(2, 3, 8)], {"kernel_shape": [3], "strides": [2]}),
        Case("MaxPool", [x], {"kernel_shape": [2, 2], "strides": [2, 2]}, dynamic=True),
        Case("AveragePool", [x], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, dynamic=True),
        Case("AveragePool", [x], {"kernel_shape": [2, 2], "dilations": [2, 2]}, opset=19),
        Case("AveragePool", [normal(2, 3, 8)], {"kernel_shape": [3], "strides": [2]}),
        Case("GlobalAveragePool", [x]),
        Case("GlobalAveragePool", [x], dynamic=True),
        Case("GlobalMaxPool", [x]),
    ]
    return cases


def _norms() -> list[Case]:
    def batch(*shape: int) -> list[np.ndarray]:
        c = shape[1]
        return [normal(*shape), normal(c), normal(c), normal(c), positive(c)]

    constants = (1, 2, 3, 4)
    return [
        Case("BatchNormalization", batch(2, 3, 4, 4), constants=constants),
        Case("BatchNormalization", batch(5, 3), {"epsilon": 1e-2}, constants=constants),
        Case("BatchNormalization", batch(2, 3, 4), constants=constants, dynamic=True),
        Case("LayerNormalization", [normal(2, 3, 5), normal(5), normal(5)], constants=(1, 2)),
        Case("LayerNormalization", [normal(2, 3, 5), normal(3, 5)], {"axis": 1, "epsilon": 1e-3}, constants=(1,)),
    ]


CASES: list[Case] = [
    *_unary(), *_binary(), *_reductions(), *_shapes(), *_products(), *_convolutions(), *_pools(), *_norms(),
]  # fmt: skip
