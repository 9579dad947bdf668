"""Running moments of one block of examples, for all stages at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore import kernels
from vogcore.scoring.stages import segments

__all__ = ["BlockMoments", "RawScores", "by_name", "raw_scores"]


@dataclass
class RawScores:
    """What one stage of one block comes to."""

    vog: npt.NDArray[np.float64]
    """Raw VoG (B,): the mean over pixels of the standard deviation (or variance) over the stage's checkpoints."""
    magnitude: npt.NDArray[np.float64]
    """Mean absolute gradient (B,) over the same checkpoints and pixels."""


def raw_scores(stages: Iterable[str], count: int) -> dict[str, RawScores]:
    """Room for the raw scores of ``count`` examples at every stage."""
    return {name: RawScores(np.empty(count), np.empty(count)) for name in stages}


def by_name(raw: Mapping[str, RawScores]) -> dict[str, npt.NDArray[np.float64]]:
    """The arrays of all stages, each under a name of its own."""
    return {
        f"{kind}/{name}": values
        for name, part in raw.items()
        for kind, values in (("vog", part.vog), ("magnitude", part.magnitude))
    }


@dataclass
class _Moments:
    mean: Any
    m2: Any
    count: int = 0


@dataclass
class _Stage:
    last: int
    merged: _Moments | None
    count: int
    magnitude: npt.NDArray[np.float64]
    result: npt.NDArray[np.float64] | None = field(default=None)


class BlockMoments:
    """Moments of a block: checkpoints are added in order, batch by batch; memory does not grow with their number.

    A segment (consecutive checkpoints of the same stages) has moments of its own. When it ends it is merged into its
    stages (Chan, Golub & LeVeque 1983); a stage of one segment is scored straight from it. So the thirds and ``all``
    together need two sets of moments. They lie where the gradients do, on the CPU or on a CUDA ``device``.
    """

    def __init__(
        self,
        stages: Mapping[str, npt.NDArray[np.int64]],
        capacity: int,
        pixels: int,
        *,
        channel_axis: int | None,
        channels: str,
        reduction: str,
        dtype: str,
        device: str = "cpu",
    ) -> None:
        self._channel_axis, self._channels, self._reduction = channel_axis, channels, reduction
        self._segments = segments(stages)
        self._stages = dict(stages)
        self._pieces = {name: sum(name in s.stages for s in self._segments) for name in stages}
        self._capacity, self._shape, self._dtype, self._device = capacity, pixels, dtype, device
        self._current = self._new()
        self._buffers = {name: self._new() for name, count in self._pieces.items() if count > 1}
        self.start(capacity)

    def _new(self) -> _Moments:
        shape = (self._capacity, self._shape)
        mean, m2 = (kernels.empty(shape, self._dtype, self._device) for _ in range(2))
        return _Moments(mean, m2)

    @staticmethod
    def sets(stages: Mapping[str, npt.NDArray[np.int64]]) -> int:
        """How many sets of moments (mean and M2) the stages need at once."""
        cut = segments(stages)
        return 1 + sum(sum(name in s.stages for s in cut) > 1 for name in stages)

    def start(self, size: int) -> None:
        """Begin a block of ``size`` examples, at most the capacity."""
        self._size = size
        self._results = {
            name: _Stage(int(indices[-1]), self._buffers.get(name), 0, np.zeros(size))
            for name, indices in self._stages.items()
        }
        for buffer in self._buffers.values():
            buffer.count = 0
        self._position = 0

    def shorten(self, size: int) -> None:
        """The block ends after ``size`` examples; possible until the first checkpoint has ended."""
        self._size = size
        for stage in self._results.values():
            stage.magnitude = stage.magnitude[:size]

    def add(self, checkpoint: int, start: int, gradients: Any) -> npt.NDArray[np.float64]:
        """Add one batch of gradients (b, ...) of one checkpoint, examples ``start`` on within the block.

        Returns:
            Mean absolute gradient (b,) of every example; not finite where a gradient is not.
        """
        segment = self._segments[self._position]
        stop = start + len(gradients)
        magnitude = kernels.update_moments(
            gradients,
            self._current.mean[start:stop],
            self._current.m2[start:stop],
            step=segment.checkpoints.index(checkpoint) + 1,
            channel_axis=self._channel_axis,
            channels=self._channels,
        )
        for name in segment.stages:
            self._results[name].magnitude[start:stop] += magnitude
        return magnitude

    def end(self, checkpoint: int) -> None:
        """All examples of the block have been added for ``checkpoint``."""
        segment = self._segments[self._position]
        if checkpoint != segment.checkpoints[-1]:
            return
        mean, m2 = self._current.mean[: self._size], self._current.m2[: self._size]
        count = len(segment.checkpoints)
        for name in segment.stages:
            stage = self._results[name]
            stage.count += count
            if stage.merged is None:
                stage.result = kernels.score_from_moments(m2, count, reduction=self._reduction)
                continue
            merged = stage.merged
            kernels.merge_moments(merged.mean[: self._size], merged.m2[: self._size], merged.count, mean, m2, count)
            merged.count += count
            if checkpoint == stage.last:
                stage.result = kernels.score_from_moments(
                    merged.m2[: self._size], merged.count, reduction=self._reduction
                )
        self._position += 1

    def results(self) -> dict[str, RawScores]:
        """Scores of every stage, once all checkpoints have been added."""
        scores = {}
        for name, stage in self._results.items():
            assert stage.result is not None, f"stage {name} is not complete"
            scores[name] = RawScores(stage.result, stage.magnitude / stage.count)
        return scores
