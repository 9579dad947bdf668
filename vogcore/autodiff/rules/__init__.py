"""Gradient rules by family. Importing this package fills :data:`vogcore.autodiff.registry.RULES`."""

from vogcore.autodiff.rules import activation, arithmetic, conv, linalg, norm, pool, reduce, shape

from vogcore.autodiff.rules import einsum, index, layout  # isort: skip

__all__ = ["activation", "arithmetic", "conv", "einsum", "index", "layout", "linalg", "norm", "pool", "reduce", "shape"]
