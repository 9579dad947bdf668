"""Pooling."""

from __future__ import annotations

from tests.autodiff.cases.case import Case, normal


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


CASES: list[Case] = _pools()
