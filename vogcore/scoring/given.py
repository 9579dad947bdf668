"""Scores of gradients that were computed elsewhere: :func:`score_gradients`."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from vogcore import kernels
from vogcore.errors import VogcoreWarning
from vogcore.scoring.assemble import Run
from vogcore.scoring.finish import finish
from vogcore.scoring.inputs import (
    archive_targets,
    check_outputs,
    choose_examples,
    notes_from_logits,
)
from vogcore.scoring.maps import MapPass, choose_maps, given_rows
from vogcore.scoring.moments import BlockMoments, raw_scores
from vogcore.scoring.progress import Progress, Silent
from vogcore.scoring.record import gradients_record
from vogcore.scoring.run import Clock, GradientPass, block_size
from vogcore.scoring.settings import MEMORY, Settings, choose_channel_axis
from vogcore.scoring.sources import open_gradients_of
from vogcore.scoring.stages import StageSpec, resolve_stages
from vogcore.scoring.stored import check_statistics, open_statistics, require_statistics
from vogcore.store import Scores

__all__ = ["score_gradients"]


def score_gradients(
    gradients: Any,
    labels: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    stages: StageSpec | None = None,
    channels: str = "mean",
    channel_axis: int | None = None,
    reduction: str = "std",
    scale: str = "none",
    normalise: str = "class",
    statistics: str | os.PathLike[str] | None = None,
    moments: str = "float64",
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    maps: Any = None,
    memory: int = MEMORY,
    spool_folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Score input gradients that were computed elsewhere, by any framework.

    Args:
        gradients: path of a gradient archive; an array (K, N, ...), float16, float32 or float64; or an iterable of
            (checkpoint, start, block[, logits]): ``checkpoint`` is an index or a name, ``block`` (b, ...) holds the
            gradients of the examples from ``start`` on (or, where ``start`` is an array (b,), at those positions),
            in any order; named checkpoints are taken in the order in which their names first come. An iterable is
            written to a temporary archive (as float32, or float16 where it is float16) in ``spool_folder``.
        labels: class index of every example (N,), integers; an archive may hold them. For an iterable they also say
            how many examples there are. Without labels, an archive of :func:`score` is normalised by the target class
            that it records, any other archive or array as a single class.
        out, stages, channels, channel_axis, reduction, scale, normalise, statistics, moments, ids, class_names,
            maps, memory, overwrite, progress: as for :func:`score`.
        spool_folder: where an iterable is kept meanwhile; the system's temporary folder by default.

    Returns:
        The scores. The direction is measured where there are labels, and logits in the archive or from the iterable,
        else it is "not measured".

    Raises:
        VogcoreError: one of its kinds, with one sentence that says what is wrong and where.
    """
    settings = Settings(
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
    check_outputs(out, None, overwrite)
    stored = open_statistics(settings)
    with contextlib.ExitStack() as opened, contextlib.ExitStack() as stack:
        with clock.time("storage"):
            source, archive = open_gradients_of(opened, gradients, labels, spool_folder)
        n = source.n_examples
        wanted = choose_maps(maps, n)
        where = os.fspath(gradients) if isinstance(gradients, str | os.PathLike) else "gradients"
        run_labels, classes, run_ids, classes_from = choose_examples(archive, labels, ids, class_names, n, where)
        windows = resolve_stages(len(source.names), stages)
        if archive is not None and channel_axis is None and archive.channel_axis is not None:
            axis: int | None = archive.channel_axis if channels != "none" else None
        else:
            axis = choose_channel_axis(settings, source.shape)
        made = archive.settings if archive is not None else {}
        record = gradients_record(settings, axis, windows, made, where, classes_from)
        if stored is not None:
            classes = check_statistics(
                stored, settings, record, classes, source.infos, windows, exact=class_names is not None
            )
            if run_labels is not None:
                require_statistics(stored, settings, run_labels)
        notes = [
            f"The gradients of {first} and {second} are the same, so one of them adds nothing; check that the "
            "checkpoints really differ."
            for first, second in source.repeated()
        ]
        for note in notes:
            warnings.warn(note, VogcoreWarning, stacklevel=2)
        pixels, itemsize = kernels.pixel_count(source.shape, axis, channels), np.dtype(moments).itemsize
        size = block_size(n, 0, pixels, BlockMoments.sets(windows), itemsize, memory, source.block_size)
        stack.callback(progress.close)
        progress.start(n * len(source.names), "scoring")
        raw = raw_scores(windows, n)
        GradientPass(
            source,
            ids=run_ids,
            shape=source.shape,
            stages=windows,
            settings=settings,
            channel_axis=axis,
            size=size,
            progress=progress,
            clock=clock,
        ).run(raw, [(0, n)])
        noted = notes_from_logits(source.archive, run_labels, getattr(source, "order", None))
        groups = run_labels if run_labels is not None else np.zeros(n, np.int64)
        if archive is not None and classes_from == "target":
            groups = archive_targets(archive, noted)
        stack.close()
        run = Run(
            labels=run_labels if run_labels is not None else np.full(n, -1, np.int64),
            groups=groups,
            ids=run_ids,
            classes=classes,
            checkpoints=source.infos,
            stages=windows,
            raw=raw,
            eps=source.eps,
            logits=noted,
            warnings=notes,
            timings=clock.seconds,
        )
        map_pass = None
        if wanted is not None:
            rows, names, shape = given_rows(source), source.names, source.shape
            map_pass = MapPass(wanted, rows, names, shape, axis, settings, memory, 1, progress, clock)
        return finish(run, settings, record, stored, clock, out, overwrite, map_pass)
