"""Operators that rearrange blocks, crop, mask or add up along an axis."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, ints, normal


def _blocks() -> list[Case]:
    deep, wide = normal(2, 8, 3, 2), normal(2, 2, 6, 4)
    cases = [
        Case("DepthToSpace", [deep], {"blocksize": 2, **mode}, dynamic=dynamic, opset=opset)
        for mode, opset in (({}, 18), ({}, 9), ({"mode": "DCR"}, 18), ({"mode": "CRD"}, 18), ({"mode": "CRD"}, 11))
        for dynamic in (False, True)
    ]
    cases += [Case("SpaceToDepth", [wide], {"blocksize": 2}, dynamic=dynamic) for dynamic in (False, True)]
    columns = normal(2, 3 * 4, 6)
    cases += [
        Case("Col2Im", [normal(2, 3 * 6, 4), ints(4, 6), ints(2, 3)], {"strides": [2, 3]}),
        Case("Col2Im", [columns, ints(3, 4), ints(2, 2)]),
        Case("Col2Im", [columns, ints(3, 4), ints(2, 2)], dynamic=True),
        Case("Col2Im", [normal(1, 2 * 4, 6), ints(4, 5), ints(2, 2)], {"dilations": [2, 2]}),
        Case("Col2Im", [normal(1, 2 * 4, 9), ints(4, 4), ints(2, 2)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        Case("Col2Im", [normal(1, 2 * 3, 4), ints(6), ints(3)]),
    ]
    return cases


def _others() -> list[Case]:
    square, x = normal(2, 4, 5), normal(4, 5)
    cases = [Case("Trilu", [square, k], {"upper": u}) for k in (None, np.asarray(1), np.asarray(-2)) for u in (0, 1)]
    cases += [Case("Trilu", [square], dynamic=True)]
    cases += [
        Case("CumSum", [square, np.asarray(axis)], {"exclusive": e, "reverse": r}, dynamic=axis < 0)
        for axis in (0, 1, -1)
        for e in (0, 1)
        for r in (0, 1)
    ]
    for dynamic in (False, True):
        cases += [
            Case("CenterCropPad", [x, ints(2, 8)], dynamic=dynamic),
            Case("CenterCropPad", [x, ints(7, 2)], dynamic=dynamic),
            Case("CenterCropPad", [x, ints(1, 6)], dynamic=dynamic),
            Case("CenterCropPad", [x, ints(6)], {"axes": [-1]}, dynamic=dynamic),
            Case("CenterCropPad", [x, ints(8, 3)], {"axes": [1, 0]}, dynamic=dynamic),
        ]
    return cases


CASES: list[Case] = [*_blocks(), *_others()]
