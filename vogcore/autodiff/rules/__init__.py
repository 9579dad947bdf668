"""Gradient rules by family. Importing this package fills :data:`vogcore.autodiff.registry.RULES`."""

from vogcore.autodiff.rules import (
    activation,
    arithmetic,
    attention,
    conv,
    fourier,
    linalg,
    loss,
    norm,
    pool,
    quantise,
    reduce,
    shape,
)

__all__ = [
    "activation",
    "arithmetic",
    "attention",
    "conv",
    "fourier",
    "linalg",
    "loss",
    "norm",
    "pool",
    "quantise",
    "reduce",
    "shape",
]
