"""The handwritten digits of the demo, embedded in the package.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, licence CC BY 4.0. The test set as scikit-learn ships it; see README.md beside this
file.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import numpy.typing as npt

__all__ = ["CLASS_NAMES", "MAXIMUM", "load_digits"]

CLASS_NAMES: tuple[str, ...] = tuple(str(digit) for digit in range(10))
"""Name of every class in the order of the logits."""

MAXIMUM = 16
"""Largest pixel value; the network sees pixels divided by it."""


def load_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The 1,797 digits in the order of ``sklearn.datasets.load_digits()``.

    Returns:
        ``x`` (1797, 8, 8) uint8 from 0 to 16 and ``y`` (1797,) int64 from 0 to 9.
    """
    with files("vogcore.demo").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return archive["x"], archive["y"]
