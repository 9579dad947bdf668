"""The choices that decide a score; every one of them is recorded in the score file."""

from __future__ import annotations

import operator
import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vogcore.autodiff import OF
from vogcore.errors import SettingsError

__all__ = [
    "CHANNELS",
    "MEMORY",
    "MOST_THREADS",
    "NORMALISE",
    "REDUCTIONS",
    "SCALES",
    "Settings",
    "choose_channel_axis",
    "require_integer",
]

CHANNELS = ("mean", "none", "magnitude", "l2")
REDUCTIONS = ("std", "var")
SCALES = ("none", "relative")
NORMALISE = ("class", "absolute", "robust", "none")
MEMORY = 1 << 30
"""Bytes for the moments and values of one block of examples, where nothing else is said."""
MOST_THREADS = 1024
"""More are a mistake that would take the machine down before it fails: ONNX Runtime starts every one of them."""
_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Settings:
    """How gradients become scores.

    The defaults are the method of Agarwal, D'souza & Hooker (CVPR 2022) as their code has it.

    Attributes:
        of: what is differentiated, see :func:`vogcore.gradient_model`.
        target: at which class: ``"label"``, ``"predicted"`` (the class that one checkpoint predicts, frozen for all of
            them), or a fixed class index.
        target_checkpoint: which checkpoint predicts, for ``target="predicted"``: an index, -1 for the last.
        channels: per pixel, the signed ``"mean"`` over the channels, ``"none"``, the mean ``"magnitude"``, or ``"l2"``.
        channel_axis: axis of the channels in (N, ...), or None: for rank-4 data axis 1 when its size is at most 4,
            else the last axis when its size is at most 4; data of other ranks has no channels.
        reduction: per pixel over the checkpoints, ``"std"`` or ``"var"``, both with divisor K.
        scale: ``"none"``, or ``"relative"``: raw VoG divided by the example's mean absolute gradient over the same
            checkpoints and pixels.
        normalise: ``"class"`` (score minus class mean, over class standard deviation, divisor n), ``"absolute"`` (its
            magnitude), ``"robust"`` (class median and 1.4826 times the class MAD), or ``"none"``.
        statistics: score file whose class statistics are used instead of those of the scored examples: a test or
            out-of-distribution set against its training set.
        moments: type of the running moments, ``"float64"`` or ``"float32"``.

    Raises:
        SettingsError: a value is not one of these.
    """

    of: str = "logit"
    target: Literal["label", "predicted"] | int = "label"
    target_checkpoint: int = -1
    channels: str = "mean"
    channel_axis: int | None = None
    reduction: str = "std"
    scale: str = "none"
    normalise: str = "class"
    statistics: str | None = None
    moments: str = "float64"

    def __post_init__(self) -> None:
        for name, known in (
            ("of", OF),
            ("channels", CHANNELS),
            ("reduction", REDUCTIONS),
            ("scale", SCALES),
            ("normalise", NORMALISE),
            ("moments", ("float64", "float32")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise SettingsError(f"{name}={value!r} is not known; choose one of {', '.join(known)}.")
        if isinstance(self.target, str):
            if self.target not in ("label", "predicted"):
                raise SettingsError(
                    f"target={self.target!r} is not known; choose 'label', 'predicted' or the index of a class."
                )
        elif require_integer("target", self.target) < 0:
            raise SettingsError(f"target={self.target!r} is not a class index; class indices start at 0.")
        else:
            object.__setattr__(self, "target", int(self.target))
        object.__setattr__(self, "target_checkpoint", require_integer("target_checkpoint", self.target_checkpoint))
        if self.channel_axis is not None:
            object.__setattr__(self, "channel_axis", require_integer("channel_axis", self.channel_axis))
        if self.statistics is not None:
            object.__setattr__(self, "statistics", os.fspath(self.statistics))
            if self.normalise == "none":
                raise SettingsError("statistics were given, but normalise='none' uses none; leave one of them out.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return asdict(self)


def require_integer(name: str, value: Any) -> int:
    """A setting as Python's int, from any integer type (a record of NumPy's types could not be read back).

    Raises:
        SettingsError: it is no integer.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise SettingsError(f"{name}={value!r} is not possible; give an integer.")
    return operator.index(value)


def choose_channel_axis(settings: Settings, shape: tuple[int, ...]) -> int | None:
    """Axis of the channels in gradients (N, *shape), or None where there is none to reduce.

    Raises:
        SettingsError: rank-4 data whose channel axis cannot be told by its size, or an axis that does not exist.
    """
    rank = len(shape) + 1
    axis = settings.channel_axis
    if axis is not None:
        resolved = axis + rank if axis < 0 else axis
        if not 1 <= resolved < rank:
            raise SettingsError(
                f"channel_axis={axis} is not an axis of examples of shape (N, {', '.join(map(str, shape))}); "
                f"choose one from 1 to {rank - 1}."
            )
        return resolved
    if settings.channels == "none" or rank != 4:
        return None
    for candidate in (1, 3):
        if shape[candidate - 1] <= _MOST_CHANNELS:
            return candidate
    raise SettingsError(
        f"Examples of shape (N, {', '.join(map(str, shape))}) have more than {_MOST_CHANNELS} entries on axis 1 and on "
        "the last axis, so it is not clear which one holds the channels; set channel_axis, or channels='none'."
    )
