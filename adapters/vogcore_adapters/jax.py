"""Checkpoints from a training loop in JAX: Flax NNX modules, and functions of any library (Linen, Equinox, Haiku)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from vogcore.errors import ModelError, SettingsError
from vogcore_adapters import exporter
from vogcore_adapters._jax_pooling import pool_over_windows_only
from vogcore_adapters._require import missing

if TYPE_CHECKING:
    import onnx

__all__ = ["CheckpointExporter", "to_onnx"]

OPSET = 23


class CheckpointExporter(exporter.CheckpointExporter):
    """Writes checkpoints of a training loop in JAX, without disturbing it.

    With Flax NNX::

        exporter = CheckpointExporter("ckpts", images.shape[1:], schedule=every_n_steps(100))
        ...
        exporter.step(model)  # after optimizer.update

    With Linen, and everything else, where the parameters are apart from the model::

        exporter.step(lambda x: network.apply(params, x, train=False))

    Args:
        folder: where the checkpoints go; made if it does not exist.
        example_shape: shape of one example as the model gets it, without the batch.
        dtype: type of the examples.
        **options: see :class:`vogcore_adapters.exporter.Options`.

    Raises:
        VogcoreError: as :class:`vogcore_adapters.exporter.CheckpointExporter`, and jax or jax2onnx is missing.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        example_shape: Sequence[int],
        *,
        dtype: str = "float32",
        **options: Unpack[exporter.Options],
    ) -> None:
        _import_jax()
        shape = _shape(example_shape)
        super().__init__(folder, lambda model: to_onnx(model, shape, dtype), **options)

    def _writes(self) -> bool:
        return _import_jax()[0].process_index() == 0


def to_onnx(model: Callable[[Any], Any], example_shape: Sequence[int], dtype: str = "float32") -> onnx.ModelProto:
    """A model as it is now: a Flax NNX module, which is exported in evaluation mode, or a function.

    Args:
        model: the module, or a function from a batch (batch, ...) to the logits (batch, classes) that holds its
            parameters and is in evaluation mode by itself.
        example_shape: shape of one example.
        dtype: type of the examples.

    Returns:
        The model, with the input ``input``, the output ``logits`` and a symbolic batch.

    Raises:
        VogcoreError: jax or jax2onnx is missing.
        SettingsError: the shape is not one.
        ModelError: jax2onnx cannot export the model.
    """
    jax, jax2onnx = _import_jax()
    shape = _shape(example_shape)
    name = type(model).__name__
    try:
        given = [jax.ShapeDtypeStruct(("B", *shape), dtype)]
        exported = jax2onnx.to_onnx(
            _evaluating(model), given, opset=OPSET, input_names=["input"], output_names=["logits"]
        )
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise ModelError(f"jax2onnx cannot export the model {name}: {type(error).__name__}: {cause}") from error
    pool_over_windows_only(exported)
    return exported


def _evaluating(model: Any) -> Any:
    """A copy of an NNX module in evaluation mode, which shares its arrays; functions as they are."""
    try:
        from flax import nnx
    except ImportError:
        return model
    if not isinstance(model, nnx.Module):
        return model
    twin = nnx.merge(*nnx.split(model))
    twin.eval()
    return twin


def _shape(example_shape: Any) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in example_shape)
    except (TypeError, ValueError):
        raise SettingsError(
            f"example_shape must be the shape of one example, such as (28, 28, 1), not {example_shape!r}."
        ) from None


def _import_jax() -> tuple[Any, Any]:
    try:
        import jax
        import jax2onnx
    except ImportError as error:
        raise missing(error, "jax", "Exporting a JAX model") from error
    return jax, jax2onnx
