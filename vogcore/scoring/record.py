"""What a score file records about the software that made it."""

from __future__ import annotations

import importlib.metadata
import platform

__all__ = ["versions"]

_PACKAGES = ("numpy", "numba", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "h5py")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
