"""Examples as pictures: which axes are pixels and colours, which values are black and white, and a small file of them.

Pillow is imported inside of functions: it belongs to the extra ``report``.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError

__all__ = ["IMAGE_LAYOUTS", "Look", "as_pixels", "data_uri", "image_layout", "look_of", "overlay", "undo_preprocess"]

IMAGE_LAYOUTS = ("hw", "hwc", "chw")
"""How the axes of one example can be laid out, as the model gets it."""
_SMALLEST, _COLOURS = 4, (1, 3)
_THUMBNAIL = 96
_PNG_SIDE = 40
"""Longest side of a picture that is stored without loss; larger ones in colour are photographs."""
_HEAT = np.array([0xFF, 0x4D, 0x00])


def image_layout(shape: tuple[int, ...]) -> str | None:
    """The layout of examples of that shape where they are images: ``"hw"``, ``"hwc"``, ``"chw"``, else None.

    Images have two axes of at least four pixels, and with a third axis one or three colours there; an alpha channel is
    not looked for.
    """
    if len(shape) == 2 and min(shape) >= _SMALLEST and max(shape) <= 16 * min(shape):
        return "hw"
    if len(shape) == 3:
        for layout, channels, sides in (("chw", shape[0], shape[1:]), ("hwc", shape[2], shape[:2])):
            if channels in _COLOURS and min(sides) >= _SMALLEST:
                return layout
    return None


def check_layout(layout: str, shape: tuple[int, ...]) -> None:
    """Refuse a layout that does not fit.

    Raises:
        SettingsError: it is unknown, or examples of that shape cannot have it.
    """
    if layout not in IMAGE_LAYOUTS:
        raise SettingsError(f"The layout of images {layout!r} is not known; give one of {', '.join(IMAGE_LAYOUTS)}.")
    if len(shape) != len(layout) or ("c" in layout and shape[layout.index("c")] not in _COLOURS):
        raise SettingsError(
            f"Examples of shape {shape} are no images of layout {layout}; leave the layout out, or give the right one."
        )


@dataclass(frozen=True)
class Look:
    """How examples become pictures, the same for all of them, so that they can be compared.

    Attributes:
        layout: one of ``IMAGE_LAYOUTS``.
        black, white: the values that are shown as such.
    """

    layout: str
    black: float
    white: float


def look_of(sample: npt.NDArray, layout: str) -> Look:
    """Black and white for examples like these: 0 and 255 or 1 where the values are such, else their own range.

    Args:
        sample: (M, ...) finite values, without normalisation.
        layout: one of ``IMAGE_LAYOUTS``.
    """
    low, high = float(sample.min()), float(sample.max())
    if sample.dtype == np.bool_ or (low >= 0 and high <= 1 and high > 0.1):
        return Look(layout, 0.0, 1.0)
    if low >= 0 and high <= 255 and (sample.dtype == np.uint8 or high > 100):
        return Look(layout, 0.0, 255.0)
    return Look(layout, low, high if high > low else low + 1.0)


def undo_preprocess(example: npt.NDArray, preprocess: Any, layout: str | None) -> npt.NDArray:
    """The model's input with mean and std taken back, so that normalised pictures look like pictures.

    Args:
        example: (...) as the source gives it.
        preprocess: a :class:`vogcore.data.Preprocess`, or None.
        layout: where the colours are; without it a mean for each colour stays as it is.
    """
    mean, std = getattr(preprocess, "mean", None), getattr(preprocess, "std", None)
    if mean is None and std is None:
        return example
    axis = layout.index("c") if layout and "c" in layout else None
    result = example.astype(np.float64)
    for values, default in ((std, 1.0), (mean, 0.0)):
        array = np.atleast_1d(np.asarray(default if values is None else values, np.float64))
        if len(array) > 1:
            if axis is None or result.shape[axis] != len(array):
                return example
            array = array.reshape([-1 if at == axis else 1 for at in range(result.ndim)])
        result = result * array if default == 1.0 else result + array
    return result


def as_pixels(example: npt.NDArray, look: Look) -> npt.NDArray[np.uint8]:
    """One example as 8-bit pixels, (H, W) grey or (H, W, 3) colours."""
    image = np.moveaxis(example, 0, -1) if look.layout == "chw" else example
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    scaled = (image.astype(np.float64) - look.black) / (look.white - look.black)
    return np.asarray(np.clip(np.rint(255 * np.nan_to_num(scaled)), 0, 255), np.uint8)


def overlay(pixels: npt.NDArray[np.uint8], vog: npt.NDArray) -> npt.NDArray[np.uint8] | None:
    """The picture in grey with its map of VoG over it in red, the more the larger; None where the two do not fit.

    Args:
        pixels: (H, W) or (H, W, 3).
        vog: (H, W) >= 0, with an axis of channels in front or behind, or (H * W).
    """
    sides = pixels.shape[:2]
    flat = _pixel_map(vog, sides)
    if flat is None:
        return None
    grey = pixels.astype(np.float64) if pixels.ndim == 2 else pixels @ np.array([0.299, 0.587, 0.114])
    finite = np.nan_to_num(flat, posinf=0.0)
    strength = 0.85 * (finite / finite.max() if finite.max() > 0 else finite)[..., None]
    mixed = (1 - strength) * (0.75 * grey[..., None]) + strength * _HEAT
    return np.asarray(np.rint(mixed), np.uint8)


def _pixel_map(vog: npt.NDArray, sides: tuple[int, ...]) -> npt.NDArray | None:
    vog = np.asarray(vog, np.float64)
    if vog.shape == sides:
        return vog
    if vog.ndim == 3 and vog.shape[1:] == sides:
        return np.asarray(vog.mean(axis=0))
    if vog.ndim == 3 and vog.shape[:2] == sides:
        return np.asarray(vog.mean(axis=2))
    return vog.reshape(sides) if vog.size == math.prod(sides) else None


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """A picture as the address that holds it: PNG where it is small or grey, else JPEG; at most 96 pixels a side."""
    from PIL import Image

    image = Image.fromarray(pixels)
    longest = max(image.size)
    if longest > _THUMBNAIL:
        size = [max(1, round(side * _THUMBNAIL / longest)) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    lossless = longest <= _PNG_SIDE or pixels.ndim == 2
    if lossless:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82)
    return f"data:image/{'png' if lossless else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
