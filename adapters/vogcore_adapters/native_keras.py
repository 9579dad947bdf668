"""Input gradients of Keras models by their own backend (TensorFlow, JAX or torch), where they cannot be exported."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import CheckpointError, ModelError
from vogcore.scoring.native import NativeCheckpoint, gradient_blocks, logit_cotangent
from vogcore.store import CheckpointInfo
from vogcore_adapters import native_jax, native_torch
from vogcore_adapters._require import missing_keras

__all__ = ["checkpoint_gradients", "input_gradients"]


def input_gradients(
    model: Any,
    data: Any,
    target: Any,
    *,
    of: str = "logit",
    batch_size: int = 256,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[int, npt.NDArray, npt.NDArray]]:
    """Gradients of one checkpoint: the model as it is when a batch is asked for, called with ``training=False``.

    Args:
        model: a Keras 3 model with one input that returns logits (batch, classes). A softmax that is the activation of
            its last layer is left off meanwhile, as the score is defined on what comes before it.
        data: examples (N, ...): array, anything that can be sliced, or an example source of :mod:`vogcore.data`.
        target: class of every example (N,), usually its label, or one class index for all.
        of: the scalar that is differentiated, see :func:`vogcore.gradient_model`.
        batch_size: examples in a batch.
        start, stop: the examples to compute; all by default.

    Yields:
        Position of the first example, gradients (b, ...), logits (b, C), as NumPy arrays.

    Raises:
        DataError: data and target do not fit together.
        ModelError: the model does not return logits, ends in a softmax that cannot be left off, or does not depend on
            its input.
        SettingsError: ``of`` or ``batch_size`` is not possible.
        VogcoreError: Keras is not installed.
    """
    keras = _import_keras()
    _refuse_softmax_layer(keras, model)
    backend = keras.backend.backend()
    if backend == "torch":
        blocks = native_torch.input_gradients(model, data, target, of=of, batch_size=batch_size, start=start, stop=stop)
        return _each_without_softmax(keras, model, blocks)
    if backend == "jax":
        if not model.built:
            first = data.read(0, 1) if hasattr(data, "read") else data[:1]
            model.build((None, *np.shape(first)[1:]))
        # During fit the variables are taken away from the model until they are asked back.
        getattr(model, "jax_state_sync", lambda: None)()
        parts = (model.trainable_variables, model.non_trainable_variables)
        state = [[variable.value for variable in part] for part in parts]
        blocks = native_jax.input_gradients(
            _Stateless(model), data, target, params=state, of=of, batch_size=batch_size, start=start, stop=stop
        )
        return _each_without_softmax(keras, model, blocks)

    def differentiate(batch: Any, classes: npt.NDArray[np.int64]) -> tuple[npt.NDArray, npt.NDArray]:
        with _without_softmax(keras, model):
            return _by_tape(model, batch, classes, of)

    return gradient_blocks(differentiate, data, target, batch_size=batch_size, start=start, stop=stop)


def _by_tape(model: Any, batch: Any, classes: npt.NDArray[np.int64], of: str) -> tuple[npt.NDArray, npt.NDArray]:
    import tensorflow as tf

    inputs = tf.convert_to_tensor(batch)
    if not inputs.dtype.is_floating:
        raise ModelError(f"The examples are {inputs.dtype.name}, which have no gradient; give floating-point examples.")
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        logits = model(inputs, training=False)
    if logits.shape.rank != 2:
        raise ModelError(f"The model must return logits (batch, classes), but it returned {tuple(logits.shape)}.")
    values = logits.numpy()
    if classes.max() >= values.shape[1]:
        return np.empty(inputs.shape, np.float32), values  # refused by whoever called, who knows which example it is
    cotangent = tf.convert_to_tensor(logit_cotangent(values, classes, of))
    gradient = tape.gradient(logits, inputs, output_gradients=cotangent)
    if gradient is None:
        raise ModelError("The model's logits do not depend on its input by a path that TensorFlow can differentiate.")
    return gradient.numpy(), values


@dataclass(frozen=True)
class _Stateless:
    """A model as a function of its variables."""

    model: Any

    def __call__(self, state: Any, x: Any) -> Any:
        return self.model.stateless_call(*state, x, training=False)[0]


def _last_layer(model: Any) -> Any:
    layers = getattr(model, "layers", [])
    return _last_layer(layers[-1]) if layers else model


def _refuse_softmax_layer(keras: Any, model: Any) -> None:
    last = _last_layer(model)
    if isinstance(last, keras.layers.Softmax):
        raise ModelError(
            f"The model ends in the layer {last.name!r}, a softmax, and the score is defined on what comes before it; "
            "give keras.Model(model.input, model.layers[-2].output)."
        )


@contextlib.contextmanager
def _without_softmax(keras: Any, model: Any) -> Iterator[None]:
    last = _last_layer(model)
    activation = getattr(last, "activation", None)
    if activation is not keras.activations.softmax:
        yield
        return
    last.activation = keras.activations.linear
    try:
        yield
    finally:
        last.activation = activation


def _each_without_softmax(keras: Any, model: Any, blocks: Iterator[Any]) -> Iterator[Any]:
    while True:
        with _without_softmax(keras, model):
            block = next(blocks, None)
        if block is None:
            return
        yield block


def checkpoint_gradients(
    model: Any,
    checkpoints: Iterable[str | os.PathLike[str] | tuple[str | CheckpointInfo, Any]],
    data: Any,
    target: Any,
    **options: Any,
) -> Iterator[NativeCheckpoint]:
    """Gradients of a run, for :func:`vogcore.scoring.native.send` or :func:`vogcore.scoring.native.stream`.

    Works on a clone of ``model``, into which the weights of each checkpoint are loaded when they are needed.

    Args:
        model: the architecture.
        checkpoints: in the order of training: files of ``save_weights`` (``.weights.h5``) or of ``save`` (``.keras``),
            or pairs of a name (or a ``CheckpointInfo``) and the list that ``get_weights`` returned.
        data, target, **options: as for :func:`input_gradients`.

    Yields:
        What is known of the checkpoint, and its blocks.

    Raises:
        CheckpointError: weights cannot be read, or do not fit the model.
    """
    keras = _import_keras()
    network = keras.models.clone_model(model)
    if not network.built:
        network.build(model.input_shape)
    for checkpoint in checkpoints:
        known, source = checkpoint if isinstance(checkpoint, tuple) else (Path(checkpoint).name, Path(checkpoint))
        info = known if isinstance(known, CheckpointInfo) else CheckpointInfo(known)
        yield info, _blocks(network, info.name, source, data, target, options)


def _blocks(network: Any, name: str, source: Any, data: Any, target: Any, options: dict[str, Any]) -> Iterator[Any]:
    try:
        if isinstance(source, Path):
            network.load_weights(source)
        else:
            network.set_weights(source)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise CheckpointError(f"Checkpoint {name} cannot be loaded into the model: {reason}.") from error
    yield from input_gradients(network, data, target, **options)


def _import_keras() -> Any:
    try:
        import keras
    except ImportError as error:
        raise missing_keras(error, "The gradient of a Keras model") from error
    return keras
