"""Reductions over axes."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, ints, normal, positive


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


CASES: list[Case] = _reductions()
