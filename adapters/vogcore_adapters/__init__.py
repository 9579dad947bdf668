"""Adapters between vogcore and other tools: frameworks, data sets, tables; each needs only its own tool.

================  ============  ========================================================
module            extra         what it does
================  ============  ========================================================
``torch``         torch         checkpoints from a training loop of one's own
``lightning``     lightning     a callback for ``Trainer``
``transformers``  transformers  a callback for ``Trainer``
``keras``         keras         a callback for ``fit``
``jax``           jax           checkpoints from a training loop in Flax, or any in JAX
``sklearn``       sklearn       checkpoints of estimators that are trained step by step
``schedule``      none          when a checkpoint is written
``exporter``      none          what all of them share
``native_torch``  torch         input gradients by torch's autograd
``native_jax``    jax           input gradients by ``jax.vjp``
``native_keras``  keras         input gradients of a Keras model, by its backend
``torch_data``    torch         reads a torch ``Dataset`` or ``DataLoader``
``tf_data``       none          reads a ``tf.data.Dataset``
``huggingface``   huggingface   reads a ``datasets.Dataset``; scores as its columns
``zarr``          zarr          reads Zarr arrays and groups
``images``        images        reads folders of images, one for each class
``parquet``       parquet       reads Parquet: features, or encoded images
``results``       none          sampler weights, curriculum, pruning mask, issues table
                                (this one needs the extra pandas)
``fiftyone``      none          scores as fields of samples
================  ============  ========================================================

Importing this package imports no framework. The modules with a callback import theirs, since a callback is a class of
it; the others when a function is called.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vogcore_adapters import (
        exporter,
        fiftyone,
        huggingface,
        images,
        jax,
        keras,
        lightning,
        native_jax,
        native_keras,
        native_torch,
        parquet,
        results,
        schedule,
        sklearn,
        tf_data,
        torch,
        torch_data,
        transformers,
        zarr,
    )

__all__ = [
    "exporter",
    "fiftyone",
    "huggingface",
    "images",
    "jax",
    "keras",
    "lightning",
    "native_jax",
    "native_keras",
    "native_torch",
    "parquet",
    "results",
    "schedule",
    "sklearn",
    "tf_data",
    "torch",
    "torch_data",
    "transformers",
    "zarr",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
