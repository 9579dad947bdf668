"""Pooling by norms, and the way back from a maximum pooling."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import RNG, Case, normal


def _pools() -> list[Case]:
    x = normal(2, 3, 7, 6)
    cases = []
    for p in (1, 2, 3):
        cases += [
            Case("GlobalLpPool", [x], {"p": p}, dynamic=p == 3),
            Case("LpPool", [x], {"kernel_shape": [2, 3], "p": p}),
            Case("LpPool", [x], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "p": p}),
        ]
    cases += [
        Case("LpPool", [x], {"kernel_shape": [3, 2], "strides": [2, 1]}, dynamic=True),
        Case("LpPool", [x], {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, opset=11),
        Case("LpPool", [x], {"kernel_shape": [2, 2], "dilations": [2, 1]}),
        Case("LpPool", [normal(2, 3, 8)], {"kernel_shape": [3], "strides": [2]}),
        Case("LpPool", [np.zeros((1, 1, 4))], {"kernel_shape": [2], "p": 3}, label="zeros"),
        Case("GlobalLpPool", [normal(2, 3, 4)], opset=9),
    ]
    cells = np.arange(2 * 3 * 4 * 6).reshape(2, 3, 2, 2, 3, 2).transpose(0, 1, 2, 4, 3, 5).reshape(2, 3, 2, 3, 4)
    places = np.take_along_axis(cells, RNG.integers(0, 4, (2, 3, 2, 3, 1)), 4)[..., 0]
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    cases += [
        Case("MaxUnpool", [normal(2, 3, 2, 3), places], window),
        Case("MaxUnpool", [normal(2, 3, 2, 3), places], window, dynamic=True),
        Case("MaxUnpool", [normal(2, 3, 2, 3), places], window, opset=9),
    ]
    return cases


CASES: list[Case] = _pools()
