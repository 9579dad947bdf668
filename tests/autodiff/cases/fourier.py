"""Fourier transforms."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, normal


def _transforms() -> list[Case]:
    real, pairs = normal(2, 6, 3, 1), normal(2, 6, 3, 2)
    number = np.asarray
    cases = [
        Case("DFT", [real], {"axis": 1}),
        Case("DFT", [real], {"axis": 1, "onesided": 1}),
        Case("DFT", [real], {"axis": 2, "onesided": 1}),
        Case("DFT", [pairs], {"axis": 1}),
        Case("DFT", [pairs], {"axis": -2, "inverse": 1}),
        Case("DFT", [pairs], {"axis": 2}, opset=17),
        Case("DFT", [real], {"inverse": 1}),
    ]
    for length in (4, 6, 9):
        cases += [
            Case("DFT", [real, number(length)], {"axis": 1}),
            Case("DFT", [real, number(length)], {"axis": 1, "onesided": 1}),
            Case("DFT", [pairs, number(length)], {"axis": 1, "inverse": 1}),
        ]
    for opset in (20, 22):
        cases += [
            Case("DFT", [real, None, number(1)], {"onesided": 1}, opset=opset),
            Case("DFT", [pairs, number(5), number(-3)], {"inverse": 1}, opset=opset),
            Case("DFT", [pairs], opset=opset),
        ]
    signal, window = normal(2, 13, 1), normal(4)
    step, length = number(3), number(4)
    cases += [
        Case("STFT", [signal, step, window], {"onesided": 1}, constants=(2,)),
        Case("STFT", [signal, step, window], {"onesided": 0}, constants=(2,)),
        Case("STFT", [signal, step, None, length], {"onesided": 1}),
        Case("STFT", [signal, step, window, length], {"onesided": 1}, constants=(2,)),
        Case("STFT", [normal(1, 9, 1), number(2), normal(5)], {"onesided": 1}, constants=(2,)),
        Case("STFT", [normal(1, 9, 2), number(2), normal(5)], {"onesided": 0}, constants=(2,)),
    ]
    return cases


CASES: list[Case] = _transforms()
