"""Per-pixel maps of VoG: a second pass over a few examples, once the scores are known.

A map of every example would take as much space as the data; those of the hardest are what people look at, and which
these are is known only in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore import kernels
from vogcore._types import ExampleSource
from vogcore.errors import SettingsError
from vogcore.scoring.progress import Progress
from vogcore.scoring.run import Blocks, Clock, block_size
from vogcore.scoring.sessions import Sessions
from vogcore.scoring.settings import Settings, require_integer
from vogcore.store import Maps, Scores

__all__ = ["MapPass", "Rows", "choose_maps", "given_rows", "model_rows"]

Rows = Callable[[int, npt.NDArray[np.int64]], Iterator[npt.NDArray]]
"""Gradients (b, ...) of the examples at some positions, at one checkpoint, in pieces that follow one another."""


def choose_maps(maps: Any, n: int) -> int | npt.NDArray[np.int64] | None:
    """Which maps are wanted: a number of hardest examples, positions (M,) int64, or None for no maps.

    Args:
        maps: as users give it: None, a number from 1 on, or positions.
        n: number of examples.

    Raises:
        SettingsError: it is none of these, or a position does not exist or comes twice.
    """
    if maps is None:
        return None
    if isinstance(maps, bool | str):
        raise SettingsError(f"maps={maps!r} is not possible; give a number of examples or their positions.")
    if np.ndim(maps) == 0:
        count = require_integer("maps", maps)
        if count < 1:
            raise SettingsError(f"maps={count} is not possible; give a number of examples from 1 on, or positions.")
        return min(count, n)
    positions = np.asarray(maps)
    if positions.ndim != 1 or positions.dtype.kind not in "iu" or not positions.size:
        raise SettingsError(
            f"maps must be a number or a list of positions, not {positions.dtype} values of shape {positions.shape}."
        )
    if positions.min() < 0 or positions.max() >= n:
        wrong = positions[(positions < 0) | (positions >= n)][0]
        raise SettingsError(f"maps asks for example {wrong}, and the examples are 0 to {n - 1}.")
    if len(np.unique(positions)) < len(positions):
        raise SettingsError("maps names an example twice; name each once.")
    return positions.astype(np.int64)


def given_rows(source: Blocks) -> Rows:
    """Gradients that are there already: an array or an archive."""

    def rows(checkpoint: int, index: npt.NDArray[np.int64]) -> Iterator[npt.NDArray]:
        for position in index.tolist():
            source.begin(position, position + 1)
            for _, gradients in source.batches(checkpoint):
                yield gradients

    return rows


def model_rows(sessions: Sessions, source: ExampleSource, targets: npt.NDArray[np.int64], batch: int) -> Rows:
    """Gradients computed anew at the target classes (N,) of the first pass."""

    def rows(checkpoint: int, index: npt.NDArray[np.int64]) -> Iterator[npt.NDArray]:
        session = sessions.gradient(checkpoint)
        for begin in range(0, len(index), batch):
            some = index[begin : begin + batch]
            x = np.concatenate([source.read(position, position + 1) for position in some.tolist()])
            yield session.run(x, targets[some])[1]

    return rows


@dataclass(frozen=True)
class MapPass:
    """The second pass.

    Attributes:
        wanted: what :func:`choose_maps` gave.
        rows: where gradients come from.
        names: name of every checkpoint.
        shape: shape of one example's gradient.
        channel_axis: axis of the channels in (N, ...), or None.
        settings: how gradients become scores.
        memory: bytes for the moments of the examples that are computed together.
        batch: examples that are computed together at least.
        progress, clock: told what is done.
    """

    wanted: int | npt.NDArray[np.int64]
    rows: Rows
    names: Sequence[str]
    shape: tuple[int, ...]
    channel_axis: int | None
    settings: Settings
    memory: int
    batch: int
    progress: Progress
    clock: Clock

    def add(self, scores: Scores) -> None:
        """Compute the maps and put them into the scores, with a word about them into the settings."""
        index = self.wanted if isinstance(self.wanted, np.ndarray) else scores.hardest(self.wanted)
        kind = "positions" if isinstance(self.wanted, np.ndarray) else "hardest"
        self.progress.start(len(index) * len(self.names), "maps")
        try:
            with self.clock.time("maps"):
                scores.maps = Maps(index, self._maps(index))
        finally:
            self.progress.close()
        scores.settings["maps"] = {kind: len(index)}

    def _maps(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        pixels = kernels.pixel_count(self.shape, self.channel_axis, self.settings.channels)
        result = np.empty((len(index), pixels), np.float32)
        itemsize = np.dtype(self.settings.moments).itemsize
        size = block_size(len(index), 0, pixels, 1, itemsize, self.memory, self.batch)
        for start in range(0, len(index), size):
            part = index[start : start + size]
            with np.errstate(over="ignore"):  # a variance can be beyond float32
                result[start : start + size] = self._block(part, pixels)
        return result.reshape(len(index), *self._pixel_shape())

    def _block(self, index: npt.NDArray[np.int64], pixels: int) -> npt.NDArray:
        mean, m2 = (np.empty((len(index), pixels), self.settings.moments) for _ in range(2))
        magnitude = np.zeros(len(index))
        for checkpoint in range(len(self.names)):
            at = 0
            for gradients in self.rows(checkpoint, index):
                stop = at + len(gradients)
                magnitude[at:stop] += kernels.update_moments(
                    gradients,
                    mean[at:stop],
                    m2[at:stop],
                    step=checkpoint + 1,
                    channel_axis=self.channel_axis,
                    channels=self.settings.channels,
                )
                self.progress.advance(len(gradients))
                at = stop
        spread = m2 / len(self.names)
        if self.settings.reduction == "std":
            np.sqrt(spread, out=spread)
        if self.settings.scale == "relative":
            magnitude = (magnitude / len(self.names))[:, None]
            spread = np.divide(spread, magnitude, out=np.zeros_like(spread), where=magnitude > 0)
        return spread

    def _pixel_shape(self) -> tuple[int, ...]:
        if self.channel_axis is None or self.settings.channels == "none":
            return self.shape
        return self.shape[: self.channel_axis - 1] + self.shape[self.channel_axis :]
