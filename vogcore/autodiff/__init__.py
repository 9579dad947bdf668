"""Reverse-mode differentiation of ONNX graphs: a forward model in, a gradient model out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.autodiff.transform import gradient_model as gradient_model
    from vogcore.autodiff.transform import vjp_model as vjp_model

__all__ = ["CHANNELS", "LOWERINGS", "OF", "gradient_model", "vjp_model"]

OF = ("logit", "probability", "log-probability", "loss", "margin", "centred-logit")
"""What can be differentiated; see :func:`vogcore.gradient_model`."""

CHANNELS = ("none", "mean")
"""What a gradient graph can do with the channels of the gradient."""

LOWERINGS = ("cpu", "cuda")
"""Execution providers that a gradient graph can be formulated for."""

_HOME = {"gradient_model": "vogcore.autodiff.transform", "vjp_model": "vogcore.autodiff.transform"}

__getattr__, __dir__ = lazy(__name__, _HOME)
