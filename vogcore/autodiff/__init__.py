"""Reverse-mode differentiation of ONNX graphs: a forward model in, a gradient model out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.autodiff.custom import register_vjp as register_vjp
    from vogcore.autodiff.custom import unregister_vjp as unregister_vjp
    from vogcore.autodiff.registry import Call as Call
    from vogcore.autodiff.transform import gradient_model as gradient_model
    from vogcore.autodiff.transform import vjp_model as vjp_model
    from vogcore.graph.emit import Emitter as Emitter

__all__ = [
    "CHANNELS",
    "LOWERINGS",
    "OF",
    "OUTPUT",
    "Call",
    "Emitter",
    "gradient_model",
    "register_vjp",
    "unregister_vjp",
    "vjp_model",
]

OF = ("logit", "probability", "log-probability", "loss", "margin", "centred-logit")
"""What can be differentiated of a classifier; see :func:`vogcore.gradient_model`."""

OUTPUT = "output"
"""One more choice of ``of``: an output of any model as it is, a regression for example."""

CHANNELS = ("none", "mean")
"""What a gradient graph can do with the channels of the gradient."""

LOWERINGS = ("cpu", "cuda")
"""Execution providers that a gradient graph can be formulated for."""

_HOME = {
    "Call": "vogcore.autodiff.registry",
    "Emitter": "vogcore.graph.emit",
    "gradient_model": "vogcore.autodiff.transform",
    "register_vjp": "vogcore.autodiff.custom",
    "unregister_vjp": "vogcore.autodiff.custom",
    "vjp_model": "vogcore.autodiff.transform",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
