"""The pass over gradients: blocks of examples outside, checkpoints inside.

The moments of one block live in memory and nothing else grows with the number of examples or checkpoints but the
scores and predictions themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vogcore import kernels
from vogcore._types import ExampleSource
from vogcore.errors import CheckpointError, GradientError, SettingsError
from vogcore.scoring.companions import label_loss
from vogcore.scoring.moments import BlockMoments, RawScores
from vogcore.scoring.progress import Progress
from vogcore.scoring.sessions import Sessions
from vogcore.scoring.settings import Settings

__all__ = ["Blocks", "Clock", "GradientPass", "ModelPass", "block_size"]


class Clock:
    """Seconds spent in each part of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = time.perf_counter()

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the time of the body to ``part``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begun

    def total(self) -> dict[str, float]:
        """All parts and ``total``, the wall time since the clock was made."""
        return {**self.seconds, "total": time.perf_counter() - self._begun}


class Blocks(Protocol):
    """Gradients of a run of examples at one checkpoint, batch by batch."""

    names: Sequence[str]
    """Name of every checkpoint, for messages."""
    device: str
    """Where the gradients lie: "cpu" or "cuda"."""

    def begin(self, start: int, stop: int) -> None:
        """The examples ``start`` to ``stop`` come next, at every checkpoint in turn."""

    def batches(self, checkpoint: int) -> Iterator[tuple[int, Any]]:
        """Pairs (position in the data set, gradients (b, ...)) that cover the block; each is done with at the next."""


