"""Losses that are part of the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.autodiff.cases.case import RNG, Case, normal, positive


def _losses() -> list[Case]:
    cases: list[Case] = []
    weights = positive(4)
    for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        for dynamic in (False, True):
            for reduction in ("none", "sum", "mean"):
                kind: dict[str, Any] = {"reduction": reduction}
                x, target = normal(5, 4), np.asarray([0, 3, 1, 3, 2])
                image, map_ = normal(2, 4, 3, 2), RNG.integers(0, 4, (2, 3, 2))
                cases += [
                    Case(op, [x, target], kind, dynamic=dynamic),
                    Case(op, [x, target.astype(np.int32), weights], kind, constants=(2,), dynamic=dynamic),
                    Case(op, [x, target, weights], kind, dynamic=dynamic, label="weights"),
                    Case(op, [x, target], {**kind, "ignore_index": 3}, dynamic=dynamic),
                    Case(op, [image, map_, weights], {**kind, "ignore_index": 1}, dynamic=dynamic),
                    Case(op, [normal(2, 4, 3), map_[..., 0]], {**kind, "ignore_index": -100}, dynamic=dynamic),
                ]
            cases.append(Case(op, [normal(5, 4), np.asarray([0, 3, -7, 3, 2])], {"ignore_index": -7}, dynamic=dynamic))
    cases += [
        Case("SoftmaxCrossEntropyLoss", [normal(5, 4), np.asarray([0, 3, 1, 3, 2])], outputs=2),
        Case("NegativeLogLikelihoodLoss", [normal(5, 4), np.asarray([0, 3, 1, 3, 2])], opset=22),
    ]
    return cases


CASES: list[Case] = _losses()
