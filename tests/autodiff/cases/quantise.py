"""Dequantisation, whose scale is a number like any other. Quantisation rounds: tests/autodiff/test_quantise.py."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, positive

INTEGERS = np.arange(-12, 12).reshape(2, 3, 4)

# The reference evaluator computes in the type of the scale from opset 21 on; test_quantise.py covers older ones.
CASES: list[Case] = [
    Case("DequantizeLinear", [INTEGERS.astype(np.int8), np.asarray(0.3)], label="int8", opset=21),
    Case("DequantizeLinear", [(INTEGERS + 12).astype(np.uint8), np.asarray(0.3), np.asarray(9, np.uint8)], opset=21),
    Case(
        "DequantizeLinear",
        [INTEGERS.astype(np.int8), positive(3), np.asarray([1, -2, 3], np.int8)],
        {"axis": 1},
        opset=21,
    ),
    Case("DequantizeLinear", [INTEGERS.astype(np.int8), positive(4)], {"axis": -1}, label="no zero point", opset=21),
    Case("DequantizeLinear", [INTEGERS.astype(np.int32), np.asarray(0.01)], label="int32", opset=21),
    Case("DequantizeLinear", [INTEGERS.astype(np.int8), np.asarray(0.3)], opset=21, dynamic=True),
]
