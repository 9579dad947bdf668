"""Operators that pick and place numbers by computed positions."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import RNG, Case, ints, normal


def _at(*shape: int, size: int) -> np.ndarray:
    """Positions below ``size``, some of them twice."""
    return np.asarray(RNG.integers(0, size, shape))


def _distinct(*shape: int) -> np.ndarray:
    """Positions along the last axis, each once in its row."""
    return np.asarray(np.argsort(RNG.random(shape), axis=-1))


def _gathers() -> list[Case]:
    x = normal(3, 4, 5)
    pairs = _at(4, 2, size=3)
    return [
        Case("GatherElements", [x, _at(2, 4, 5, size=3)]),
        Case("GatherElements", [x, _at(3, 6, 5, size=4)], {"axis": 1}),
        Case("GatherElements", [x, _at(3, 4, 2, size=5) - 5], {"axis": -1}),
        Case("GatherElements", [x, _at(3, 4, 2, size=5).astype(np.int32)], {"axis": -1}, dynamic=True),
        Case("GatherElements", [x, _at(2, 3, 3, size=5)], {"axis": 2}, label="smaller"),
        Case("GatherND", [x, pairs]),
        Case("GatherND", [x, pairs], dynamic=True),
        Case("GatherND", [x, _at(2, 2, 3, size=3) - 3]),
        Case("GatherND", [x, _at(4, 1, size=3)], opset=11),
        Case("GatherND", [x, _at(3, 2, 1, size=4)], {"batch_dims": 1}),
        Case("GatherND", [x, _at(3, 1, size=4)], {"batch_dims": 1}, dynamic=True),
        Case("GatherND", [x, _at(3, 4, 2, 1, size=5)], {"batch_dims": 2}),
        Case("Compress", [x, np.asarray([True, False, True])], {"axis": 0}),
        Case("Compress", [x, np.asarray([False, True])], {"axis": 1}),
        Case("Compress", [x, np.asarray([True, False, True, True])], {"axis": -2}, dynamic=True),
        Case("Compress", [x, np.asarray([True, False, True, True])]),
        Case("Compress", [x, np.asarray([True, False, True, True])], dynamic=True),
        Case("TopK", [x, ints(2)], outputs=2),
        Case("TopK", [x, ints(2)], {"axis": 1, "largest": 0}, outputs=2),
        Case("TopK", [x, ints(3)], {"axis": -2, "sorted": 0}, outputs=2, dynamic=True),
        Case("TopK", [x], {"axis": 1, "k": 2}, outputs=2, opset=9),
        Case("ReverseSequence", [normal(4, 3, 2), ints(4, 1, 3)]),
        Case("ReverseSequence", [normal(3, 4, 2), ints(4, 1, 3)], {"batch_axis": 0, "time_axis": 1}, dynamic=True),
    ]


def _scatters() -> list[Case]:
    x = normal(3, 4, 5)
    cases = [
        Case("ScatterElements", [x, _distinct(3, 2, 5), normal(3, 2, 5)], {"axis": 2}),
        Case("ScatterElements", [x, np.asarray([[[2, 0, -1]]]), normal(1, 1, 3)], {"axis": -1}),
        Case("ScatterElements", [x, np.asarray([[[2, 0, 1]]]), normal(1, 1, 3)], {"axis": -1}, dynamic=True),
        Case("ScatterElements", [x, np.asarray([[[2, 0, 1]]]), normal(1, 1, 3)], constants=(0,), opset=13),
        Case("Scatter", [x, np.asarray([[[2, 0, 1]]]), normal(1, 1, 3)], constants=(2,), opset=9),
        Case("ScatterND", [x, np.asarray([[2, 0], [0, 3]]), normal(2, 5)]),
        Case("ScatterND", [x, np.asarray([[[2], [0]]]), normal(1, 2, 4, 5)], dynamic=True),
        Case("ScatterND", [x, np.asarray([[2, -1, 3]]), normal(1)], opset=13),
    ]
    for reduction in ("add", "mul", "max", "min"):
        more = {"reduction": reduction}
        cases += [
            Case("ScatterElements", [x, _at(6, 4, 5, size=3), normal(6, 4, 5)], {"axis": 0, **more}),
            Case("ScatterND", [x, _at(4, 2, size=3), normal(4, 5)], more, dynamic=reduction == "max"),
        ]
    data, updates = np.asarray([0.0, 0.0, 2.0, 3.0]), np.asarray([0.0, 2.0, 0.0, 0.0, 3.0])
    at = np.asarray([0, 1, 2, 2, 3])
    cases.append(Case("ScatterElements", [data, at, updates], {"reduction": "mul"}, label="zeros"))
    return cases


def _one_hots() -> list[Case]:
    cases = []
    for axis in (-1, 0, 1):
        for dynamic in (False, True):
            inputs = [np.asarray([[1, -1, 0], [2, 7, 3]]), np.asarray(4), normal(2)]
            cases.append(Case("OneHot", inputs, {"axis": axis}, dynamic=dynamic))
    return cases


CASES: list[Case] = [*_gathers(), *_scatters(), *_one_hots()]
