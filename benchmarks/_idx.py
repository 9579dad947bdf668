"""Fashion-MNIST as it is published: gzip-compressed idx files (the format of the original MNIST)."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = [
    "FASHION_CLASSES",
    "FILES",
    "MEAN",
    "STD",
    "ImageSet",
    "find_fashion_mnist",
    "load_fashion_mnist",
    "read_idx",
]

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# Mean and standard deviation of the training pixels divided by 255.
MEAN, STD = 0.2860, 0.3530

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}

_UINT8 = 0x08


@dataclass(frozen=True)
class ImageSet:
    """Grey images and their classes.

    Attributes:
        x: (N, 28, 28) uint8.
        y: (N,) int64.
    """

    x: npt.NDArray[np.uint8]
    y: npt.NDArray[np.int64]

    def head(self, n: int) -> ImageSet:
        """The first ``n`` examples."""
        return ImageSet(self.x[:n], self.y[:n])


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of a gzip-compressed idx file of unsigned bytes.

    Raises:
        ValueError: the file is not such a file, or its length is not what its header says.
        OSError: the file cannot be read.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a complete gzip file: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UINT8:
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    rank = content[3]
    if len(content) < 4 + 4 * rank:
        raise ValueError(f"{path} ends inside its header")
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape, dtype=object)):
        raise ValueError(f"{path} holds {values.size} values where its header says {shape}")
    return values.reshape(shape)


def find_fashion_mnist(folder: Path) -> Path | None:
    """The folder with the four files: ``folder/fashion-mnist`` or ``folder`` itself; None if neither has them all."""
    for candidate in (folder / "fashion-mnist", folder):
        if all((candidate / name).is_file() for names in FILES.values() for name in names):
            return candidate
    return None


def load_fashion_mnist(folder: Path) -> dict[str, ImageSet]:
    """``{"train": 60,000 images, "test": 10,000 images}`` from a folder that :func:`find_fashion_mnist` found.

    Raises:
        ValueError: a file is damaged, or images and labels differ in number.
    """
    sets = {}
    for part, (images, labels) in FILES.items():
        x, y = read_idx(folder / images), read_idx(folder / labels)
        if x.ndim != 3 or y.shape != x.shape[:1]:
            raise ValueError(f"{folder / images} holds {x.shape} and {labels} {y.shape}; they do not fit together")
        sets[part] = ImageSet(x, y.astype(np.int64))
    return sets
