"""Gradient rules by family. Importing this package fills :data:`vogcore.autodiff.registry.RULES`."""

from vogcore.autodiff.rules import activation, arithmetic, conv, linalg, norm, pool, reduce, shape  # isort: skip
from vogcore.autodiff.rules import einsum, fourier, index, layout, pool_norm, resize, sampling  # isort: skip

__all__ = ["activation", "arithmetic", "conv", "linalg", "norm", "pool", "reduce", "shape"]
__all__ += ["einsum", "fourier", "index", "layout", "pool_norm", "resize", "sampling"]
