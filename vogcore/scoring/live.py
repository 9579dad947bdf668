"""Scores while training runs, for a fixed set of examples, without keeping checkpoints or gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vogcore import kernels
from vogcore.errors import GradientError, SettingsError
from vogcore.scoring.inputs import check_outputs, choose_examples
from vogcore.scoring.live_checkpoint import CheckpointUnderWay
from vogcore.scoring.live_scores import live_scores
from vogcore.scoring.positions import Where
from vogcore.scoring.settings import MEMORY, Settings, choose_channel_axis
from vogcore.scoring.stages import can_be_named
from vogcore.store import CheckpointInfo, Scores
from vogcore.store.live import LiveFolder
from vogcore.store.live_contents import LiveCheckpoint, LiveContents

__all__ = ["LiveScorer"]


class LiveScorer:
    """Moments of input gradients on disk, one checkpoint after another, and scores from them at any time.

    The folder holds two numbers for each pixel of each example (and stage), however many checkpoints there are. A
    checkpoint counts when all examples have been added, and then survives a kill or a loss of power; one that was
    interrupted can be added again. The scores have the same bits as those of :func:`vogcore.score_gradients` on the
    same gradients, in any batches.

    To be used by one thread of one process at a time; another process is refused. A context manager that closes it.

    Args:
        path: folder of the run; created, or gone on with where it holds the same run.
        n_examples: number of examples N.
        shape: shape of one example's gradient.
        labels: (N,) class index of every example; None puts all into one class, and measures no direction.
        ids: (N,) int64 or str; the position by default.
        classes: class names in the order of the index; the numbers by default.
        channels, channel_axis, moments: see :class:`vogcore.scoring.Settings`; they decide what is kept.
        settings: what decided the gradients (``{"of": "logit"}``), recorded in score files.
        shard_size: examples in a file; by default as many as have 32 MB of moments. A shard is written when its
            examples are complete, so batches should come in runs, not scattered over the data set.
        memory: bytes for shards that are under way.
        overwrite: begin anew where the folder holds another run.

    Raises:
        DataError: labels, ids or class names do not fit.
        OutputExistsError: the folder is in use by another process, or holds another run; the message says what differs.
        SettingsError: a setting is unknown or impossible.
        StoreError: the folder cannot be written, is damaged, or holds something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_examples: int,
        shape: Sequence[int],
        *,
        labels: Any = None,
        ids: Any = None,
        classes: Sequence[str] | None = None,
        channels: str = "mean",
        channel_axis: int | None = None,
        moments: str = "float64",
        settings: Mapping[str, Any] | None = None,
        shard_size: int | None = None,
        memory: int = MEMORY,
        overwrite: bool = False,
    ) -> None:
        chosen = Settings(channels=channels, channel_axis=channel_axis, moments=moments)
        n, size = int(n_examples), tuple(int(length) for length in shape)
        if n < 1 or not size or min(size) < 1 or (shard_size is not None and shard_size < 1) or memory < 1:
            raise SettingsError(
                f"{n} examples of shape {size} in shards of {shard_size}, with {memory} bytes, are not possible; all "
                "must be positive."
            )
        axis = choose_channel_axis(chosen, size)
        pixels = kernels.pixel_count(size, axis, channels)
        checked, names, found_ids, _ = choose_examples(None, labels, ids, classes, n, os.fspath(path))
        contents = LiveContents(
            shape=size,
            pixels=pixels,
            moments=moments,
            channels=channels,
            channel_axis=axis,
            shard_size=shard_size or LiveContents.choose_shard_size(n, pixels, np.dtype(moments).itemsize),
            ids=found_ids,
            labels=checked,
            classes=names,
            settings=dict(settings or {}),
        )
        self._start(LiveFolder(path, contents, overwrite), memory)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, memory: int = MEMORY) -> LiveScorer:
        """A run that exists, as it was begun.

        Raises:
            OutputExistsError: another process has it.
            StoreError: there is none, or it is damaged.
        """
        scorer = cls.__new__(cls)
        scorer._start(LiveFolder(path, None), memory)
        return scorer

    def _start(self, folder: LiveFolder, memory: int) -> None:
        self._folder, self._memory = folder, memory
        self._found = {checkpoint.name for checkpoint in folder.checkpoints}
        self._under_way: CheckpointUnderWay | None = None

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    @property
    def checkpoints(self) -> list[CheckpointInfo]:
        """The complete checkpoints, in the order in which they were added."""
        return [checkpoint.info for checkpoint in self._folder.checkpoints]

    @property
    def interrupted(self) -> str | None:
        """Name of the checkpoint that some shards have and others have not, or None."""
        return self._folder.pending.name if self._folder.pending is not None else None

    def checkpoint(
        self,
        name: str,
        step: int | None = None,
        epoch: int | None = None,
        *,
        stages: Sequence[str] = (),
        sha256: str = "",
    ) -> CheckpointUnderWay:
        """Begin the next checkpoint of the training run, or go on with one that was interrupted; a context manager.

        A checkpoint that an earlier process completed may come again, as it does where training goes on from an older
        state: its gradients are skipped.

        Args:
            name: what it is called; every checkpoint has a name of its own.
            step: optimiser steps so far.
            epoch: epochs so far.
            stages: the windows that it belongs to, beside ``all``. Thirds of a run are not known while it is under way,
                so say it when you know it: ``stages=["early"] if step < 1000 else ["late"]``. A run of checkpoints with
                the same stages needs moments of its own on disk, so let stages change seldom.
            sha256: hex digest of the weights; one that was interrupted is then gone on with only by the same weights.

        Raises:
            GradientError: it was added by this process already, or another checkpoint is under way.
            SettingsError: a name cannot be used.
            StoreError: another checkpoint was interrupted (:attr:`interrupted`): add that one, or :meth:`discard` it.
        """
        folder = self._folder
        CheckpointInfo(name, step, epoch, sha256)
        for text in (name, *stages):
            if not can_be_named(text):
                raise SettingsError(f"A checkpoint or stage cannot be named {text!r}; choose another name.")
        if isinstance(stages, str):
            raise SettingsError(f"stages must be a list of names, not {stages!r}.")
        if self._under_way is not None and not self._under_way.ended:
            raise GradientError(f"Checkpoint {self._under_way.name!r} is under way; end it before {name!r} begins.")
        done = next((c for c in folder.checkpoints if c.name == name), None)
        if done is not None and name not in self._found:
            raise GradientError(f"Checkpoint {name!r} has been added already; give every checkpoint a name of its own.")
        new = LiveCheckpoint(name, step, epoch, sha256, tuple(dict.fromkeys(stages)))
        if done is None:
            folder.begin(new)
        self._under_way = CheckpointUnderWay(folder, new, done is not None, self._memory)
        return self._under_way

    def add(
        self,
        name: str,
        blocks: Iterable[tuple[Where, Any] | tuple[Where, Any, Any]],
        step: int | None = None,
        epoch: int | None = None,
        *,
        stages: Sequence[str] = (),
        sha256: str = "",
    ) -> None:
        """Add a whole checkpoint from an iterable of (position, gradients) or (position, gradients, logits).

        Where nothing of it is missing, ``blocks`` is not even begun. Otherwise as :meth:`checkpoint`.
        """
        with self.checkpoint(name, step, epoch, stages=stages, sha256=sha256) as checkpoint:
            if checkpoint.missing():
                for block in blocks:
                    checkpoint.add(*block)

    def discard(self) -> None:
        """Drop the interrupted checkpoint; the complete ones are exactly as if it had never begun."""
        if self._under_way is not None:
            self._under_way.abandon()
        self._folder.discard()

    def scores(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        reduction: str = "std",
        scale: str = "none",
        normalise: str = "class",
        statistics: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> Scores:
        """Scores over the complete checkpoints, as :func:`vogcore.score_gradients` makes them; training can go on.

        Args:
            out: score file to write.
            reduction, scale, normalise, statistics, overwrite: as for :func:`vogcore.score`.

        Returns:
            The scores. The direction is measured where labels and logits were given. A stage with a single checkpoint
            is left out.

        Raises:
            CheckpointError: fewer than two checkpoints are complete.
            StoreError: a shard is missing or damaged (named), or ``out`` cannot be written.
        """
        contents = self._folder.contents
        settings = Settings(
            channels=contents.channels,
            channel_axis=contents.channel_axis,
            moments=contents.moments,
            reduction=reduction,
            scale=scale,
            normalise=normalise,
            statistics=None if statistics is None else os.fspath(statistics),
        )
        check_outputs(out, None, overwrite)
        return live_scores(self._folder, settings, out, overwrite)

    def close(self) -> None:
        """Let others have the folder; what was added to complete shards is on disk already."""
        self._folder.close()

    def __enter__(self) -> LiveScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
