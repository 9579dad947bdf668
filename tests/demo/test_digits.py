"""The embedded data set, and what importing the demo costs."""

import subprocess
import sys

import numpy as np
from sklearn.datasets import load_digits as sklearn_digits

from vogcore.demo import CLASS_NAMES, load_digits


def test_the_embedded_digits_are_those_of_scikit_learn():
    reference = sklearn_digits()
    x, y = load_digits()
    assert x.dtype == np.uint8
    assert y.dtype == np.int64
    np.testing.assert_array_equal(x, reference.images)
    np.testing.assert_array_equal(y, reference.target)
    assert list(CLASS_NAMES) == [str(name) for name in reference.target_names]


def test_the_demo_imports_no_framework(tmp_path):
    program = (
        "import sys; from vogcore.demo import train; train(sys.argv[1], epochs=1);"
        "print([m for m in ('torch', 'sklearn', 'jax', 'keras') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


def test_importing_the_package_alone_loads_neither_data_nor_onnx():
    program = "import sys, vogcore.demo; print([m for m in ('numpy', 'onnx') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
