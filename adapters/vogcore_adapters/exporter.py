"""Checkpoints of one training run, written into one folder when a schedule says so; knows no framework."""

from __future__ import annotations

import contextlib
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

from vogcore._checkpoint import checkpoint_metadata, save_checkpoint
from vogcore.errors import OutputExistsError, SettingsError, StoreError
from vogcore_adapters.schedule import Moment, Schedule, every_epoch

if TYPE_CHECKING:
    import os

    import onnx

    from vogcore.data import Preprocess

__all__ = ["CheckpointExporter", "Export", "Options"]

_NAME = re.compile(r"ckpt-(\d+)\.onnx")
_log = logging.getLogger(__name__)


class Options(TypedDict, total=False):
    """Keywords of every exporter and callback.

    * ``schedule``: when a checkpoint is due (:mod:`vogcore_adapters.schedule`); at the end of every epoch by default.
    * ``class_names``: names in the order of the logits, stored in every checkpoint.
    * ``preprocess``: the :class:`vogcore.data.Preprocess` between stored examples and the model's input, stored in
      every checkpoint; ``vogcore score`` applies it where it is given no other one.
    * ``keep_last``: delete all but this many of the newest checkpoints of the run (two or more). Nothing is deleted by
      default: the score needs the early ones as much as the late ones.
    * ``resume``: the folder holds checkpoints of the same run, which was interrupted; go on with it.
    * ``overwrite``: the folder holds checkpoints of another run, to be deleted when the first of this one is there.
    """

    schedule: Schedule | None
    class_names: Sequence[str] | None
    preprocess: Preprocess | None
    keep_last: int | None
    resume: bool
    overwrite: bool


@dataclass(frozen=True)
class Export:
    """One checkpoint that was written: where, when in training, how long it took, and its size."""

    path: Path
    step: int
    epoch: int | None
    seconds: float
    bytes: int


