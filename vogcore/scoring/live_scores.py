"""From the moments of a live run to scores."""

from __future__ import annotations

import hashlib
import os
import warnings

import numpy as np
import numpy.typing as npt

from vogcore import kernels
from vogcore.errors import CheckpointError, GradientError, VogcoreWarning
from vogcore.scoring.assemble import Run
from vogcore.scoring.companions import LogitMeasures, LogitNotes
from vogcore.scoring.finish import finish
from vogcore.scoring.moments import RawScores
from vogcore.scoring.record import gradients_record
from vogcore.scoring.run import Clock
from vogcore.scoring.settings import Settings
from vogcore.scoring.stored import check_statistics, open_statistics, require_statistics
from vogcore.store import Scores
from vogcore.store.live import LiveFolder
from vogcore.store.live_contents import Segment
from vogcore.store.schema import ALL

__all__ = ["live_scores"]


def live_scores(folder: LiveFolder, settings: Settings, out: str | os.PathLike[str] | None, overwrite: bool) -> Scores:
    """Scores over the complete checkpoints of a live run; see :meth:`LiveScorer.scores`.

    Raises:
        CheckpointError: fewer than two checkpoints are complete.
        GradientError: squares overflowed.
        SettingsError: the statistics do not fit.
        StoreError: a shard is missing or damaged, or ``out`` cannot be written.
    """
    clock = Clock()
    contents, checkpoints = folder.contents, [checkpoint.info for checkpoint in folder.checkpoints]
    if len(checkpoints) < 2:
        raise CheckpointError(
            f"{folder.path}: {len(checkpoints) or 'no'} checkpoint is complete, and the variance over fewer than two "
            "is not defined; add another one first."
        )
    windows, notes = _stages(folder)
    classes_from = "labels" if contents.labels is not None else "none"
    record = gradients_record(
        settings, contents.channel_axis, windows, contents.settings, os.fspath(folder.path), classes_from
    )
    classes, stored = contents.classes, open_statistics(settings)
    if stored is not None:
        classes = check_statistics(stored, settings, record, classes, checkpoints, windows, exact=False)
        if contents.labels is not None:
            require_statistics(stored, settings, contents.labels)
    collected = _Collected(folder, windows, settings.reduction)
    with clock.time("storage"):
        for shard in range(contents.n_shards):
            collected.add(shard)
    for first, second in collected.repeated():
        notes.append(
            f"The gradients of {checkpoints[first].name} and {checkpoints[second].name} are the same, so one of them "
            "adds nothing; check that the checkpoints really differ."
        )
    for note in notes:
        warnings.warn(note, VogcoreWarning, stacklevel=3)
    n = contents.n_examples
    run = Run(
        labels=contents.labels if contents.labels is not None else np.full(n, -1, np.int64),
        groups=contents.labels if contents.labels is not None else np.zeros(n, np.int64),
        ids=contents.ids,
        classes=list(classes),
        checkpoints=checkpoints,
        stages=windows,
        raw=collected.raw,
        eps=collected.eps,
        logits=collected.logits,
        warnings=notes,
        timings=clock.seconds,
    )
    return finish(run, settings, record, stored, clock, out, overwrite)


def _stages(folder: LiveFolder) -> tuple[dict[str, npt.NDArray[np.int64]], list[str]]:
    """Checkpoint indices of every stage, ``all`` first, and what is left out."""
    found: dict[str, list[int]] = {ALL: []}
    for index, checkpoint in enumerate(folder.checkpoints):
        for name in (ALL, *checkpoint.stages):
            found.setdefault(name, []).append(index)
    notes = [
        f"Stage {name!r} has one checkpoint so far, so it has no variance and is left out."
        for name, indices in found.items()
        if len(indices) < 2
    ]
    return {name: np.array(indices, np.int64) for name, indices in found.items() if len(indices) > 1}, notes


class _Collected:
    """Scores and predictions of the shards read so far."""

    def __init__(self, folder: LiveFolder, windows: dict[str, npt.NDArray[np.int64]], reduction: str) -> None:
        n, k = folder.contents.n_examples, len(folder.checkpoints)
        self._folder, self._reduction, self._windows = folder, reduction, windows
        self.raw = {name: RawScores(np.empty(n), np.empty(n)) for name in windows}
        self.eps = 0.0
        self.logits: LogitNotes | None = LogitNotes(k, n, folder.contents.labels)
        self._digests = [hashlib.blake2b() for _ in range(k)]

    def add(self, shard: int) -> None:
        """Read a shard: its segments are merged in their order, as :class:`BlockMoments` merges those of a block."""
        contents = self._folder.contents
        start = shard * contents.shard_size
        rows = slice(start, start + contents.rows(shard))
        merged: dict[str, tuple[npt.NDArray, npt.NDArray, int]] = {}
        pieces = self._pieces()
        magnitudes = []
        for segment in self._folder.read(shard):
            count = len(segment.checkpoints)
            for name in (ALL, *segment.stages):
                if name not in self._windows:
                    continue
                if pieces[name] == 1:
                    self._score(name, rows, segment.m2, count)
                    continue
                mean, m2, so_far = merged.pop(name, (np.empty_like(segment.mean), np.empty_like(segment.m2), 0))
                kernels.merge_moments(mean, m2, so_far, segment.mean, segment.m2, count)
                merged[name] = (mean, m2, so_far + count)
            magnitudes.append(segment.magnitude)
            self.eps = max(self.eps, segment.eps)
            self._note_logits(segment, rows)
        for name, (_, m2, count) in merged.items():
            self._score(name, rows, m2, count)
        magnitude = np.concatenate(magnitudes)
        for name, indices in self._windows.items():
            # One after another, as a pass over the gradients adds them.
            total = np.zeros(magnitude.shape[1])
            for index in indices:
                total += magnitude[index]
            self.raw[name].magnitude[rows] = total / len(indices)
        for digest, values in zip(self._digests, magnitude, strict=True):
            digest.update(values.tobytes())

    def _pieces(self) -> dict[str, int]:
        first = [self._folder.checkpoints[start].stages for start, _ in self._folder.segments()]
        return {name: len(first) if name == ALL else sum(name in stages for stages in first) for name in self._windows}

    def _score(self, name: str, rows: slice, m2: npt.NDArray, count: int) -> None:
        vog = kernels.score_from_moments(m2, count, reduction=self._reduction)
        finite = np.isfinite(vog)
        if not finite.all():
            where = rows.start + int(np.argmin(finite))
            raise GradientError(
                f"The gradients of example {where} (id {self._folder.contents.ids[where]}) differ so much between the "
                f"checkpoints of stage {name!r} that their squares overflowed; leave the example out, or scale the "
                "gradients down."
            )
        self.raw[name].vog[rows] = vog

    def _note_logits(self, segment: Segment, rows: slice) -> None:
        if not segment.logits:
            self.logits = None
        elif self.logits is not None:
            for index in range(len(segment.checkpoints)):
                found = {name: values[index] if values.ndim > 1 else values for name, values in segment.logits.items()}
                self.logits.put(segment.first + index, rows, LogitMeasures(**found))

    def repeated(self) -> list[tuple[int, int]]:
        """Pairs of checkpoints with the same mean magnitude of every example, to the last bit."""
        found: dict[bytes, int] = {}
        first = [found.setdefault(digest.digest(), index) for index, digest in enumerate(self._digests)]
        return [(original, index) for index, original in enumerate(first) if original != index]
