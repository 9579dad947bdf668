"""Operators that move numbers."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, ints, normal


def _shapes() -> list[Case]:
    x = normal(2, 3, 4)
    cases = [
        Case("Reshape", [x, ints(4, -1)]),
        Case("Reshape", [x, ints(0, -1)], dynamic=True),
        Case("Flatten", [x], {"axis": 1}),
        Case("Flatten", [x], {"axis": 0}),
        Case("Flatten", [x], {"axis": -1}, dynamic=True),
        Case("Squeeze", [normal(2, 1, 3, 1), ints(1)]),
        Case("Squeeze", [normal(2, 1, 3, 1)]),
        Case("Unsqueeze", [x, ints(0, -1)]),
        Case("Transpose", [x]),
        Case("Transpose", [x], {"perm": [1, 2, 0]}),
        Case("Concat", [normal(2, 1), normal(2, 3), normal(2, 2)], {"axis": 1}),
        Case("Concat", [normal(2, 1), normal(2, 3)], {"axis": -1}, dynamic=True),
        Case("Concat", [normal(2, 1), normal(2, 3)], {"axis": 1}, constants=(0,)),
        Case("Concat", [normal(2, 1)], {"axis": 1}),
        Case("Split", [normal(2, 5), ints(2, 3)], {"axis": 1}, outputs=2),
        Case("Split", [normal(6, 2)], {"num_outputs": 3}, outputs=3),
        Case("Split", [normal(6, 2), ints(1, 5)], outputs=2, dynamic=True),
        Case("Slice", [x, ints(1), ints(3), ints(1)]),
        Case("Slice", [x, ints(0, -3), ints(1, -1), ints(0, 2)]),
        Case("Slice", [x, ints(-1), ints(-100), ints(2), ints(-2)]),
        Case("Slice", [x, ints(0), ints(4), ints(-1), ints(3)]),
        Case("Slice", [x, ints(1, 0), ints(2, 2)]),
        Case("Slice", [x, ints(1), ints(2**62), ints(1)], dynamic=True),
        Case("Slice", [x, ints(-1, 3), ints(-9, 0), ints(1, 2), ints(-1, -2)], dynamic=True),
        Case("Gather", [x, np.asarray(2, np.int64)], {"axis": 1}),
        Case("Gather", [x, np.asarray(-1, np.int64)], {"axis": 2}),
        Case("Gather", [x, ints(1, 1, 0)], {"axis": 0}),
        Case("Gather", [x, ints(2)], {"axis": -2}),
        Case("Gather", [x, ints(0, -1, 2)], {"axis": -1}),
        Case("Gather", [x, np.asarray([[0, 2], [1, 1]], np.int64)], {"axis": 1}),
        Case("Gather", [x, np.asarray([[0, 2], [1, 1]], np.int32)], {"axis": 1}, dynamic=True),
        Case("Gather", [x, np.asarray(1, np.int64)], {"axis": 1}, dynamic=True),
        Case("Gather", [x, ints(2, 0, 1)], {"axis": 1}),  # a permutation
        Case("Gather", [x, ints(0, 0, 1, 0, 0, 0, 1)], {"axis": 0}),  # too often for rounds
        Case("Gather", [x, np.zeros(0, np.int64)], {"axis": 1}),
        Case("Slice", [x, ints(0), ints(4), ints(2), ints(2)]),
        Case("Slice", [x, ints(2), ints(-9), ints(1), ints(-1)]),
        Case("Slice", [x, ints(2), ints(1), ints(1)]),  # nothing
        Case("Expand", [normal(3, 1), ints(2, 3, 4)]),
        Case("Expand", [normal(3, 1), ints(2, 3, 4)], dynamic=True),
        Case("Tile", [normal(2, 3), ints(2, 3)]),
        Case("Tile", [normal(2, 3), ints(1, 2)], dynamic=True),
        Case("Pad", [x, ints(0, 1, 2, 1, 0, 3)]),
        Case("Pad", [x, ints(1, 2), None, ints(-1)]),
        Case("Pad", [x, ints(0, 1, 2, 1, 0, 3)], dynamic=True),
        Case("Pad", [x, ints(0, 1, 2, 0, 0, 3)], {"mode": "edge"}),
        Case("Pad", [x, ints(0, 1, 2, 0, 0, 9)], {"mode": "edge"}),
        Case("Pad", [x, ints(0, 1, 2, 0, 0, 3)], {"mode": "edge"}, dynamic=True),
        Case("Pad", [x, ints(0, -1, 2, 0, 1, -2)]),
        Case("Pad", [x, ints(0, -1, 2, 0, 1, -2)], dynamic=True),
        Case("Pad", [x, ints(0, 1, 2, 0, 2, 3)], {"mode": "reflect"}),
        Case("Pad", [x, ints(0, 2, 1, 0, 1, 2)], {"mode": "wrap"}, opset=19),
    ]  # fmt: skip
    # Axes that moved from attributes to inputs: opset 13, 10, 11.
    cases += [
        Case("Squeeze", [normal(2, 1, 3)], {"axes": [1]}, opset=11),
        Case("Unsqueeze", [x], {"axes": [0]}, opset=9),
        Case("Slice", [x], {"starts": [1], "ends": [3], "axes": [1]}, opset=9),
        Case("Pad", [x], {"pads": [0, 1, 2, 1, 0, 3]}, opset=9),
        Case("Split", [normal(2, 5)], {"split": [2, 3], "axis": 1}, outputs=2, opset=11),
    ]
    return cases


CASES: list[Case] = _shapes()
