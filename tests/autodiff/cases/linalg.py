"""Matrix products."""

from __future__ import annotations

from tests.autodiff.cases.case import Case, normal


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


CASES: list[Case] = _products()
