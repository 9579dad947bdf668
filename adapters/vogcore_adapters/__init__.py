"""Adapters between vogcore and the frameworks that train networks; each needs only its own framework.

==================================  ===================  ===============================================
module                              extra                what it does
==================================  ===================  ===============================================
``vogcore_adapters.torch``          ``vogcore[torch]``   writes a torch module as an ONNX checkpoint
``vogcore_adapters.native_torch``   ``vogcore[torch]``   input gradients by torch's autograd
``vogcore_adapters.native_jax``     ``vogcore[jax]``     input gradients by ``jax.vjp``
``vogcore_adapters.native_keras``   ``vogcore[keras]``   input gradients of a Keras model, by its backend
==================================  ===================  ===============================================

Importing this package, or one of its modules, imports no framework: that happens when a function is called.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vogcore_adapters import native_jax, native_keras, native_torch, torch

__all__ = ["native_jax", "native_keras", "native_torch", "torch"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
