"""Gradient rules by family. Importing this package fills :data:`vogcore.autodiff.registry.RULES`."""

from vogcore.autodiff.rules import (
    activation,
    arithmetic,
    attention,
    control,
    conv,
    fourier,
    linalg,
    loss,
    norm,
    pool,
    quantise,
    recurrent,
    reduce,
    shape,
)

__all__ = [
    "activation",
    "arithmetic",
    "attention",
    "control",
    "conv",
    "fourier",
    "linalg",
    "loss",
    "norm",
    "pool",
    "quantise",
    "recurrent",
    "reduce",
    "shape",
]
