"""Adapters between vogcore and the frameworks that train networks; each needs only its own framework.

=================================  =========================  =======================================================
module                             extra                      what it does
=================================  =========================  =======================================================
``vogcore_adapters.torch``         ``vogcore[torch]``         checkpoints from a training loop of one's own
``vogcore_adapters.lightning``     ``vogcore[lightning]``     a callback for ``Trainer``
``vogcore_adapters.transformers``  ``vogcore[transformers]``  a callback for ``Trainer``
``vogcore_adapters.keras``         ``vogcore[keras]``         a callback for ``fit``
``vogcore_adapters.jax``           ``vogcore[jax]``           checkpoints from a training loop in Flax, or any in JAX
``vogcore_adapters.sklearn``       ``vogcore[sklearn]``       checkpoints of estimators that are trained step by step
``vogcore_adapters.schedule``                                 when a checkpoint is written
``vogcore_adapters.exporter``                                 what all of them share
=================================  =========================  =======================================================

Importing this package imports no framework. The modules with a callback import theirs, since a callback is a class of
it; the others when a function is called.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vogcore_adapters import exporter, jax, keras, lightning, schedule, sklearn, torch, transformers

__all__ = ["exporter", "jax", "keras", "lightning", "schedule", "sklearn", "torch", "transformers"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
