"""Formulas on single numbers, undecorated, so that one text serves the CPU loops and any other compiler.

Nothing here allocates, branches on data or knows about arrays, apart from the two decoders of 16-bit floats, which
need a reinterpretation of bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "bfloat16_bits_to_float32",
    "float16_bits_to_float32",
    "merged_m2",
    "merged_mean",
    "spread_of_sums",
    "updated_m2",
    "updated_mean",
]

_TWO_POW_112 = np.float32(2.0**112)


def updated_mean(mean: float, delta: float, inverse_step: float) -> float:
    """Mean after one more value; ``delta`` is that value less the mean so far (Welford 1962)."""
    return mean + delta * inverse_step


def updated_m2(m2: float, delta: float, weight: float) -> float:
    """Sum of squared deviations after one more value, ``weight`` = (k - 1) / k for the k-th value (Welford 1962).

    ``delta * delta * (k - 1) / k`` is Welford's ``delta * (x - new mean)``, written so that it cannot be negative.
    """
    return m2 + delta * delta * weight


def merged_mean(mean: float, delta: float, weight: float) -> float:
    """Mean of two sets; ``delta`` = other mean less mean, ``weight`` = n_b / (n_a + n_b) (Chan et al. 1983)."""
    return mean + delta * weight


def merged_m2(m2: float, other_m2: float, delta: float, weight: float) -> float:
    """Squared deviations of two sets, ``weight`` = n_a n_b / (n_a + n_b) (Chan et al. 1983)."""
    return m2 + other_m2 + delta * delta * weight


def spread_of_sums(total: float, squares: float, inverse_count: float) -> float:
    """Variance (ddof 0) from sums of d and d², d being the differences from one of the values; never negative."""
    variance = (squares - total * total * inverse_count) * inverse_count
    # max() would turn NaN into zero.
    return 0.0 if variance < 0.0 else variance


def bfloat16_bits_to_float32(bits: Any) -> Any:
    """Value of a bfloat16 given as its uint16 bits; exact, NaN payloads included."""
    return np.uint32(np.uint32(bits) << 16).view(np.float32)


def float16_bits_to_float32(bits: Any) -> Any:
    """Value of an IEEE 754 binary16 given as its uint16 bits; exact, subnormals included.

    The magnitude's bits, moved to where float32 keeps them, are the number times 2**-112, subnormal or not, because
    the exponent biases differ by 112; infinities and NaN come out above 65504 and get float32's all-ones exponent.
    """
    # A compiler may widen every integer operation to 64 bits: each value is brought back before its bits are read.
    magnitude = np.uint32((np.uint32(bits) & 0x7FFF) << 13)
    sign = np.uint32((np.uint32(bits) & 0x8000) << 16)
    scaled = np.uint32(np.float32(magnitude.view(np.float32) * _TWO_POW_112).view(np.uint32))
    if magnitude >= 0x0F800000:
        scaled = np.uint32(magnitude | 0x7F800000)
    return np.uint32(scaled | sign).view(np.float32)
