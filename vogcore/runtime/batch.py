"""Freeing a fixed batch size, judged by what the freed model computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx

from vogcore.errors import ModelError
from vogcore.runtime.providers import Provider, choose_provider
from vogcore.runtime.session import Session

__all__ = ["make_batch_dynamic"]

# Another batch size means another blocking of sums. Over a whole network that moves the largest output by a few
# hundred units in the last place; mixed-up examples move it by its own size.
_ROUNDING_UNITS = 2000
_SCALES = (1.0, 30.0)  # of the random inputs: to small ones a network with large biases may answer a constant
_FREE_SIZE = 32  # of an input dimension other than the batch that the model leaves open


def make_batch_dynamic(
    model: onnx.ModelProto,
    provider: Provider | str = "auto",
    *,
    threads: int | None = None,
    where: str = "model",
    rewrite: Callable[[onnx.ModelProto], onnx.ModelProto | None] | None = None,
) -> tuple[onnx.ModelProto, bool]:
    """Free the batch size of a model, if that leaves its meaning alone.

    A graph does not tell whether a size that equals the batch is the batch. So the rewriting is judged by what it
    computes: for random x1, x2 the rewritten model on (x1, x2) in one batch must give what the original gives on x1
    and on x2, to rounding, for every output; one output at least must differ between x1 and x2, or nothing is shown.

    Args:
        model: a forward model or a gradient graph; left as it is.
        provider: where the comparison runs.
        threads: as for :class:`Session`.
        where: what messages call the model.
        rewrite: the rewriting to judge, by default :func:`vogcore.graph.dynamic_batch`.

    Returns:
        The rewritten model and True; `model` itself and True where its batch is dynamic already; else `model` and
        False, to be run at its fixed batch.

    Raises:
        ModelError: ONNX Runtime refuses the original.
        ProviderError: the provider cannot run here.
    """
    if rewrite is None:
        from vogcore.graph import dynamic_batch

        rewrite = dynamic_batch
    rewritten = rewrite(model)
    if rewritten is None:
        return model, False
    if rewritten is model:
        return model, True
    if isinstance(provider, str):
        provider = choose_provider(provider)
    original = Session(model, provider=provider, threads=threads, where=where)
    try:
        free = Session(rewritten, provider=provider, threads=threads, where=f"{where} (batch made dynamic)")
    except ModelError:
        return model, False
    return (rewritten, True) if _agree(original, free) else (model, False)


def _agree(original: Session, free: Session) -> bool:
    """Whether two sessions compute the same on the examples of two batches, apart and together."""
    for scale in _SCALES:
        first, second = (_random_feeds(original, np.random.default_rng(seed), scale) for seed in (1, 2))
        if first is None or second is None:
            return False
        try:
            apart = zip(original.run(None, first), original.run(None, second))
            together = free.run(None, {name: np.concatenate([first[name], second[name]]) for name in first})
        except ModelError:
            return False
        verdicts = [_same(whole, *halves) for whole, halves in zip(together, apart)]
        if False in verdicts:
            return False
        if True in verdicts:
            return True
    return False


def _random_feeds(session: Session, rng: np.random.Generator, scale: float) -> dict[str, npt.NDArray] | None:
    """Random values for every input; None where an input's type cannot be made up."""
    feeds = {}
    for name in session.input_names:
        dtype = session.input_dtypes[name]
        if dtype is None:
            return None
        shape = tuple(_FREE_SIZE if size is None else size for size in session.input_shapes[name])
        if dtype.kind == "f":
            feeds[name] = (scale * rng.standard_normal(shape)).astype(dtype)
        else:
            feeds[name] = rng.integers(0, 2, shape).astype(dtype)  # classes and tokens that every model has
    return feeds


def _same(whole: npt.NDArray, first: npt.NDArray, second: npt.NDArray) -> bool | None:
    """Whether one output is the same together and apart; None where this output cannot tell."""
    if first.ndim == 0 or whole.shape != (2 * len(first), *first.shape[1:]):
        return False
    if first.dtype.kind != "f":
        return None if np.array_equal(whole, np.concatenate([first, second])) else False
    expected = np.concatenate([first, second]).astype(np.float64)
    if not np.isfinite(expected).all():
        return None if np.array_equal(np.isfinite(whole), np.isfinite(expected)) else False
    rounding = _ROUNDING_UNITS * float(np.finfo(first.dtype).eps) * float(np.abs(expected).max(initial=0.0))
    if not np.abs(whole - expected).max(initial=0.0) <= rounding:  # also where `whole` is not finite
        return False
    # Mixed-up examples show only where different examples give clearly different outputs.
    difference = np.abs(first.astype(np.float64) - second).max(initial=0.0)
    return True if difference > 10 * rounding else None
