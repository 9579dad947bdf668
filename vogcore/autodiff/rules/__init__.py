"""Gradient rules by family. Importing this package fills :data:`vogcore.autodiff.registry.RULES`."""

from vogcore.autodiff.rules import activation, arithmetic, control, conv, linalg, norm, pool, recurrent, reduce, shape

__all__ = ["activation", "arithmetic", "control", "conv", "linalg", "norm", "pool", "recurrent", "reduce", "shape"]
