"""What the functions of this package check alike, wherever their arrays lie."""

from __future__ import annotations

import math

import numpy as np

from vogcore.errors import GradientError, SettingsError
from vogcore.kernels._cpu import L2, MAGNITUDE, MEAN

__all__ = ["MODES", "check_count", "check_reduction", "layout_of"]

MODES = {"mean": MEAN, "none": MEAN, "magnitude": MAGNITUDE, "l2": L2}


def layout_of(shape: tuple[int, ...], channel_axis: int | None, channels: str) -> tuple[int, int, int]:
    """Outer size, number of channels and inner size of one example; ``shape`` is the example's, without the batch."""
    if channels not in MODES:
        raise SettingsError(f"channels must be one of {', '.join(sorted(MODES))}, not {channels!r}.")
    if channel_axis is not None and not 1 <= channel_axis <= len(shape):
        raise SettingsError(
            f"channel_axis {channel_axis} does not exist in gradients of {len(shape) + 1} axes: give None, or an axis "
            f"from 1 (axis 0 is the batch) to {len(shape)}."
        )
    if math.prod(shape) == 0:
        raise GradientError(f"gradients of examples of shape {shape} hold no values: every axis must be at least 1.")
    if channel_axis is None or channels == "none" or shape[channel_axis - 1] == 1:
        return 1, 1, math.prod(shape)
    return math.prod(shape[: channel_axis - 1]), shape[channel_axis - 1], math.prod(shape[channel_axis:])


def check_count(name: str, value: int, minimum: int) -> int:
    # bool is an int for Python, and a float that happens to be integral is a mistake one call earlier.
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise SettingsError(f"{name} must be an integer of at least {minimum}, not {value!r}.")
    return int(value)


def check_reduction(reduction: str) -> None:
    if reduction not in ("std", "var"):
        raise SettingsError(f"reduction must be std or var, not {reduction!r}.")
