"""Shrink, SwiGLU and Mod."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, normal, positive

CASES: list[Case] = [
    Case("Shrink", [normal(2, 3, 4)]),
    Case("Shrink", [normal(2, 3, 4)], {"lambd": 0.3, "bias": 0.2}),
    Case("Shrink", [normal(6)], {"lambd": 0.3}, dynamic=True),
    Case("SwiGLU", [normal(2, 5), normal(2, 5)], opset=28),
    Case("SwiGLU", [normal(2, 5), normal(2, 5)], {"alpha": 1.7}, opset=28, dynamic=True),
    Case("Mod", [3 * normal(2, 3), positive(2, 3)], {"fmod": 1}),
    Case("Mod", [3 * normal(2, 3), -positive(3)], {"fmod": 1}, dynamic=True),
    Case("Mod", [np.asarray([2.0, -2.0, 0.3]), np.asarray(0.7)], {"fmod": 1}),
    Case("Mod", [3 * normal(2, 3), normal(2, 1)], opset=28),
]
