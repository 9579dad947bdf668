"""Elementwise operators of one, two and many inputs, and softmax."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.autodiff.cases.case import RNG, Case, normal, positive, within


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


CASES: list[Case] = [*_unary(), *_binary()]
