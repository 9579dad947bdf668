"""A complete example that travels inside the package: real digits, a real network, checkpoints to score.

:func:`train` fits a small convolutional network in plain NumPy to scikit-learn's handwritten digits in a few seconds
and writes one ONNX checkpoint per epoch. It needs neither a network connection nor a framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

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
    "train": "vogcore.demo.training",
    "DemoRun": "vogcore.demo.training",
    "EpochResult": "vogcore.demo.training",
    "load_digits": "vogcore.demo.digits",
    "CLASS_NAMES": "vogcore.demo.digits",
    "Network": "vogcore.demo.network",
    "Adam": "vogcore.demo.network",
    "export_network": "vogcore.demo.export",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
