"""Fourier transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.autodiff.cases.case import Case, normal, positive


def _cases() -> list[Case]:
    cases: list[Case] = []
    real, complex_ = normal(2, 6, 5, 1), normal(2, 6, 5, 2)
    for dynamic in (False, True):

        def add(inputs: list[Any], opset: int = 20, dynamic: bool = dynamic, **attributes: Any) -> None:
            cases.append(Case("DFT", inputs, attributes, opset=opset, dynamic=dynamic))

        for x in (real, complex_):
            add([x], opset=18)
            add([x], opset=18, axis=2, inverse=1)
            for length in (None, np.asarray(4), np.asarray(9)):
                add([x, length, np.asarray(1)])
                add([x, length, np.asarray(1)], inverse=1)
        for length in (None, np.asarray(4), np.asarray(7), np.asarray(8)):
            add([real, length, np.asarray(1)], onesided=1)
            add([real, length], onesided=1)
            add([complex_, length, np.asarray(1)], onesided=1, inverse=1)
        for onesided in (0, 1):
            kind, step, window = {"onesided": onesided}, np.asarray(2), positive(4)
            for inputs in (
                [normal(2, 9, 1), step, window, np.asarray(4)],
                [normal(2, 9, 1), step, window],
                [normal(2, 9, 1), step, None, np.asarray(5)],
            ):
                constants = (2,) if inputs[2] is not None else ()
                if not dynamic:
                    cases.append(Case("STFT", inputs, kind, constants=constants))
    cases.append(Case("STFT", [normal(2, 9, 2), np.asarray(3), positive(4)], {"onesided": 0}, constants=(2,)))
    return cases


CASES: list[Case] = _cases()