class CheckpointExporter:
    """Writes ``ckpt-<step>.onnx`` into a folder; the adapters give it their framework's way to ONNX.

    A file is there whole or not at all. With ``resume=True``, checkpoints that the interrupted run wrote beyond the
    point at which this one takes up training belong to a trajectory that was given up: they are renamed to
    ``ckpt-<step>.onnx.superseded``, so that no pattern ``*.onnx`` finds them, and nothing is lost. The same happens
    when training goes back to an earlier step, because a trainer starts again with smaller batches, say.

    Args:
        folder: where the checkpoints go; made if it does not exist.
        to_onnx: model -> ``onnx.ModelProto`` with the logits as output; must leave the model and the framework's random
            state as they were. Those of Python and NumPy are put back here.
        schedule, class_names, preprocess, keep_last, resume, overwrite: see :class:`Options`.

    Attributes:
        folder: the folder.
        exports: what this object has written, in order.
        class_names: as given; stored in every checkpoint from now on.

    Raises:
        OutputExistsError: the folder holds checkpoints, and neither ``resume`` nor ``overwrite`` was given.
        SettingsError: a keyword has an unusable value.
        StoreError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        to_onnx: Callable[[Any], onnx.ModelProto],
        *,
        schedule: Schedule | None = None,
        class_names: Sequence[str] | None = None,
        preprocess: Preprocess | None = None,
        keep_last: int | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.exports: list[Export] = []
        self._to_onnx = to_onnx
        self._schedule = every_epoch() if schedule is None else schedule
        self.class_names, self._preprocess = class_names, preprocess
        self._keep_last = keep_last
        self._now: Moment | None = None
        self._check(resume, overwrite)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The folder {self.folder} for checkpoints cannot be made: {error.strerror}.") from error
        found = {int(name[1]): path for path in self.folder.iterdir() if (name := _NAME.fullmatch(path.name))}
        if found and self._writes() and not (resume or overwrite):
            raise OutputExistsError(
                f"{self.folder} holds {len(found)} checkpoints already; go on with their run (resume=True), replace "
                "them (overwrite=True) or give another folder."
            )
        self._resumed = found if resume else {}
        """Checkpoints of this run from before, by step, until it is known where this run takes up training."""
        self._epoch = None if self._resumed else 0
        self._replaced = {} if resume else found
        """Checkpoints of another run, which go when the first of this one is there."""
        self._own: dict[int, Path] = {}
        """Checkpoints of this run."""

    def _check(self, resume: bool, overwrite: bool) -> None:
        from vogcore.data import Preprocess

        if not isinstance(self._schedule, Schedule):
            raise SettingsError("schedule must be one of vogcore_adapters.schedule, such as every_n_steps(100).")
        if self._preprocess is not None and not isinstance(self._preprocess, Preprocess):
            raise SettingsError("preprocess must be a vogcore.data.Preprocess.")
        if self._keep_last is not None and (not isinstance(self._keep_last, int) or self._keep_last < 2):
            raise SettingsError(
                f"keep_last={self._keep_last!r} is not possible; a score needs 2 checkpoints, so keep 2 or more."
            )
        if resume and overwrite:
            raise SettingsError("resume and overwrite exclude each other; checkpoints are gone on with or replaced.")
        checkpoint_metadata(class_names=self.class_names)

    def save(self, model: Any, step: int, epoch: int | None = None) -> Path:
        """Write ``ckpt-<step>.onnx`` now, whatever the schedule says; one of the same step is replaced.

        Args:
            model: what the adapter takes.
            step: optimiser steps taken so far.
            epoch: epochs completed so far.

        Returns:
            The path written. A process of a distributed training that is not the one to write returns it at once.

        Raises:
            SettingsError: ``step`` or ``epoch`` is not an integer of at least 0.
            ModelError: the model cannot be exported.
            StoreError: the file cannot be written.
        """
        preprocess = None if self._preprocess is None else self._preprocess.to_dict()
        metadata = checkpoint_metadata(step, epoch, self.class_names, preprocess)
        path = self.folder / f"ckpt-{int(step)}.onnx"
        if not self._writes():
            return path
        started = time.perf_counter()
        with _same_random_numbers():
            exported = self._to_onnx(model)
        self._take_up(int(step))
        save_checkpoint(exported, path, metadata)
        export = Export(path, int(step), epoch, time.perf_counter() - started, path.stat().st_size)
        self.exports.append(export)
        _log.info("%s: %.2f s, %s", path, export.seconds, _size(export.bytes))
        self._tidy(int(step), path)
        return path

    def observe(self, model: Any, moment: Moment) -> Path | None:
        """Write a checkpoint if the schedule says that one is due; for callbacks, which know where training is.

        Steps that were passed over since the last call (a framework may take several at once) count as reached now. A
        step is written once, even if it is due after the step and again at the end of its epoch.
        """
        before, self._now = self._now, moment
        if before is not None and moment.step < before.step:
            _log.warning(
                "Training went back from step %d to %d; checkpoints from there on are renamed to .superseded in %s.",
                before.step, moment.step, self.folder,
            )  # fmt: skip
            before, self._resumed, self._own = None, self._own, {}
        self._take_up(moment.step)
        passed = range(before.step + 1 if before is not None else moment.step, moment.step)
        due = self._schedule.due(moment) and (before is None or moment.step > before.step or moment.epoch_end)
        if not due and not any(self._schedule.due(Moment(step, moment.epoch)) for step in passed):
            return None
        if moment.step in self._own:
            return None
        return self.save(model, moment.step, moment.epoch)

    def step(self, model: Any, step: int | None = None) -> Path | None:
        """Say that an optimiser step was taken, in a training loop of your own; writes a checkpoint if one is due.

        Args:
            model: what the adapter takes.
            step: steps taken so far; counted by this object if None.

        Returns:
            The path, or None where no checkpoint was due.

        Raises:
            SettingsError: the run is resumed and the first call does not say the step; else as :meth:`save`.
        """
        if step is None:
            if self._now is None and self._epoch is None:
                raise SettingsError("The run is resumed, so pass how many steps were taken before: step(model, step).")
            step = self._now.step + 1 if self._now is not None else 1
        return self.observe(model, Moment(step, self._epoch))

    def end_epoch(self, model: Any, epoch: int | None = None) -> Path | None:
        """Say that an epoch has ended; writes a checkpoint if one is due.

        Args:
            model: what the adapter takes.
            epoch: epochs completed so far; counted by this object if None.

        Returns:
            The path, or None where no checkpoint was due.

        Raises:
            SettingsError: no step was taken before, or the run is resumed and the first call does not say the epoch.
        """
        if self._now is None:
            raise SettingsError("No step was taken in this epoch: call step(model) after each step of the optimiser.")
        if epoch is None:
            if self._epoch is None:
                raise SettingsError("The run is resumed, so pass how many epochs are done: end_epoch(model, epoch).")
            epoch = self._epoch + 1
        self._epoch = epoch
        return self.observe(model, Moment(self._now.step, epoch, epoch_end=True))

    def report(self) -> str:
        """How many checkpoints were written, how long that took and how large they are, in one line."""
        seconds, size = sum(e.seconds for e in self.exports), sum(e.bytes for e in self.exports)
        return f"{len(self.exports)} checkpoints in {self.folder}: {seconds:.1f} s, {_size(size)}."

    def __enter__(self) -> CheckpointExporter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _log.info("%s", self.report())

    def _writes(self) -> bool:
        """Whether this process is the one that writes; one of a distributed training is."""
        return True

    def _take_up(self, step: int) -> None:
        """At the first moment of a resumed run: what the interrupted one wrote from there on goes out of the way."""
        if not self._writes():
            return
        for found, path in self._resumed.items():
            if found < step:
                self._own[found] = path
            else:
                _rename_aside(path)
        self._resumed = {}

    def _tidy(self, step: int, path: Path) -> None:
        """Delete what was asked to be deleted, now that a new checkpoint is there."""
        self._own[step] = path
        old = [other for other in self._replaced.values() if other != path]
        self._replaced = {}
        if self._keep_last is not None:
            old += [self._own.pop(number) for number in sorted(self._own)[: -self._keep_last]]
        for other in old:
            other.unlink(missing_ok=True)


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Training draws the numbers afterwards that it would have drawn anyway; jax2onnx, for one, uses NumPy's."""
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _rename_aside(path: Path) -> None:
    target = path.with_name(f"{path.name}.superseded")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.superseded-{number}")
    path.rename(target)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