def block_size(
    count: int, example_bytes: int, pixels: int, sets: int, moment_bytes: int, memory: int, unit: int = 1
) -> int:
    """Examples whose moments and values fit into ``memory`` bytes; at least one, at most ``count``.

    Args:
        count: number of examples.
        example_bytes: bytes of one example.
        pixels: moments of one example.
        sets: how many sets of moments are kept.
        moment_bytes: bytes of one number.
        memory: bytes to stay within.
        unit: examples that are computed or read together. Blocks are whole multiples where they can be, so that the
            batches, and with them the bits of the gradients, are the same whatever the memory.

    Raises:
        SettingsError: ``memory`` is not positive.
    """
    if memory < 1:
        raise SettingsError(f"memory={memory} is not possible; give a positive number of bytes.")
    each = example_bytes + 2 * pixels * moment_bytes * sets
    size = int(np.clip(memory // max(each, 1), 1, count))
    return size if size < unit else size - size % unit


class GradientPass:
    """Streams gradients of any origin through the moments kernels."""

    def __init__(
        self,
        source: Blocks,
        *,
        ids: npt.NDArray,
        shape: tuple[int, ...],
        stages: Mapping[str, npt.NDArray[np.int64]],
        settings: Settings,
        channel_axis: int | None,
        size: int,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._source, self._ids, self._stages = source, ids, stages
        self._progress, self._clock, self._size = progress, clock, size
        self._moments = BlockMoments(
            stages,
            size,
            kernels.pixel_count(shape, channel_axis, settings.channels),
            channel_axis=channel_axis,
            channels=settings.channels,
            reduction=settings.reduction,
            dtype=settings.moments,
            device=source.device,
        )

    def run(self) -> dict[str, RawScores]:
        """Raw scores of every stage, in the order of the data set.

        Raises:
            GradientError: a gradient is not finite; the message names the checkpoint and the example.
        """
        n = len(self._ids)
        raw = {name: RawScores(np.empty(n), np.empty(n)) for name in self._stages}
        for start in range(0, n, self._size):
            stop = min(start + self._size, n)
            self._source.begin(start, stop)
            self._moments.start(stop - start)
            for checkpoint in range(len(self._source.names)):
                for position, gradients in self._source.batches(checkpoint):
                    with self._clock.time("kernels"):
                        magnitude = self._moments.add(checkpoint, position - start, gradients)
                    self._require_finite(magnitude, checkpoint, position)
                    self._progress.advance(len(gradients))
                with self._clock.time("kernels"):
                    self._moments.end(checkpoint)
            with self._clock.time("kernels"):
                for name, part in self._moments.results().items():
                    self._require_finite_scores(part.vog, name, start)
                    raw[name].vog[start:stop] = part.vog
                    raw[name].magnitude[start:stop] = part.magnitude
        return raw

    def _require_finite(self, magnitude: npt.NDArray[np.float64], checkpoint: int, position: int) -> None:
        finite = np.isfinite(magnitude)
        if finite.all():
            return
        where = position + int(np.argmin(finite))
        raise GradientError(
            f"The gradient of example {where} (id {self._ids[where]}) at checkpoint {self._source.names[checkpoint]} "
            "is not finite (NaN or infinite); leave that checkpoint or example out, or look for overflow in the model."
        )

    def _require_finite_scores(self, vog: npt.NDArray[np.float64], stage: str, position: int) -> None:
        """Finite gradients whose squares overflow."""
        finite = np.isfinite(vog)
        if finite.all():
            return
        where = position + int(np.argmin(finite))
        raise GradientError(
            f"The gradients of example {where} (id {self._ids[where]}) differ so much between the checkpoints of stage "
            f"{stage!r} that their squares overflow; leave the example out, or scale the gradients down."
        )


class ModelPass:
    """Gradients computed from checkpoints, with what the logits tell on the way."""

    def __init__(
        self,
        sessions: Sessions,
        source: ExampleSource,
        ids: npt.NDArray,
        names: Sequence[str],
        settings: Settings,
        *,
        classes: int,
        shape: tuple[int, ...],
        batch: int,
        writer: Any,
        clock: Clock,
    ) -> None:
        n, k = len(source), len(names)
        self.names, self.device = names, sessions.device
        self.predicted = np.empty((k, n), np.int32)
        self.probability = np.full((k, n), np.nan, np.float32)
        self.loss = np.full(n, np.nan)
        self.targets = np.empty(n, np.int64)
        self._sessions, self._source, self._ids, self._settings = sessions, source, ids, settings
        self._classes, self._shape, self._batch, self._writer, self._clock = classes, shape, batch, writer, clock
        self._labels = source.labels
        self._start = self._stop = 0
        self._x: npt.NDArray = np.empty(0)
        self._target: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def begin(self, start: int, stop: int) -> None:
        """Read a block of examples and decide its target classes."""
        self._start, self._stop = start, stop
        with self._clock.time("data"):
            self._x = self._source.read(start, stop)
        self._target = self._choose_targets()
        self.targets[start:stop] = self._target

    def _choose_targets(self) -> npt.NDArray[np.int64]:
        choice = self._settings.target
        if choice == "label":
            assert self._labels is not None
            return self._labels[self._start : self._stop]
        if choice != "predicted":
            return np.full(self._stop - self._start, choice, np.int64)
        index = range(len(self.names))[self._settings.target_checkpoint]
        with self._clock.time("sessions"):
            session = self._sessions.forward(index)
        target = np.empty(self._stop - self._start, np.int64)
        with self._clock.time("gradients"):
            for begin in range(0, len(self._x), self._batch):
                logits = session.run(self._x[begin : begin + self._batch])
                self._require_finite(logits, index, self._start + begin)
                target[begin : begin + self._batch] = logits.argmax(axis=1)
        return target

    def batches(self, checkpoint: int) -> Iterator[tuple[int, Any]]:
        """Run one checkpoint over the block."""
        with self._clock.time("sessions"):
            session = self._sessions.gradient(checkpoint)
        batch = self._batch
        run: Callable[..., tuple[npt.NDArray, Any]] = session.run
        if self.device != "cpu":
            run, batch = session.run_on_device, session.fixed_batch or self._batch
        for begin in range(0, len(self._x), batch):
            end = min(begin + batch, len(self._x))
            with self._clock.time("gradients"):
                logits, gradients = run(self._x[begin:end], self._target[begin:end])
            position = self._start + begin
            self._require_finite(logits, checkpoint, position)
            if gradients.shape[1:] != self._shape:
                raise CheckpointError(
                    f"Checkpoint {self.names[checkpoint]} gave gradients of shape {gradients.shape[1:]} and "
                    f"{self._shape} was expected; score checkpoints of one training run only."
                )
            self._note(checkpoint, position, logits)
            if self._writer is not None:
                with self._clock.time("storage"):
                    self._writer.write(checkpoint, position, kernels.to_host(gradients))
                    self._writer.write_logits(checkpoint, position, logits)
            yield position, gradients

    def _note(self, checkpoint: int, position: int, logits: npt.NDArray) -> None:
        rows = slice(position, position + len(logits))
        self.predicted[checkpoint, rows] = logits.argmax(axis=1)
        if self._labels is None:
            return
        loss = label_loss(logits, self._labels[rows])
        self.probability[checkpoint, rows] = np.exp(-loss)
        if checkpoint == len(self.names) - 1:
            self.loss[rows] = loss

    def _require_finite(self, logits: npt.NDArray, checkpoint: int, position: int) -> None:
        if logits.shape[1] != self._classes:
            raise CheckpointError(
                f"Checkpoint {self.names[checkpoint]} gave {logits.shape[1]} logits for an example and {self._classes} "
                "were expected; score checkpoints of one training run only."
            )
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            where = position + int(np.argmin(finite))
            raise GradientError(
                f"The logits of example {where} (id {self._ids[where]}) at checkpoint {self.names[checkpoint]} are not "
                "finite (NaN or infinite); leave that checkpoint or example out, or look for overflow in the model."
            )
