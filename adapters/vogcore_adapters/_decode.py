"""Encoded images to arrays, by Pillow."""

from __future__ import annotations

import io
from typing import Any

from vogcore.errors import DataError, SettingsError

from ._require import require

__all__ = ["Decoder"]

_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pillow's modes that survive a conversion to ``L`` or ``RGB``; wider ones would be cut off without a word."""
_MODES = ("RGB", "RGBA", "L")


class Decoder:
    """Opens encoded images in one mode and, on request, one size.

    Args:
        mode: Pillow mode that images are converted to, ``"RGB"``, ``"RGBA"`` or ``"L"``; None leaves them as they are.
        resize: (height, width) to bring every image to, with Pillow's bilinear filter; None leaves the size.

    Raises:
        VogcoreError: Pillow is not installed.
        SettingsError: another mode, or a size that is none.
    """

    def __init__(self, mode: str | None, resize: tuple[int, int] | None) -> None:
        self._image = require("PIL.Image", "images", "Reading images")
        if mode is not None and mode not in _MODES:
            raise SettingsError(f"mode {mode!r} is unknown: choose one of {', '.join(_MODES)}, or None.")
        if resize is not None:
            if len(resize) != 2 or not all(isinstance(length, int) and length > 0 for length in resize):
                raise SettingsError(f"resize={resize!r} is not a size: give (height, width) in pixels.")
            self._size = (resize[1], resize[0])  # Pillow puts the width first
        self._mode, self._resize = mode, resize is not None

    def open(self, source: Any, where: str) -> Any:
        """The decoded ``PIL.Image.Image``.

        Args:
            source: a path, or the encoded bytes.
            where: the image, for messages.

        Raises:
            DataError: it cannot be decoded, or has more than eight bits for each channel and a mode was asked for.
        """
        try:
            with self._image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                image.load()
        # Pillow's decoders raise what they like on damaged files.
        except Exception as error:
            raise DataError(
                f"{where} cannot be read as an image ({type(error).__name__}: {error}): repair or remove it."
            ) from error
        return self.convert(image, where)

    def convert(self, image: Any, where: str) -> Any:
        """A decoded image in the mode and size asked for."""
        if self._mode is not None and image.mode != self._mode:
            if image.mode not in _EIGHT_BIT:
                raise DataError(
                    f"{where} has Pillow mode {image.mode}, which {self._mode} would cut off: convert it first, or "
                    "pass mode=None and a transform."
                )
            image = image.convert(self._mode)
        if self._resize and image.size != self._size:
            image = image.resize(self._size, self._image.Resampling.BILINEAR)
        return image
