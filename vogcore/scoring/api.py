"""The call that most users make: :func:`score`."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vogcore import kernels
from vogcore._types import ExampleSource
from vogcore.data import Preprocess, open_source
from vogcore.data.items import Transform
from vogcore.errors import SettingsError, VogcoreWarning
from vogcore.runtime import choose_provider
from vogcore.scoring import pace
from vogcore.scoring.assemble import Run
from vogcore.scoring.checkpoints import Checkpoints, find_checkpoints, recorded_preprocess, recorded_wrt
from vogcore.scoring.finish import finish
from vogcore.scoring.identity import identity
from vogcore.scoring.inputs import (
    check_count,
    check_distinct,
    check_target_checkpoint,
    choose_batch,
    choose_class_names,
)
from vogcore.scoring.maps import MapPass, choose_maps, model_rows
from vogcore.scoring.moments import BlockMoments, by_name, raw_scores
from vogcore.scoring.progress import Progress, Silent
from vogcore.scoring.record import model_record
from vogcore.scoring.resume import Unfinished, tell
from vogcore.scoring.run import Clock, GradientPass, ModelPass, block_size
from vogcore.scoring.sessions import Sessions
from vogcore.scoring.settings import MEMORY, MOST_THREADS, Settings, choose_channel_axis
from vogcore.scoring.stages import StageSpec, resolve_stages
from vogcore.scoring.stored import check_statistics, open_statistics, require_statistics
from vogcore.store import CheckpointInfo, GradientWriter, Scores

__all__ = ["score"]


def score(
    checkpoints: Checkpoints,
    data: Any,
    labels: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    stages: StageSpec | None = None,
    of: str = "logit",
    target: Literal["label", "predicted"] | int = "label",
    target_checkpoint: int = -1,
    channels: str = "mean",
    channel_axis: int | None = None,
    reduction: str = "std",
    scale: str = "none",
    normalise: str = "class",
    statistics: str | os.PathLike[str] | None = None,
    moments: str = "float64",
    preprocess: Preprocess | None = None,
    transform: Transform | None = None,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    x_name: str | None = None,
    y_name: str | None = None,
    wrt: str | None = None,
    output: str | None = None,
    keep_gradients: str | os.PathLike[str] | None = None,
    keep_dtype: str = "float32",
    maps: Any = None,
    provider: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
    memory: int = MEMORY,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Variance of gradients of every example over the checkpoints of a training run.

    Agarwal, D'souza & Hooker, "Estimating Example Difficulty using Variance of Gradients" (CVPR 2022). For each
    example and checkpoint t, S_t is the gradient of the pre-softmax logit of the target class with respect to the
    input, averaged over the colour channels. Raw VoG is the mean over pixels of the standard deviation of S_t over the
    checkpoints (divisor K), and VoG is that, standardised inside each class. Which end is the hard one is measured on
    the run and recorded: see :attr:`Scores.direction`.

    Args:
        checkpoints: glob pattern, folder, or list of paths or ``onnx.ModelProto``, at least two; a pattern's matches
            are put in the order of training, a list is taken as it stands.
        data: examples (N, ...): an array, a path (.npz, .npy, .h5, .parquet, .zarr, a folder of images), a pair (x, y)
            or an example source.
        labels: class index of every example (N,), where ``data`` does not hold them. Not needed for a ``target``
            other than ``"label"``; then examples are normalised by target class and no direction can be measured.
        out: score file to write. While the run lasts, ``<out>.partial`` holds what is finished: after a kill or an
            interrupt the same call goes on from there, with the same bits in the end.
        stages: windows over the checkpoints, name -> slice or list of indices; by default, from six checkpoints on,
            the thirds ``early``, ``middle`` and ``late``. The stage ``all`` is always there.
        of, target, target_checkpoint, channels, channel_axis, reduction, scale, normalise, statistics, moments: how
            gradients become scores, see :class:`vogcore.scoring.Settings`.
        preprocess: from stored values to the model's input; None for what the checkpoints record, ``Preprocess()`` for
            none although they record one. Gradients are taken with respect to the model's input.
        transform: called with every stored example by itself, before ``preprocess``, see
            :func:`vogcore.data.open_source`; one that gives another result on a second call is refused.
        ids: stable id of every example (N,).
        class_names: name of every class, in index order.
        x_name, y_name: names inside an .npz or HDF5 file.
        wrt, output: see :func:`vogcore.gradient_model`; ``wrt`` is by default what the checkpoints record. With ``wrt``
            a float tensor inside the model, such as the output of an embedding, examples may be integers (tokens); they
            reach the model as they are stored.
        keep_gradients: gradient archive to write on the way, for :func:`score_gradients`.
        keep_dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"`` in the archive.
        maps: per-pixel maps, in a second pass over a few examples: a number, for that many of the hardest, or the
            positions of examples. They are in :attr:`Scores.maps`; the scores are written to ``out`` before the pass.
        provider: ``"auto"`` (CUDA where it works, else CPU), ``"cpu"`` or ``"cuda"``; a request that cannot be met is
            an error.
        threads: threads of ONNX Runtime inside an operator; all CPUs by default.
        batch_size: examples in one run of a model.
        memory: bytes for the moments and values of one block of examples; where gradients stay on a GPU the moments
            are in its memory, beside what ONNX Runtime needs there. It changes speed, not a bit of the scores, as long
            as a block holds a batch, so a run may go on with another one.
        overwrite: replace existing files, and start anew where an unfinished run cannot go on.
        progress: told how many examples x checkpoints are done.

    Returns:
        The scores, in the order of the data; also written to ``out``.

    Raises:
        OutputExistsError: ``out`` exists, another run is writing it, or ``<out>.partial`` is an unfinished run with
            other data, checkpoints or settings; the message names what differs.
        VogcoreError: one of its kinds, with one sentence that says what is wrong and where. Nothing half-written is
            left at ``out``; scores that cannot be written there in the end go to the temporary folder, and the
            message says so.
    """
    settings = Settings(
        of=of,
        target=target,
        target_checkpoint=target_checkpoint,
        channels=channels,
        channel_axis=channel_axis,
        reduction=reduction,
        scale=scale,
        normalise=normalise,
        statistics=None if statistics is None else os.fspath(statistics),
        moments=moments,
    )
    progress = progress if progress is not None else Silent()
    clock = Clock()
    check_distinct(out, keep_gradients)
    batch_size, threads = check_count("batch_size", batch_size), check_count("threads", threads, MOST_THREADS)
    stored = open_statistics(settings)
    with (
        Unfinished(out, keep_gradients, overwrite) as unfinished,
        contextlib.ExitStack() as opened,
        contextlib.ExitStack() as stack,
    ):
        source = open_source(
            data,
            labels,
            ids=ids,
            class_names=class_names,
            preprocess=preprocess,
            transform=transform,
            x_name=x_name,
            y_name=y_name,
            require_labels=settings.target == "label",
        )
        if isinstance(data, str | os.PathLike):  # opened here, closed here
            opened.callback(getattr(source, "close", lambda: None))
        chosen = choose_provider(provider)
        found, notes = find_checkpoints(checkpoints)
        for note in notes:
            warnings.warn(note, VogcoreWarning, stacklevel=2)
        wrt = recorded_wrt(found) if wrt is None else wrt
        # A source of the user's own is taken to give what the model wants.
        if preprocess is None and not isinstance(data, ExampleSource) and (made := recorded_preprocess(found)):
            if transform is not None:
                raise SettingsError(
                    "A transform was given and the checkpoints record preprocessing; say with preprocess= what comes "
                    "after the transform, Preprocess() for nothing."
                )
            source = open_source(source, preprocess=made, require_labels=False)
        windows = resolve_stages(len(found), stages)
        check_target_checkpoint(settings, len(found))
        sessions = Sessions(found, settings, chosen, threads, wrt=wrt, output=output)
        with clock.time("sessions"):
            model = sessions.check(source.read(0, 1))
        wanted = choose_maps(maps, len(source))
        n, batch = len(source), choose_batch(batch_size, source.shape, sessions.fixed_batch)
        ids = source.ids if source.ids is not None else np.arange(n, dtype=np.int64)
        classes = choose_class_names(source, found[-1].class_names, model.classes, settings)
        axis = choose_channel_axis(settings, model.gradient_shape)
        infos = [CheckpointInfo(c.name, c.step, c.epoch, c.sha256) for c in found]
        with clock.time("data"):
            fingerprint = source.fingerprint()
        notes += getattr(source, "notes", [])
        record = model_record(
            settings,
            axis,
            windows,
            source,
            fingerprint,
            wrt=wrt,
            output=output,
            provider=chosen,
            threads=threads,
            batch=batch,
        )
        if stored is not None:
            classes = check_statistics(stored, settings, record, classes, infos, windows, exact=True)
            if source.labels is not None:
                require_statistics(stored, settings, source.labels)
        size = block_size(
            n,
            int(np.prod(source.shape)) * np.dtype(source.dtype).itemsize,
            kernels.pixel_count(model.gradient_shape, axis, channels),
            BlockMoments.sets(windows),
            np.dtype(moments).itemsize,
            memory,
            batch,
        )
        models = ModelPass(
            sessions,
            source,
            ids,
            [c.name for c in found],
            settings,
            classes=model.classes,
            shape=model.gradient_shape,
            batch=batch,
            clock=clock,
            seconds=math.inf if out is None else pace.BLOCK_SECONDS,
        )
        raw, step = raw_scores(windows, n), min(size, batch)
        this = identity(
            record,
            infos,
            ids,
            classes,
            threads=sessions.threads,
            rows=step,
            graphs=sessions.structure,
            keep=keep_gradients,
            keep_dtype=keep_dtype,
        )
        with clock.time("storage"):
            goes_on = unfinished.begin(this, {**by_name(raw), **models.results()})
        if keep_gradients is not None and not unfinished.has_archive:
            models.writer = stack.enter_context(
                GradientWriter(
                    keep_gradients,
                    n,
                    model.gradient_shape,
                    keep_dtype,
                    labels=source.labels,
                    ids=ids,
                    classes=classes,
                    channel_axis=axis,
                    settings=record,
                    checkpoints=infos,
                    n_logits=model.classes,
                    overwrite=overwrite,
                    resume=goes_on,
                )
            )
        missing = unfinished.missing(models.writer, len(found), step)
        stack.callback(progress.close)
        tell(progress, missing, n, len(found))
        GradientPass(
            models,
            ids=ids,
            shape=model.gradient_shape,
            stages=windows,
            settings=settings,
            channel_axis=axis,
            size=size,
            progress=progress,
            clock=clock,
        ).run(raw, missing, unfinished.finished)
        unfinished.end()
        stack.close()  # the archive gets its name before the scores do
        run = Run(
            labels=source.labels if source.labels is not None else np.full(n, -1, np.int64),
            groups=source.labels if source.labels is not None else models.targets,
            ids=ids,
            classes=classes,
            checkpoints=infos,
            stages=windows,
            raw=raw,
            eps=float(np.finfo(model.gradient_dtype).eps),
            targets=models.targets,
            logits=models.notes,
            warnings=notes,
            timings=clock.seconds,
        )
        map_pass = None
        if wanted is not None:
            rows = model_rows(sessions, source, models.targets, batch)
            names, shape = models.names, model.gradient_shape
            map_pass = MapPass(wanted, rows, names, shape, axis, settings, memory, batch, progress, clock)
        return finish(run, settings, record, stored, clock, out, overwrite, map_pass, unfinished.saved)
