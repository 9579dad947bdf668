"""Folders of images, one sub-folder for each class, read by Pillow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vogcore.data import ArraySource, Preprocess
from vogcore.data.items import Transform, open_items
from vogcore.errors import DataError, SettingsError

from ._decode import Decoder

__all__ = ["SUFFIXES", "open_folder"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
"""Files that count as images; others are passed over."""


def open_folder(
    path: str | os.PathLike[str],
    labels: Any = None,
    *,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    transform: Transform | None = None,
    mode: str | None = "RGB",
    resize: tuple[int, int] | None = None,
    x_name: None = None,
    y_name: None = None,
) -> ArraySource:
    """Open the images below a folder.

    The folders directly below `path` are the classes, sorted by name (as torchvision's ``ImageFolder`` has them), and
    images may lie deeper. Without sub-folders the images have no labels. The order is that of the relative paths,
    which are the ids (``cat/001.png``); it depends on the names alone. Hidden files and folders are passed over.

    Args:
        path: the folder.
        labels: class indices (N,) in place of those by folder.
        ids: in place of the relative paths.
        class_names: names in index order; with classes by folder they are names of folders, and say the order.
        preprocess: from pixels (N, height, width, 3) of type uint8 to the model's input.
        transform: called with every image (``PIL.Image.Image``), returns an array or tensor of one size; the same on
            every call. It must not flip or crop at random.
        mode: ``"RGB"``, ``"RGBA"`` or ``"L"``, which images are converted to; None leaves each as it is.
        resize: (height, width) to bring every image to (bilinear), before the transform. Without it and without a
            transform all images must have one size.
        x_name, y_name: must be None.

    Returns:
        The source. Examples are (height, width, channels) uint8 without a transform, and (height, width) in mode L.

    Raises:
        VogcoreError: Pillow is not installed.
        DataError: no such folder, no images in it, images beside class folders, one that cannot be read, sizes that
            differ, or a transform that is random.
        SettingsError: an unknown mode or size, or `x_name` or `y_name`.
    """
    name = str(path)
    if x_name is not None or y_name is not None:
        raise SettingsError(f"x_name and y_name choose arrays inside a file, and {name} is a folder of images.")
    decoder = Decoder(mode, resize)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{name} is not a folder: give the folder that holds the images.")
    files, folders = _images(root), _folders(root)
    loose = next((file for file in files if len(file.parts) == 1), None)
    used = sorted({file.parts[0] for file in files if len(file.parts) > 1})
    if not files:
        raise DataError(f"{name}: there are no images ({', '.join(SUFFIXES)}) in this folder: check the path.")
    if labels is None and used:
        if loose is not None:
            raise DataError(
                f"{name}: the image {str(loose)!r} lies beside the class folders {used[0]!r} and so on: move it into "
                "one of them."
            )
        labels, class_names = _labels(files, folders, class_names, name)
    shown = [file.as_posix() for file in files]

    def images(start: int, stop: int) -> Iterator[Any]:
        for relative in shown[start:stop]:
            yield decoder.open(root / relative, f"{name}/{relative}")

    return open_items(
        images,
        len(files),
        labels,
        labelled=False,
        ids=shown if ids is None else ids,
        class_names=class_names,
        preprocess=preprocess,
        transform=transform,
        name=name,
    )


def _images(root: Path) -> list[Path]:
    """Relative paths of all images, sorted part by part; links to folders are followed, as with torchvision."""
    found = []
    for folder, below, names in os.walk(root, followlinks=True):
        if os.path.islink(folder) and Path(folder).resolve() in [above.resolve() for above in Path(folder).parents]:
            below.clear()  # a link that leads back up has nothing new
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [
            Path(folder, name).relative_to(root)
            for name in names
            if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    return sorted(found, key=lambda file: file.parts)


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _labels(
    files: list[Path], folders: list[str], class_names: Sequence[str] | None, where: str
) -> tuple[np.ndarray, list[str]]:
    """Class index of each file by its folder; a folder without images keeps its place among the classes."""
    names = folders if class_names is None else list(class_names)
    index = {name: at for at, name in enumerate(names)}
    unknown = next((file for file in files if file.parts[0] not in index), None)
    if unknown is not None:
        raise DataError(
            f"{where}: {unknown.as_posix()!r} lies in the folder {unknown.parts[0]!r}, which is none of the class "
            "names: complete class_names, or leave it out."
        )
    return np.array([index[file.parts[0]] for file in files], np.int64), names
