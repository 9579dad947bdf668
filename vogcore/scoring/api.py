"""The two calls that users make: :func:`score` and :func:`score_gradients`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from vogcore.data import Preprocess, open_source
from vogcore.errors import CheckpointError, DataError, GradientError
from vogcore.runtime import choose_provider
from vogcore.scoring.assemble import Run, assemble
from vogcore.scoring.checkpoints import Checkpoints, find_checkpoints
from vogcore.scoring.inputs import (
    check_outputs,
    check_target_checkpoint,
    choose_batch,
    choose_class_names,
    choose_examples,
    predictions_from_logits,
    probe,
)
from vogcore.scoring.moments import BlockMoments
from vogcore.scoring.progress import Progress, Silent
from vogcore.scoring.record import versions
from vogcore.scoring.run import Clock, GradientPass, ModelPass, block_size
from vogcore.scoring.sessions import Sessions
from vogcore.scoring.settings import Settings, choose_channel_axis
from vogcore.scoring.sources import ArchiveGradients, ArrayGradients, spool
from vogcore.scoring.stages import StageSpec, resolve_stages
from vogcore.store import CheckpointInfo, GradientWriter, Scores, open_gradients

__all__ = ["score", "score_gradients"]

MEMORY = 1 << 30
"""Bytes for the moments and values of one block of examples."""
_OF_THE_GRADIENTS = ("of", "target", "target_checkpoint", "data", "preprocess", "wrt")
"""Settings that were decided when an archive's gradients were computed."""


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
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    x_name: str | None = None,
    y_name: str | None = None,
    wrt: str | None = None,
    output: str | None = None,
    keep_gradients: str | os.PathLike[str] | None = None,
    keep_dtype: str = "float32",
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
        data: examples (N, ...): an array, a path (.npz, .npy, .h5), a pair (x, y) or an example source.
        labels: class index of every example (N,), where ``data`` does not hold them. Not needed for a ``target``
            other than ``"label"``; then examples are normalised by target class and no direction can be measured.
        out: score file to write.
        stages: windows over the checkpoints, name -> slice or list of indices; by default, from six checkpoints on,
            the thirds ``early``, ``middle`` and ``late``. The stage ``all`` is always there.
        of, target, target_checkpoint, channels, channel_axis, reduction, scale, normalise, statistics, moments: how
            gradients become scores, see :class:`vogcore.scoring.Settings`.
        preprocess: from stored values to the model's input. Gradients are taken with respect to the model's input.
        ids: stable id of every example (N,).
        class_names: name of every class, in index order.
        x_name, y_name: names inside an .npz or HDF5 file.
        wrt, output: see :func:`vogcore.gradient_model`.
        keep_gradients: gradient archive to write on the way, for :func:`score_gradients`.
        keep_dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"`` in the archive.
        provider: ``"auto"`` (CUDA where it works, else CPU), ``"cpu"`` or ``"cuda"``; a request that cannot be met is
            an error.
        threads: threads of ONNX Runtime inside an operator; all CPUs by default.
        batch_size: examples in one run of a model.
        memory: bytes for the moments and values of one block of examples. It changes speed, not scores.
        overwrite: replace existing files.
        progress: told how many examples x checkpoints are done.

    Returns:
        The scores, in the order of the data; also written to ``out``.

    Raises:
        VogcoreError: one of its kinds, with one sentence that says what is wrong and where. Nothing half-written is
            left at ``out``.
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
    check_outputs(out, keep_gradients, overwrite)
    source = open_source(
        data,
        labels,
        ids=ids,
        class_names=class_names,
        preprocess=preprocess,
        x_name=x_name,
        y_name=y_name,
        require_labels=settings.target == "label",
    )
    chosen = choose_provider(provider)
    found, notes = find_checkpoints(checkpoints)
    windows = resolve_stages(len(found), stages)
    check_target_checkpoint(settings, len(found))
    sessions = Sessions(found, settings, chosen, threads, wrt=wrt, output=output)
    with clock.time("sessions"):
        sessions.check()
    n, batch = len(source), choose_batch(batch_size, source.shape)
    ids = source.ids if source.ids is not None else np.arange(n, dtype=np.int64)
    n_logits, shape = probe(sessions, source)
    classes = choose_class_names(source, found[-1].class_names, n_logits, settings)
    axis = choose_channel_axis(settings, shape)
    infos = [CheckpointInfo(c.name, c.step, c.epoch, c.sha256) for c in found]
    with clock.time("data"):
        fingerprint = source.fingerprint()
    record = {
        **settings.to_dict(),
        "channel_axis": axis,
        "stages": {name: indices.tolist() for name, indices in windows.items()},
        "data": {"name": source.name, "shape": [n, *source.shape], "sha256": fingerprint},
        "preprocess": preprocess.to_dict() if preprocess is not None else None,
        "wrt": wrt,
        "output": output,
        "provider": chosen.name,
        "device": chosen.device,
        "threads": threads,
        "batch_size": batch,
        "classes_from": "labels" if source.labels is not None else "target",
        "versions": versions(),
    }
    pixels = int(np.prod(shape))
    size = block_size(
        n,
        int(np.prod(source.shape)) * 4,
        pixels,
        BlockMoments.sets(windows),
        8 if moments == "float64" else 4,
        memory,
    )
    with contextlib.ExitStack() as stack:
        writer = None
        if keep_gradients is not None:
            writer = stack.enter_context(
                GradientWriter(
                    keep_gradients,
                    n,
                    shape,
                    keep_dtype,
                    labels=source.labels,
                    ids=ids,
                    classes=classes,
                    channel_axis=axis,
                    settings=record,
                    overwrite=overwrite,
                )
            )
            writer.set_checkpoints(infos)
        stack.callback(progress.close)
        progress.start(n * len(found), "scoring")
        models = ModelPass(
            sessions,
            source,
            ids,
            [c.name for c in found],
            settings,
            classes=len(classes),
            batch=batch,
            writer=writer,
            clock=clock,
        )
        raw = GradientPass(
            models,
            ids=ids,
            shape=shape,
            stages=windows,
            settings=settings,
            channel_axis=axis,
            size=size,
            progress=progress,
            clock=clock,
        ).run()
    run = Run(
        labels=source.labels if source.labels is not None else np.full(n, -1, np.int64),
        groups=models.groups,
        ids=ids,
        classes=classes,
        checkpoints=infos,
        stages=windows,
        raw=raw,
        eps=2.0**-23,
        predictions_class=models.predicted,
        predictions_label_probability=models.probability if source.labels is not None else None,
        loss=models.loss if source.labels is not None else None,
        warnings=notes,
        timings=clock.seconds,
    )
    return _finish(run, settings, record, clock, out, overwrite)


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
    memory: int = MEMORY,
    spool_folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Score input gradients that were computed elsewhere, by any framework.

    Args:
        gradients: path of a gradient archive; an array (K, N, ...), float16, float32 or float64; or an iterable of
            (checkpoint, start, block), where ``checkpoint`` is an index or a name and ``block`` (b, ...) holds the
            gradients of the examples from ``start`` on, in any order. An iterable is written to a temporary archive
            (as float32, or float16 where it is float16) in ``spool_folder``.
        labels: class index of every example (N,), integers; an archive may hold them. For an iterable they also say
            how many examples there are. Without labels, an array or archive is normalised as a single class.
        out, stages, channels, channel_axis, reduction, scale, normalise, statistics, moments, ids, class_names,
            memory, overwrite, progress: as for :func:`score`.
        spool_folder: where an iterable is kept meanwhile; the system's temporary folder by default.

    Returns:
        The scores. The direction is measured where an archive holds logits and labels, else it is "not measured".

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
    with contextlib.ExitStack() as stack:
        source: ArrayGradients | ArchiveGradients
        if isinstance(gradients, str | os.PathLike):
            archive = stack.enter_context(open_gradients(gradients))
            source = ArchiveGradients(archive)
        elif hasattr(gradients, "shape") and hasattr(gradients, "dtype"):
            archive = None
            source = ArrayGradients(gradients)
        elif isinstance(gradients, Iterable):
            if labels is None:
                raise DataError("A stream of gradients needs labels, which also say how many examples there are.")
            with clock.time("storage"):
                archive = stack.enter_context(spool(gradients, len(np.asarray(labels)), spool_folder))
            source = ArchiveGradients(archive)
        else:
            raise GradientError(
                f"Gradients were given as {type(gradients).__name__}; give the path of an archive, an array "
                "(checkpoints, examples, ...), or an iterable of (checkpoint, start, block)."
            )
        n = archive.n_examples if archive is not None else int(gradients.shape[1])
        where = str(gradients) if isinstance(gradients, str | os.PathLike) else "gradients"
        if len(source.names) < 2:
            raise CheckpointError(
                f"{where}: there is {len(source.names)} checkpoint, and the variance over fewer than two is not "
                "defined; give the gradients of at least two."
            )
        if n < 1:
            raise GradientError(f"{where}: there are no examples.")
        run_labels, class_list, run_ids = choose_examples(archive, labels, ids, class_names, n, where)
        windows = resolve_stages(len(source.names), stages)
        if archive is not None and channel_axis is None and archive.channel_axis is not None:
            axis: int | None = archive.channel_axis if channels != "none" else None
        else:
            axis = choose_channel_axis(settings, source.shape)
        made = archive.settings if archive is not None else {}
        inherited: dict[str, Any] = {key: made[key] for key in _OF_THE_GRADIENTS if key in made}
        record: dict[str, Any] = settings.to_dict() | inherited
        record |= {
            "channel_axis": axis,
            "stages": {name: indices.tolist() for name, indices in windows.items()},
            "gradients": where,
            "classes_from": "labels" if run_labels is not None else "none",
            "versions": versions(),
        }
        if "of" not in inherited:
            record["of"] = record["target"] = "as the gradients were made"
        notes = [
            f"The gradients of {first} and {second} are the same, so one of them adds nothing; check that the "
            "checkpoints really differ."
            for first, second in source.repeated()
        ]
        itemsize = 8 if moments == "float64" else 4
        size = block_size(n, 0, int(np.prod(source.shape)), BlockMoments.sets(windows), itemsize, memory)
        stack.callback(progress.close)
        progress.start(n * len(source.names), "scoring")
        raw = GradientPass(
            source,
            ids=run_ids,
            shape=source.shape,
            stages=windows,
            settings=settings,
            channel_axis=axis,
            size=size,
            progress=progress,
            clock=clock,
        ).run()
        predicted, probability, loss = predictions_from_logits(archive, run_labels)
    run = Run(
        labels=run_labels if run_labels is not None else np.full(n, -1, np.int64),
        groups=run_labels if run_labels is not None else np.zeros(n, np.int64),
        ids=run_ids,
        classes=class_list,
        checkpoints=source.infos,
        stages=windows,
        raw=raw,
        eps=source.eps,
        predictions_class=predicted,
        predictions_label_probability=probability,
        loss=loss,
        warnings=notes,
        timings=clock.seconds,
    )
    return _finish(run, settings, record, clock, out, overwrite)


def _finish(
    run: Run,
    settings: Settings,
    record: dict[str, Any],
    clock: Clock,
    out: str | os.PathLike[str] | None,
    overwrite: bool,
) -> Scores:
    scores = assemble(run, settings, record)
    if out is not None:
        scores.timings = clock.total()  # what the file itself cost cannot be in the file
        with clock.time("storage"):
            scores.save(out, overwrite=overwrite)
    scores.timings = clock.total()
    return scores
