"""The pass over gradients: blocks of examples outside, checkpoints inside.

The moments of one block live in memory and nothing else grows with the number of examples or checkpoints but the
scores and predictions themselves.
"""

from __future__ import annotations

import math
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
from vogcore.scoring.pace import Pace
from vogcore.scoring.progress import Progress
from vogcore.scoring.sessions import Sessions
from vogcore.scoring.settings import Settings
from vogcore.store import GradientWriter

__all__ = ["Blocks", "Clock", "GradientPass", "ModelPass", "block_size"]

_READ_BYTES = 32 << 20
"""Examples are read in runs of about so many bytes: few reads, and little read in vain where a block ends early."""
_FORWARD_COST = 1 / 3
"""Time of a forward pass in units of a gradient pass, roughly."""


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
    stop: int
    """Where the block ends: as :meth:`begin` was told, or before, which is decided until the first checkpoint ends."""
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

    def run(
        self,
        raw: Mapping[str, RawScores],
        missing: Sequence[tuple[int, int]],
        finished: Callable[[int, int], None] = lambda start, stop: None,
    ) -> None:
        """Score examples.

        Args:
            raw: where the scores of every stage go, in the order of the data set.
            missing: runs (start, stop) of examples to score.
            finished: called with the first and one past the last example of every block, once it is scored.

        Raises:
            GradientError: a gradient is not finite; the message names the checkpoint and the example.
        """
        for start, last in missing:
            while start < last:
                stop = self._block(raw, start, min(start + self._size, last))
                with self._clock.time("storage"):
                    finished(start, stop)
                start = stop

    def _block(self, raw: Mapping[str, RawScores], start: int, stop: int) -> int:
        """Score a block of examples; returns where it ended."""
        self._source.begin(start, stop)
        self._moments.start(stop - start)
        for checkpoint in range(len(self._source.names)):
            for position, gradients in self._source.batches(checkpoint):
                with self._clock.time("kernels"):
                    magnitude = self._moments.add(checkpoint, position - start, gradients)
                self._require_finite(magnitude, checkpoint, position)
                self._progress.advance(len(gradients))
            if checkpoint == 0 and self._source.stop < stop:
                stop = self._source.stop
                self._moments.shorten(stop - start)
            with self._clock.time("kernels"):
                self._moments.end(checkpoint)
        with self._clock.time("kernels"):
            for name, part in self._moments.results().items():
                self._require_finite_scores(part.vog, name, start)
                raw[name].vog[start:stop] = part.vog
                raw[name].magnitude[start:stop] = part.magnitude
        return stop

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
    """Gradients computed from checkpoints, with what the logits tell on the way.

    A block ends where it has taken about ``seconds``.

    Attributes:
        writer: where the gradients and logits are kept on the way; None, until one is set.
    """

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
        clock: Clock,
        seconds: float = math.inf,
    ) -> None:
        n, k = len(source), len(names)
        self.names, self.device = names, sessions.device
        self.writer: GradientWriter | None = None
        self.predicted = np.empty((k, n), np.int32)
        self.probability = np.full((k, n), np.nan, np.float32)
        self.loss = np.full(n, np.nan)
        self.targets = np.empty(n, np.int64)
        self._sessions, self._source, self._ids, self._settings = sessions, source, ids, settings
        self._classes, self._shape, self._batch, self._clock = classes, shape, batch, clock
        self._labels = source.labels
        self._start = self.stop = 0
        self._pace = Pace(seconds)
        self._parts: list[npt.NDArray] = []
        example_bytes = max(int(np.prod(source.shape)) * np.dtype(source.dtype).itemsize, 1)
        self._read_rows = max(_READ_BYTES // example_bytes // batch, 1) * batch

    def results(self) -> dict[str, npt.NDArray]:
        """What is noted of every example, by name; the last axis runs over the examples."""
        return {
            "predicted": self.predicted,
            "probability": self.probability,
            "loss": self.loss,
            "targets": self.targets,
        }

    def begin(self, start: int, stop: int) -> None:
        """Decide the target classes of a block of examples."""
        self._start, self.stop = start, stop
        self._parts = []
        choice = self._settings.target
        if choice == "predicted":
            self._predict_targets()
        elif choice == "label":
            assert self._labels is not None
            self.targets[start:stop] = self._labels[start:stop]
        else:
            self.targets[start:stop] = choice

    def _predict_targets(self) -> None:
        index = range(len(self.names))[self._settings.target_checkpoint]
        self._pace.begin(_FORWARD_COST / (_FORWARD_COST + len(self.names)))
        with self._clock.time("sessions"):
            session = self._sessions.forward(index)
        self._pace.ready()
        for position, x in self._read():
            with self._clock.time("gradients"):
                logits = session.run(x)
            self._require_finite(logits, index, position)
            self.targets[position : position + len(x)] = logits.argmax(axis=1)

    def _read(self) -> Iterator[tuple[int, npt.NDArray]]:
        """Batches of the block, read for the first time; the block ends where they have taken long enough."""
        for start in range(self._start, self.stop, self._read_rows):
            with self._clock.time("data"):
                x = self._source.read(start, min(start + self._read_rows, self.stop))
            for begin in range(0, len(x), self._batch):
                part = x[begin : begin + self._batch]
                self._parts.append(part)
                yield start + begin, part
                if self._pace.is_over():
                    self.stop = start + begin + len(part)
                    return

    def _read_again(self) -> Iterator[tuple[int, npt.NDArray]]:
        position = self._start
        for part in self._parts:
            yield position, part
            position += len(part)

    def batches(self, checkpoint: int) -> Iterator[tuple[int, Any]]:
        """Run one checkpoint over the block."""
        self._pace.begin(1 / len(self.names))
        with self._clock.time("sessions"):
            session = self._sessions.gradient(checkpoint)
        self._pace.ready()
        run: Callable[..., tuple[npt.NDArray, Any]] = session.run
        step = None
        if self.device != "cpu":
            run, step = session.run_on_device, session.fixed_batch
        parts = self._read_again() if self._parts else self._read()
        for position, x in _in_steps(parts, step):
            with self._clock.time("gradients"):
                logits, gradients = run(x, self.targets[position : position + len(x)])
            self._require_finite(logits, checkpoint, position)
            if gradients.shape[1:] != self._shape:
                raise CheckpointError(
                    f"Checkpoint {self.names[checkpoint]} gave gradients of shape {gradients.shape[1:]} and "
                    f"{self._shape} was expected; score checkpoints of one training run only."
                )
            self._note(checkpoint, position, logits)
            if self.writer is not None:
                with self._clock.time("storage"):
                    self.writer.write(checkpoint, position, kernels.to_host(gradients), copy=False)
                    self.writer.write_logits(checkpoint, position, logits, copy=False)
            yield position, gradients
        if checkpoint == len(self.names) - 1:
            self._parts = []  # the last block's would lie beside everything that is made of the scores

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


def _in_steps(parts: Iterator[tuple[int, npt.NDArray]], step: int | None) -> Iterator[tuple[int, npt.NDArray]]:
    """Parts of a block cut into pieces of at most ``step`` examples, where there is such a limit."""
    for start, part in parts:
        for begin in range(0, len(part), step or len(part)):
            yield start + begin, part[begin : begin + (step or len(part))]
