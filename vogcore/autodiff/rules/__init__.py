"""Gradient rules by family. Importing this package fills :data:`vogcore.autodiff.registry.RULES`."""

from vogcore.autodiff.rules import activation, arithmetic, conv, linalg, norm, pool, quantise, reduce, shape

__all__ = ["activation", "arithmetic", "conv", "linalg", "norm", "pool", "quantise", "reduce", "shape"]
