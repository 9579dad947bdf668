"""Checkpoints from ``fit`` of Keras 3, on each of its backends, by a callback."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Any, Unpack

from vogcore.errors import ModelError
from vogcore_adapters import exporter
from vogcore_adapters._require import missing, missing_keras
from vogcore_adapters.schedule import Moment

try:
    import keras
except ImportError as error:
    raise missing_keras(error, "The Keras callback") from error

if TYPE_CHECKING:
    import onnx

__all__ = ["ExportCheckpoints", "to_onnx"]

OPSET = 18


class ExportCheckpoints(keras.callbacks.Callback):
    """Writes ``ckpt-<step>.onnx`` while ``model.fit`` runs, without disturbing it::

        model.fit(images, labels, callbacks=[ExportCheckpoints("ckpts")])

    Steps are batches, counted on from ``optimizer.iterations`` at the beginning of ``fit``, also where gradients are
    accumulated over several; with ``steps_per_execution`` a checkpoint comes at the end of the execution that reaches
    its step.

    Args:
        folder: where the checkpoints go; made if it does not exist.
        **options: see :class:`vogcore_adapters.exporter.Options`. With ``resume=True`` give ``fit`` an
            ``initial_epoch`` and a model whose optimiser was restored.

    Attributes:
        exporter: the :class:`vogcore_adapters.exporter.CheckpointExporter`, with its ``exports`` and ``report()``.

    Raises:
        VogcoreError: as :class:`vogcore_adapters.exporter.CheckpointExporter`.
    """

    def __init__(self, folder: str | os.PathLike[str], **options: Unpack[exporter.Options]) -> None:
        super().__init__()
        self.exporter = exporter.CheckpointExporter(folder, to_onnx, **options)
        self._step = self._epoch = self._epoch_began = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """``fit`` begins."""
        optimizer = self.model.optimizer
        self._step = int(optimizer.iterations) * (optimizer.gradient_accumulation_steps or 1)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """An epoch begins."""
        self._epoch, self._epoch_began = epoch, self._step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A step was taken, or several up to this one."""
        # An execution of several steps may end behind the last batch of the epoch.
        self._step = self._epoch_began + min(batch + 1, self.params.get("steps") or batch + 1)
        self.exporter.observe(self.model, Moment(self._step, self._epoch))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """An epoch has ended."""
        self.exporter.observe(self.model, Moment(self._step, epoch + 1, epoch_end=True))


def to_onnx(model: keras.Model) -> onnx.ModelProto:
    """A built Keras model with one input and one output, in inference mode.

    Raises:
        VogcoreError: the converter of the backend is missing.
        ModelError: the model is not built, has several inputs or outputs, or the converter fails.
    """
    if not model.built or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"The Keras model {model.name} needs one input and one output with known shapes; give it an Input layer."
        )
    convert = {"torch": _from_torch, "tensorflow": _from_tensorflow, "jax": _from_jax}.get(keras.backend.backend())
    if convert is None:
        raise ModelError(
            f"Keras models cannot be exported from the backend {keras.backend.backend()}; use torch, tensorflow or jax."
        )
    return convert(model)


def _from_torch(model: Any) -> onnx.ModelProto:
    import torch

    from vogcore_adapters import torch as torch_adapter

    (given,) = model.inputs
    dtype = getattr(torch, str(given.dtype))
    example = torch.zeros((1, *(size or 1 for size in given.shape[1:])), dtype=dtype)
    return torch_adapter.to_onnx(torch_adapter.called_by(model, _call), example, OPSET)


def _call(model: Any, x: Any) -> Any:
    return model(x, training=False)


def _from_tensorflow(model: Any) -> onnx.ModelProto:
    try:
        import tensorflow as tf
        import tf2onnx
    except ImportError as error:
        raise missing(error, "keras", "Exporting a Keras model from the backend tensorflow") from error
    (given,) = model.inputs
    signature = [tf.TensorSpec(given.shape, given.dtype, name="input")]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            function = tf.function(lambda x: model(x, training=False), input_signature=signature)
            return tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)[0]
    except Exception as error:
        raise ModelError(f"tf2onnx cannot export the model {model.name}: {error}") from error


def _from_jax(model: Any) -> onnx.ModelProto:
    from vogcore_adapters import jax as jax_adapter

    # During fit the variables lag behind the training state until they are told to catch up.
    getattr(model, "jax_state_sync", lambda: None)()
    (given,) = model.inputs
    return jax_adapter.to_onnx(lambda x: model(x, training=False), tuple(given.shape[1:]), str(given.dtype))
