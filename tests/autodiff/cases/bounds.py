"""Clip with bounds that are computed."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, normal


def _bounds() -> list[Case]:
    x, low, high = normal(3, 4), np.asarray(-0.4), np.asarray(0.6)
    return [
        Case("Clip", [x, low, high]),
        Case("Clip", [x, low, high], dynamic=True),
        Case("Clip", [x, low]),
        Case("Clip", [x, None, high]),
        Case("Clip", [x, low, high], constants=(0, 2)),
        Case("Clip", [x, high, low], label="crossed"),
    ]


CASES: list[Case] = _bounds()
