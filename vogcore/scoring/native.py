"""Gradients that a framework computes itself, checkpoint by checkpoint: the protocol, and what all frameworks share.

The gradients of one checkpoint are *blocks*: tuples ``(where, gradients)`` or ``(where, gradients, logits)``, with
``where`` the position of the first example or the positions (b,) of all of them. A run is an iterable of
``(checkpoint, blocks)``. :func:`stream` makes of it what :func:`vogcore.score_gradients` takes, :func:`send` brings it
into a :class:`vogcore.GradientWriter` or a :class:`vogcore.LiveScorer`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vogcore.autodiff import OF
from vogcore.errors import DataError, ModelError, SettingsError, VogcoreWarning
from vogcore.scoring.inputs import check_count
from vogcore.scoring.live import LiveScorer
from vogcore.scoring.positions import consecutive
from vogcore.scoring.sources import as_numpy
from vogcore.store import CheckpointInfo, GradientWriter

__all__ = ["Blocks", "Differentiate", "NativeCheckpoint", "gradient_blocks", "logit_cotangent", "send", "stream"]

Blocks: TypeAlias = "Iterable[tuple[Any, Any] | tuple[Any, Any, Any]]"
"""Gradients of one checkpoint, as (where, gradients[, logits])."""
NativeCheckpoint: TypeAlias = "tuple[str | CheckpointInfo, Blocks]"
"""A checkpoint's name, or what is known of it, and its gradients."""
Differentiate: TypeAlias = "Callable[[Any, npt.NDArray[np.int64]], tuple[Any, Any]]"
"""From a batch (b, ...) and target classes (b,) to gradients (b, ...) and logits (b, C)."""


def logit_cotangent(logits: Any, target: Any, of: str = "logit", xp: Any = np) -> Any:
    """Cotangent (N, C) of the logits: what a vector-Jacobian product needs to give the input gradient.

    The table of :mod:`vogcore.autodiff.head`, for whoever differentiates without a gradient graph.

    Args:
        logits: (N, C) floating-point.
        target: class index of every example (N,).
        of: the scalar that is differentiated, see :func:`vogcore.gradient_model`.
        xp: NumPy, or a module with its functions (``jax.numpy``) that ``logits`` belongs to.

    Returns:
        An array like ``logits``.

    Raises:
        SettingsError: ``of`` is not known.
    """
    if of not in OF:
        raise SettingsError(f"of={of!r} is not known; choose one of {', '.join(OF)}.")
    columns = xp.arange(logits.shape[1])
    chosen = (xp.asarray(target)[:, None] == columns).astype(logits.dtype)
    if of == "logit":
        return chosen
    if of == "centred-logit":
        return chosen - 1 / logits.shape[1]
    if of == "margin":
        others = xp.where(chosen > 0, xp.finfo(logits.dtype).min, logits)
        return chosen - (xp.argmax(others, axis=1)[:, None] == columns).astype(logits.dtype)
    exponentials = xp.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    if of == "loss":
        return probabilities - chosen
    if of == "log-probability":
        return chosen - probabilities
    return (probabilities * chosen).sum(axis=1, keepdims=True) * (chosen - probabilities)


def gradient_blocks(
    differentiate: Differentiate,
    data: Any,
    target: Any,
    *,
    batch_size: int = 256,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[int, npt.NDArray, npt.NDArray]]:
    """Blocks of one checkpoint, computed batch by batch as they are asked for.

    Args:
        differentiate: the model in evaluation mode, with the gradient of each example's own scalar.
        data: examples (N, ...): anything that can be sliced (an array, a tensor, an HDF5 dataset), or an example source
            of :mod:`vogcore.data`.
        target: class of every example (N,), usually its label, or one class index for all.
        batch_size: examples in a batch.
        start, stop: the examples to compute; all by default.

    Yields:
        Position of the first example, gradients (b, ...), logits (b, C), as NumPy arrays, float32 or what the model
        computes in.

    Raises:
        DataError: target and data do not fit together.
        ModelError: the model does not return logits (b, C), or its output does not depend on the input.
        SettingsError: ``batch_size`` is not positive.
    """
    size = check_count("batch_size", batch_size)
    assert size is not None
    count = len(data)
    classes = _classes(target, count)
    stop = count if stop is None else min(stop, count)
    first = True
    for begin in range(start, stop, size):
        end = min(begin + size, stop)
        batch = data.read(begin, end) if hasattr(data, "read") else data[begin:end]
        gradients, logits = differentiate(batch, classes[begin:end])
        gradients, logits = as_numpy(gradients, "A batch of gradients"), as_numpy(logits, "A batch of logits")
        _check_logits(logits, classes[begin:end], begin)
        if first and _are_probabilities(logits):
            warnings.warn(
                "The model returns probabilities; the score is defined on the logits before the softmax, so give a "
                "model that returns those.",
                VogcoreWarning,
                stacklevel=2,
            )
        first = False
        yield begin, gradients, logits


