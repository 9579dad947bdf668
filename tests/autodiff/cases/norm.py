"""Normalisation layers."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, normal, positive


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


CASES: list[Case] = _norms()
