"""One checkpoint of a live run while its gradients come in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore import kernels
from vogcore.errors import GradientError, StoreError
from vogcore.scoring.companions import label_loss
from vogcore.scoring.positions import Where, consecutive
from vogcore.scoring.sources import EPS, as_numpy
from vogcore.store._blocks import runs
from vogcore.store.live import LiveFolder
from vogcore.store.live_contents import LiveCheckpoint, Segment

__all__ = ["CheckpointUnderWay"]


@dataclass
class _Shard:
    """A shard of which some examples have been added."""

    segment: Segment
    seen: npt.NDArray[np.bool_]


class CheckpointUnderWay:
    """Takes the gradients of one checkpoint, in batches of any size; made by :meth:`LiveScorer.checkpoint`.

    A context manager: left without an exception it must have got every example. Shards that are complete are on disk
    at once, so an interrupted checkpoint goes on from there.

    Attributes:
        name: what the checkpoint is called.
        ended: nothing more can be added.
    """

    def __init__(self, folder: LiveFolder, checkpoint: LiveCheckpoint, skipped: bool, memory: int) -> None:
        self.name = checkpoint.name
        self.ended = False
        self._folder, self._contents, self._checkpoint = folder, folder.contents, checkpoint
        shards = range(self._contents.n_shards)
        self._skipped = {shard for shard in shards if skipped or folder.pending is None or folder.has(shard)}
        self._written: set[int] = set()
        self._open: dict[int, _Shard] = {}
        self._limit = max(memory // (self._contents.row_bytes * self._contents.shard_size), 1)

    def missing(self) -> list[tuple[int, int]]:
        """Examples whose gradients are still needed, as runs (start, stop)."""
        size = self._contents.shard_size
        needed = np.ones(self._contents.n_examples, dtype=bool)
        for shard in range(self._contents.n_shards):
            rows = needed[shard * size : (shard + 1) * size]
            if shard in self._skipped or shard in self._written:
                rows[:] = False
            elif shard in self._open:
                rows[:] = ~self._open[shard].seen
        return runs(np.flatnonzero(needed))

    def add(self, where: Where, gradients: Any, logits: Any = None) -> None:
        """Add the gradients of some examples.

        Args:
            where: position of the first example, or the positions (b,) of all of them.
            gradients: (b, *shape) float16, float32, float64 or bfloat16: NumPy, or anything that NumPy or DLPack
                converts.
            logits: (b, C), optional; then for every example of every checkpoint. They give predictions, and with
                labels the loss, by which the direction of the scores is measured.

        Raises:
            GradientError: type or shape do not fit, a value is not finite, or an example came twice.
            StoreError: the disk is full or failed; complete checkpoints are kept.
        """
        if self.ended:
            raise GradientError(f"Checkpoint {self.name!r} has ended; begin it again to go on with it.")
        what = f"A batch of checkpoint {self.name!r}"
        values = as_numpy(gradients, what)
        if values.dtype.name not in EPS or values.shape[1:] != self._contents.shape:
            raise GradientError(
                f"{what} is {values.dtype} of shape {values.shape}; gradients are floating-point numbers of shape "
                f"(b, {', '.join(map(str, self._contents.shape))})."
            )
        scores = None if logits is None else self._check_logits(as_numpy(logits, f"{what}, logits,"), len(values))
        for start, (rows, row_logits) in consecutive(where, (values, scores), what):
            assert rows is not None
            if start + len(rows) > self._contents.n_examples:
                raise GradientError(
                    f"{what} reaches to example {start + len(rows) - 1}, and there are {self._contents.n_examples}."
                )
            for shard, first, last in self._pieces(start, start + len(rows)):
                part = slice(first - start, last - start)
                try:
                    self._add(shard, first, rows[part], None if row_logits is None else row_logits[part])
                except BaseException:
                    self._open.pop(shard, None)  # half a batch may be in its moments
                    raise

    def _check_logits(self, logits: npt.NDArray, count: int) -> npt.NDArray:
        labels = self._contents.labels
        classes = int(labels.max()) + 1 if labels is not None else 1
        if logits.ndim != 2 or len(logits) != count or logits.shape[1] < classes or logits.dtype.kind not in "fV":
            raise GradientError(
                f"The logits of checkpoint {self.name!r} are {logits.dtype} of shape {logits.shape}; ({count}, C) "
                f"floating-point numbers with C of at least {classes} are needed."
            )
        return logits.astype(np.float64)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        size = self._contents.shard_size
        for shard in range(start // size, -(-stop // size)):
            yield shard, max(start, shard * size), min(stop, (shard + 1) * size)

    def _add(self, shard: int, first: int, gradients: npt.NDArray, logits: npt.NDArray | None) -> None:
        if shard in self._skipped:
            return
        offset = first - shard * self._contents.shard_size
        rows = slice(offset, offset + len(gradients))
        entry = self._open.get(shard)
        if shard in self._written or (entry is not None and entry.seen[rows].any()):
            taken = 0 if entry is None else int(np.argmax(entry.seen[rows]))
            raise GradientError(f"Example {first + taken} of checkpoint {self.name!r} has been added already.")
        if entry is None:
            entry = self._open[shard] = self._begin(shard, logits is not None)
        self._update(entry, rows, first, gradients, logits)
        entry.seen[rows] = True
        if entry.seen.all():
            del self._open[shard]
            self._folder.write(shard, entry.segment)
            self._written.add(shard)

    def _begin(self, shard: int, with_logits: bool) -> _Shard:
        if len(self._open) >= self._limit:
            raise GradientError(
                f"The examples of checkpoint {self.name!r} come so scattered that {len(self._open) + 1} shards would "
                "have to be in memory at once; give them in runs, make shards smaller, or give more memory."
            )
        n, c = self._contents.rows(shard), self._contents
        segment = self._folder.last_segment(shard, self._checkpoint)
        predicted = np.full((1, n), -1, np.int32) if with_logits else None
        labelled = with_logits and c.labels is not None
        probability = np.full((1, n), np.nan, np.float32) if labelled else None
        if segment is None:
            shape, dtype = (n, c.pixels), np.dtype(c.moments)
            checkpoints = [self._checkpoint]
            first = len(self._folder.checkpoints)
            segment = Segment(first, checkpoints, np.empty(shape, dtype), np.empty(shape, dtype), np.empty((1, n)), 0.0)
            segment.predicted, segment.probability = predicted, probability
        else:
            if (segment.predicted is not None) is not with_logits:
                raise GradientError(
                    f"Checkpoint {self.name!r} comes {'with' if with_logits else 'without'} logits, and the one before "
                    "it did not do so; give them for all checkpoints or for none."
                )
            segment.checkpoints.append(self._checkpoint)
            segment.magnitude = np.concatenate([segment.magnitude, np.empty((1, n))])
            if segment.predicted is not None and predicted is not None:
                segment.predicted = np.concatenate([segment.predicted, predicted])
            if segment.probability is not None and probability is not None:
                segment.probability = np.concatenate([segment.probability, probability])
        segment.loss = np.full(n, np.nan) if labelled else None
        return _Shard(segment, np.zeros(n, dtype=bool))

    def _update(
        self, entry: _Shard, rows: slice, first: int, gradients: npt.NDArray, logits: npt.NDArray | None
    ) -> None:
        segment = entry.segment
        if (segment.predicted is not None) is not (logits is not None):
            raise GradientError(f"Give logits with all gradients of checkpoint {self.name!r}, or with none.")
        magnitude = kernels.update_moments(
            gradients,
            segment.mean[rows],
            segment.m2[rows],
            step=len(segment.checkpoints),
            channel_axis=self._contents.channel_axis,
            channels=self._contents.channels,
        )
        self._require_finite("gradient", np.isfinite(magnitude), first)
        segment.magnitude[-1, rows] = magnitude
        segment.eps = max(segment.eps, EPS[gradients.dtype.name])
        if logits is None:
            return
        self._require_finite("logits", np.isfinite(logits).all(axis=1), first)
        assert segment.predicted is not None
        segment.predicted[-1, rows] = logits.argmax(axis=1)
        if segment.loss is not None and segment.probability is not None and self._contents.labels is not None:
            loss = label_loss(logits, self._contents.labels[first : first + len(logits)])
            segment.probability[-1, rows] = np.exp(-loss)
            segment.loss[rows] = loss

    def _require_finite(self, what: str, finite: npt.NDArray[np.bool_], first: int) -> None:
        if not finite.all():
            where = first + int(np.argmin(finite))
            raise GradientError(
                f"The {what} of example {where} (id {self._contents.ids[where]}) at checkpoint {self.name} is not "
                "finite (NaN or infinite); leave that checkpoint out (discard()), or look for overflow in the model."
            )

    def abandon(self) -> None:
        """End without the examples that are missing; complete shards stay."""
        self.ended = True
        self._open.clear()

    def __enter__(self) -> CheckpointUnderWay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        missing = self.missing()
        self.abandon()
        if kind is None and missing:
            count = sum(stop - start for start, stop in missing)
            raise GradientError(
                f"Checkpoint {self.name!r} is not complete: {count} examples are missing, first {missing[0][0]}; "
                "add it again with all of them."
            )
        if kind is None and self._folder.pending == self._checkpoint:
            raise StoreError(f"Checkpoint {self.name!r} is not complete in {self._folder.path}; add it again.")
