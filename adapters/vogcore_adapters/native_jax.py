"""Input gradients by ``jax.vjp``, for functions of any JAX library (Flax, Equinox, Haiku) that cannot be exported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.autodiff import OF
from vogcore.errors import ModelError, SettingsError
from vogcore.scoring.native import NativeCheckpoint, gradient_blocks, logit_cotangent
from vogcore.store import CheckpointInfo
from vogcore_adapters._require import missing

__all__ = ["checkpoint_gradients", "input_gradients"]


def input_gradients(
    model: Callable[..., Any],
    data: Any,
    target: Any,
    *,
    params: Any = None,
    of: str = "logit",
    batch_size: int = 256,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[int, npt.NDArray, npt.NDArray]]:
    """Gradients of one checkpoint, compiled once for all batches (and, with ``params``, for all checkpoints).

    Args:
        model: a function ``model(params, x)`` to logits (batch, classes), without random numbers and in evaluation
            mode: ``lambda params, x: network.apply(params, x, train=False)``; without ``params``, a function of ``x``,
            or a Flax NNX module, which is put into evaluation mode on a copy. It is compiled with ``jax.jit``.
        data: examples (N, ...): array, anything that can be sliced, or an example source of :mod:`vogcore.data`.
        target: class of every example (N,), usually its label, or one class index for all.
        params: pytree of arrays, the state of the checkpoint.
        of: the scalar that is differentiated, see :func:`vogcore.gradient_model`.
        batch_size: examples in a batch; the last one is filled up, so that nothing is compiled for it.
        start, stop: the examples to compute; all by default.

    Yields:
        Position of the first example, gradients (b, ...), logits (b, C), as NumPy arrays.

    Raises:
        DataError: data and target do not fit together.
        ModelError: the model does not return logits, or the examples are no floating-point numbers.
        SettingsError: ``of`` or ``batch_size`` is not possible.
        VogcoreError: jax is not installed.
    """
    jax = _import_jax()
    if of not in OF:
        raise SettingsError(f"of={of!r} is not known; choose one of {', '.join(OF)}.")
    function, state = _functional(model, params)
    step = _step(function, of)

    def differentiate(batch: Any, classes: npt.NDArray[np.int64]) -> tuple[npt.NDArray, npt.NDArray]:
        x = jax.numpy.asarray(batch)
        if not jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
            raise ModelError(f"The examples are {x.dtype}, which have no gradient; give floating-point examples.")
        count = len(x)
        if count < batch_size:
            # The compiled function is for one size; copies of the last example are cut off again.
            x = jax.numpy.concatenate([x, jax.numpy.repeat(x[-1:], batch_size - count, axis=0)])
            classes = np.concatenate([classes, np.repeat(classes[-1:], batch_size - count)])
        gradients, logits = step(state, x, classes)
        return _host(gradients)[:count], _host(logits)[:count]

    return gradient_blocks(differentiate, data, target, batch_size=batch_size, start=start, stop=stop)


def checkpoint_gradients(
    model: Callable[..., Any],
    checkpoints: Iterable[tuple[str | CheckpointInfo, Any]],
    data: Any,
    target: Any,
    **options: Any,
) -> Iterator[NativeCheckpoint]:
    """Gradients of a run, for :func:`vogcore.scoring.native.send` or :func:`vogcore.scoring.native.stream`.

    Args:
        model: ``model(params, x)``, as for :func:`input_gradients`.
        checkpoints: in the order of training, pairs of a name (or a ``CheckpointInfo``) and the parameters, or a
            function that reads and returns them (from an Orbax folder, say), which is called when they are needed.
        data, target, **options: as for :func:`input_gradients`.

    Yields:
        What is known of the checkpoint, and its blocks.
    """
    for known, source in checkpoints:
        info = known if isinstance(known, CheckpointInfo) else CheckpointInfo(known)
        yield info, _blocks(model, source, data, target, options)


def _blocks(model: Callable[..., Any], source: Any, data: Any, target: Any, options: dict[str, Any]) -> Iterator[Any]:
    params = source() if callable(source) else source
    yield from input_gradients(model, data, target, params=params, **options)


@dataclass(frozen=True)
class _Module:
    """A Flax NNX module as a function of its state; equal for equal structures, so that JAX compiles it once."""

    graph: Any

    def __call__(self, state: Any, x: Any) -> Any:
        from flax import nnx

        return nnx.merge(self.graph, state)(x)


@dataclass(frozen=True)
class _Closed:
    """A function of the examples alone as one of a state, too."""

    function: Callable[[Any], Any]

    def __call__(self, state: Any, x: Any) -> Any:
        return self.function(x)


def _functional(model: Callable[..., Any], params: Any) -> tuple[Callable[[Any, Any], Any], Any]:
    if params is not None:
        return model, params
    if any(kind.__module__.startswith("flax.nnx") for kind in type(model).__mro__):
        from flax import nnx

        module: Any = nnx.clone(model)
        module.eval()
        graph, state = nnx.split(module)
        return _Module(graph), state
    return _Closed(model), None


@functools.lru_cache(maxsize=8)  # a function may hold parameters
def _step(model: Callable[[Any, Any], Any], of: str) -> Callable[..., tuple[Any, Any]]:
    """Gradients and logits of a batch, compiled."""
    jax = _import_jax()

    def step(params: Any, x: Any, target: Any) -> tuple[Any, Any]:
        logits, pull = jax.vjp(lambda values: _logits(model(params, values), len(x)), x)
        (gradient,) = pull(logit_cotangent(logits, target, of, jax.numpy))
        return gradient, logits

    return jax.jit(step)


def _logits(output: Any, count: int) -> Any:
    logits = output[0] if isinstance(output, tuple | list) and output else output
    if getattr(logits, "ndim", 0) != 2 or len(logits) != count:
        found = getattr(logits, "shape", type(logits).__name__)
        raise ModelError(f"The model must return logits (batch, classes), but it returned {found}.")
    return logits


def _host(values: Any) -> npt.NDArray:
    array = np.asarray(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _import_jax() -> Any:
    try:
        import jax
        import jax.numpy
    except ImportError as error:
        raise missing(error, "jax", "The gradient of a JAX function") from error
    return jax
