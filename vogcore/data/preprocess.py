"""How stored values become the model's input: scale, mean, std and layout, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError, SettingsError

__all__ = ["LAYOUTS", "Preprocess"]

LAYOUTS = ("nhwc->nchw", "nchw->nhwc", "nhw->nchw", "nhw->nhwc", "flatten")
_SOURCE_RANK = {"nhwc->nchw": 4, "nchw->nhwc": 4, "nhw->nchw": 3, "nhw->nhwc": 3}
_SOURCE_CHANNEL_AXIS = {"nhwc->nchw": 3, "nchw->nhwc": 1}
_AXIS_ORDER = {"nhwc->nchw": (0, 3, 1, 2), "nchw->nhwc": (0, 2, 3, 1)}
_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Preprocess:
    """``(x.astype(float32) * scale - mean) / std``, then a change of layout, all in float32.

    Gradients are taken with respect to the model's input, that is, to the values after this step.

    `mean` and `std` are one number, or one for each channel of the layout that the data is *stored* in. The channels
    of rank-4 data (N, ...) are those that `layout` names; without such a layout, axis 1 when its size is at most 4,
    else the last axis when its size is at most 4, else the one of the two that has as many entries as there are values.
    For rank-2 data (N, F) there may be one value for each of the F columns. Other ranks take single numbers.

    Attributes:
        scale: factor on the stored values, such as 1/255; None for 1.
        mean: subtracted after scaling; a number or a sequence, None for 0.
        std: divided by; a number or a sequence, positive, None for 1.
        layout: one of ``LAYOUTS`` or None; "flatten" gives (N, F).

    Raises:
        SettingsError: a value that is not a finite number, scale 0, std not positive, `mean` and `std` of different
            lengths, or an unknown layout.
    """

    scale: float | None = None
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.scale is not None:
            object.__setattr__(self, "scale", _number(self.scale, "scale"))
            if self.scale == 0:
                raise SettingsError("scale is 0, which would make all examples equal: give a factor such as 1/255.")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(getattr(self, name), name))
        if any(value <= 0 for value in self._values("std")):
            raise SettingsError("std must be positive, since the examples are divided by it.")
        lengths = {len(self._values(name)) for name in ("mean", "std")} - {0, 1}
        if len(lengths) > 1:
            raise SettingsError(
                f"mean has {len(self._values('mean'))} values and std has {len(self._values('std'))}: give one for "
                "each channel in both, or single numbers."
            )
        if self.layout is not None and self.layout not in LAYOUTS:
            raise SettingsError(f"layout {self.layout!r} is unknown: choose one of {', '.join(LAYOUTS)}.")

    @classmethod
    def parse(
        cls,
        scale: str | float | None = None,
        mean: str | float | None = None,
        std: str | float | None = None,
        layout: str | None = None,
    ) -> Preprocess | None:
        """Read the settings as they stand on a command line.

        Args:
            scale: a number or a fraction, ``"1/255"``.
            mean: numbers or fractions with commas between them, ``"0.49,0.48,0.45"``.
            std: as `mean`.
            layout: one of ``LAYOUTS``.

        Returns:
            The preprocessing, or None where nothing is asked for.

        Raises:
            SettingsError: text that is no number, and everything the class itself refuses.
        """
        if scale is None and mean is None and std is None and layout is None:
            return None
        return cls(
            scale=None if scale is None else _number(scale, "scale"),
            mean=None if mean is None else _parse_list(mean, "mean"),
            std=None if std is None else _parse_list(std, "std"),
            layout=None if layout is None else layout.strip().lower(),
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types; ``Preprocess(**d)`` gives the same preprocessing back."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {name: values[name] for name in ("scale", "mean", "std", "layout")}

    def output_shape(self, shape: tuple[int, ...], *, where: str = "data") -> tuple[int, ...]:
        """Shape of one example after preprocessing.

        Args:
            shape: shape of one stored example, without the example axis.
            where: the source, for messages.

        Raises:
            DataError: the layout needs another rank, or the values do not match the number of channels.
        """
        rank = len(shape) + 1
        needed = _SOURCE_RANK.get(self.layout or "", rank)
        if rank != needed:
            raise DataError(
                f"{where}: layout {self.layout!r} needs examples with {needed - 1} axes and these have shape {shape}."
            )
        self._channel_axis(shape, where)
        match self.layout:
            case "nhwc->nchw":
                return (shape[2], shape[0], shape[1])
            case "nchw->nhwc":
                return (shape[1], shape[2], shape[0])
            case "nhw->nchw":
                return (1, *shape)
            case "nhw->nhwc":
                return (*shape, 1)
            case "flatten":
                return (math.prod(shape),)
        return shape

    def apply(self, block: npt.NDArray, *, where: str = "data") -> npt.NDArray[np.float32]:
        """Preprocess a block.

        Args:
            block: stored examples (B, ...), any real type; not changed.
            where: the source, for messages.

        Returns:
            A new C-contiguous float32 array (B, *output_shape).

        Raises:
            DataError: as :meth:`output_shape`.
        """
        stored = block.shape[1:]
        out = self.output_shape(stored, where=where)
        axis = self._channel_axis(stored, where)
        order = _AXIS_ORDER.get(self.layout or "", tuple(range(block.ndim)))
        if axis is not None:
            axis = order.index(axis)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller names the example that overflowed
            # Rearranging and converting in one pass moves the bytes once, and the narrow ones.
            x: npt.NDArray[np.float32] = np.array(block.transpose(order), dtype=np.float32, order="C")
            if self.scale is not None:
                x *= np.float32(self.scale)
            if self.mean is not None:
                x -= _along(self._values("mean"), axis, x.ndim)
            if self.std is not None:
                x /= _along(self._values("std"), axis, x.ndim)
        return x.reshape(len(block), *out)

    def _values(self, name: str) -> tuple[float, ...]:
        value = getattr(self, name)
        if value is None:
            return ()
        return value if isinstance(value, tuple) else (value,)

    def _channel_axis(self, shape: tuple[int, ...], where: str) -> int | None:
        """Axis of the stored block, example axis counted, that the values of mean and std run along; None if single."""
        count = max(len(self._values("mean")), len(self._values("std")))
        if count <= 1:
            return None
        full = (0, *shape)
        if len(full) == 2:
            axis = 1
        elif len(full) == 4:
            axis = _SOURCE_CHANNEL_AXIS.get(self.layout or "") or _guess_axis(full, count, where)
        else:
            raise DataError(
                f"{where}: mean or std has {count} values and examples of shape {shape} have no channels: give "
                "single numbers."
            )
        if full[axis] != count:
            raise DataError(
                f"{where}: mean or std has {count} values and examples of shape {shape} have {full[axis]} "
                f"channels (axis {axis - 1} of an example): give one value for each."
            )
        return axis


def _guess_axis(full: tuple[int, ...], count: int, where: str) -> int:
    for axis in (1, 3):
        if full[axis] <= _MOST_CHANNELS:
            return axis
    matching = [axis for axis in (1, 3) if full[axis] == count]
    if len(matching) == 1:
        return matching[0]
    raise DataError(
        f"{where}: it is not clear which axis of examples of shape {full[1:]} holds the {count} channels of "
        "mean and std: give a layout that names it."
    )


def _along(values: tuple[float, ...], axis: int | None, ndim: int) -> npt.NDArray[np.float32]:
    """`values` shaped so that they run along `axis` of an array with `ndim` axes."""
    array = np.array(values, dtype=np.float32)
    if axis is None or len(values) == 1:
        return array.reshape(())
    return array.reshape([-1 if at == axis else 1 for at in range(ndim)])


def _number(value: Any, what: str) -> float:
    """A finite number that float32 can hold, or a fraction written as text."""
    try:
        if isinstance(value, str):
            top, slash, bottom = value.partition("/")
            number = float(top) / float(bottom) if slash else float(top)
        else:
            number = float(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise SettingsError(f"{what} {value!r} is not a number: write one such as 0.5 or 1/255.") from None
    rounded = float(np.float32(number)) if abs(number) <= float(np.finfo(np.float32).max) else math.inf
    if not math.isfinite(rounded) or (number != 0 and rounded == 0):
        raise SettingsError(f"{what} {value!r} is not a finite float32 number.")
    return number


def _numbers(value: Any, what: str) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or np.ndim(value) == 0:
        return _number(value, what)
    numbers = tuple(_number(item, what) for item in value)
    if not numbers:
        raise SettingsError(f"{what} is an empty list: give one number, or one for each channel.")
    return numbers[0] if len(numbers) == 1 else numbers


def _parse_list(value: str | float, what: str) -> list[float]:
    return [_number(item, what) for item in value.split(",")] if isinstance(value, str) else [_number(value, what)]
