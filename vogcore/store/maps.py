"""Per-pixel maps of VoG of chosen examples, and their place in a score file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError, StoreError

if TYPE_CHECKING:
    from vogcore.store._hdf5 import Reader

__all__ = ["Maps", "read_maps", "write_maps"]


@dataclass(eq=False)
class Maps:
    """Where in chosen examples the gradient varies over the checkpoints of the stage ``"all"``.

    Attributes:
        index: (M,) int64, positions of the examples in the data set, each at most once.
        vog: (M, ...) float32, per pixel the standard deviation (or variance) of S over all checkpoints, in the pixel
            shape that is left when the channels are reduced as in the run. Its mean over the pixels is ``vog_raw`` of
            the example, to rounding.

    Raises:
        SettingsError: the two do not fit together.
    """

    index: npt.NDArray[np.int64]
    vog: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if np.ndim(self.index) != 1 or np.ndim(self.vog) < 1 or len(self.index) != len(self.vog):
            raise SettingsError(
                f"Maps need one position for each map, not positions of shape {np.shape(self.index)} for maps of shape "
                f"{np.shape(self.vog)}."
            )

    def __len__(self) -> int:
        """Number of maps M."""
        return len(self.index)

    def of(self, position: int) -> npt.NDArray[np.float32]:
        """The map of the example at a position of the data set.

        Raises:
            SettingsError: there is no map of it.
        """
        found = np.flatnonzero(self.index == position)
        if not found.size:
            raise SettingsError(f"There is no map of example {position}; the maps are of the examples in Maps.index.")
        result: npt.NDArray[np.float32] = self.vog[found[0]]
        return result


def write_maps(file: Any, maps: Maps, n: int) -> None:
    """``maps/index`` and ``maps/vog``; ``file`` is an open ``h5py.File``.

    Raises:
        StoreError: a position is none of the ``n`` examples or comes twice, or the types do not fit.
    """
    from vogcore.store._tables import fit

    index = fit("maps/index", maps.index, "<i8", (len(maps),))
    vog = fit("maps/vog", maps.vog, "<f4", (len(maps), *np.shape(maps.vog)[1:]))
    problem = _problem(index, n)
    if problem is not None:
        raise StoreError(f"Cannot write maps/index: {problem}.")
    file["maps/index"], file["maps/vog"] = index, vog


def read_maps(reader: Reader, n: int) -> Maps | None:
    """The two datasets, checked; None where the file has no maps."""
    if reader.group("maps") is None:
        return None
    index = reader.read("maps/index", "i8", (None,))
    problem = _problem(index, n)
    if problem is not None:
        raise reader.damaged(f"maps/index is wrong: {problem}")
    node = reader.dataset("maps/vog", ("f4",), None)
    if node.shape[:1] != (len(index),):
        raise reader.damaged(f"maps/vog has shape {node.shape} for {len(index)} examples")
    return Maps(index, reader.values("maps/vog", node).astype(np.float32, copy=False))


def _problem(index: npt.NDArray[np.int64], n: int) -> str | None:
    if np.any((index < 0) | (index >= n)):
        return f"a position is outside of 0 to {n - 1}"
    return "a position comes twice" if len(np.unique(index)) < len(index) else None
