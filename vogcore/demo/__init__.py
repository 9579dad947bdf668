"""A complete example that travels inside the package: real digits, a real network, checkpoints to score.

:func:`train` fits a small convolutional network in plain NumPy to scikit-learn's handwritten digits in a few seconds
and writes one ONNX checkpoint per epoch. It needs neither a network connection nor a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vogcore.demo.digits import CLASS_NAMES, load_digits
    from vogcore.demo.export import export_network
    from vogcore.demo.network import Adam, Network
    from vogcore.demo.training import DemoRun, EpochResult, train

__all__ = [
    "train",
    "DemoRun",
    "EpochResult",
    "load_digits",
    "CLASS_NAMES",
    "Network",
    "Adam",
    "export_network",
]

_HOME = {
    "train": "training",
    "DemoRun": "training",
    "EpochResult": "training",
    "load_digits": "digits",
    "CLASS_NAMES": "digits",
    "Network": "network",
    "Adam": "network",
    "export_network": "export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
