"""Examples as pictures: which arrays are images, and in what range they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vogcore.data import open_source
from vogcore.errors import SettingsError

if TYPE_CHECKING:
    from vogcore._types import ExampleSource

__all__ = ["is_image", "open_images", "picture"]

_CHANNELS = (1, 3, 4)


def open_images(source: Any, n: int) -> ExampleSource:
    """The examples that were scored, from what :func:`vogcore.score` takes as ``data``.

    Raises:
        SettingsError: there are not ``n`` of them, so they are not those that were scored, or they are not images.
        DataError: they cannot be opened.
    """
    opened: ExampleSource = open_source(source, require_labels=False)
    if len(opened) != n:
        raise SettingsError(
            f"The source has {len(opened):,} examples and the scores are of {n:,}; pass the data that was scored, in "
            "the same order."
        )
    if not is_image(tuple(opened.shape)):
        raise SettingsError(
            f"Examples of shape {tuple(opened.shape)} are not images (height, width), with or without 1, 3 or 4 "
            "channels; pass the images that they were made from."
        )
    return opened


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether examples of this shape are (height, width), or that with 1, 3 or 4 channels in front or behind."""
    return len(shape) == 2 or (len(shape) == 3 and (shape[0] in _CHANNELS or shape[-1] in _CHANNELS))


def picture(source: ExampleSource, position: int) -> npt.NDArray:
    """One example as matplotlib shows it: (height, width) or (height, width, 3 or 4), of 0 to 1.

    Bytes keep their range. Other numbers are stretched from the example's smallest to its largest value unless they
    lie between 0 and 1, since what scale and mean did to them is not known here.

    Args:
        source: from :func:`open_images`.
        position: which example.

    Raises:
        DataError: the example cannot be read.
    """
    stored = source.read(position, position + 1)[0]
    image = stored.astype(np.float64)
    if image.ndim == 3 and image.shape[0] in _CHANNELS:  # where both ends could be channels, as for gradients
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if stored.dtype == np.uint8:
        return image / 255.0
    low, high = float(image.min()), float(image.max())
    if low < 0.0 or high > 1.0:
        image = (image - low) / (high - low) if high > low else np.zeros_like(image)
    return image