def _classes(target: Any, count: int) -> npt.NDArray[np.int64]:
    values = as_numpy(target, "The target classes")
    if values.ndim == 0 and values.dtype.kind in "iu":
        values = np.full(count, values)
    if values.shape != (count,) or values.dtype.kind not in "iu" or (count and values.min() < 0):
        raise DataError(
            f"The target must be a class index for each of the {count} examples, or one for all of them, not "
            f"{values.dtype} of shape {values.shape}."
        )
    return values.astype(np.int64)


def _check_logits(logits: npt.NDArray, target: npt.NDArray[np.int64], start: int) -> None:
    if logits.ndim != 2 or len(logits) != len(target):
        raise ModelError(
            f"The model must return logits of shape (batch, classes), but it returned {logits.shape} for {len(target)} "
            "examples."
        )
    if target.max() >= logits.shape[1]:
        raise DataError(
            f"Example {start + int(target.argmax())} has the target class {target.max()}, but the model has "
            f"{logits.shape[1]} classes."
        )


def _are_probabilities(logits: npt.NDArray) -> bool:
    wide = logits.astype(np.float64)
    return bool(logits.shape[1] > 1 and (wide >= 0).all() and np.allclose(wide.sum(axis=1), 1, rtol=0, atol=1e-3))


def stream(checkpoints: Iterable[NativeCheckpoint]) -> Iterator[tuple[str, Any, Any, Any]]:
    """A run for :func:`vogcore.score_gradients`: tuples (checkpoint, where, gradients, logits or None)."""
    for checkpoint, blocks in checkpoints:
        name = checkpoint.name if isinstance(checkpoint, CheckpointInfo) else checkpoint
        for where, gradients, *rest in blocks:
            yield name, where, gradients, rest[0] if rest else None


def send(checkpoints: Iterable[NativeCheckpoint], sink: GradientWriter | LiveScorer) -> None:
    """Bring a run into an archive under way, or into a live run. Whoever opened ``sink`` closes it.

    What a resumed sink has is skipped: checkpoints that are complete there are not computed at all.

    Args:
        checkpoints: in the order of training.
        sink: where the gradients go.

    Raises:
        GradientError: gradients do not fit, or some are missing.
        StoreError: they cannot be written.
    """
    for checkpoint, blocks in checkpoints:
        info = checkpoint if isinstance(checkpoint, CheckpointInfo) else CheckpointInfo(checkpoint)
        if isinstance(sink, LiveScorer):
            sink.add(info.name, blocks, info.step, info.epoch, sha256=info.sha256)
        else:
            _write(sink, info, blocks)


def _write(writer: GradientWriter, info: CheckpointInfo, blocks: Blocks) -> None:
    known = writer.checkpoints
    index = next((i for i, other in enumerate(known) if other.name == info.name), len(known))
    if index == len(known) or known[index] != info:
        # Announced with what is known of it: steps and digests go into the file.
        writer.set_checkpoints([*known[:index], info, *known[index + 1 :]])
    if not writer.missing(index):
        return
    for where, gradients, *rest in blocks:
        what = f"A batch of checkpoint {info.name!r}"
        values = as_numpy(gradients, what)
        logits = None if not rest or rest[0] is None else as_numpy(rest[0], f"{what}, logits,")
        for start, (rows, row_logits) in consecutive(where, (values, logits), what):
            assert rows is not None
            writer.write(index, start, rows)
            if row_logits is not None:
                writer.write_logits(index, start, row_logits)
