"""All entries of the zoo that can be built here, and why others cannot."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence

from benchmarks.zoo.entry import Entry

__all__ = ["FRAMEWORKS", "available", "entries", "versions"]

FRAMEWORKS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # name: module of its entries, packages that must be importable, distributions whose versions the table names
    "torch": ("torch_models", ("torch", "onnxscript"), ("torch", "onnxscript")),
    "onnx": ("onnx_light", ("torch",), ("onnx",)),
    "transformers": ("transformers_models", ("torch", "onnxscript", "transformers"), ("transformers",)),
    "sklearn": ("sklearn_models", ("sklearn", "skl2onnx"), ("scikit-learn", "skl2onnx")),
    "jax": ("jax_models", ("jax", "flax", "jax2onnx"), ("jax", "flax", "jax2onnx")),
    "keras": ("keras_models", ("keras", "tensorflow", "tf2onnx"), ("keras", "tensorflow-cpu", "tf2onnx")),
}


def available(framework: str) -> str | None:
    """None where the framework's packages are installed, else the sentence that says which is missing."""
    missing = [name for name in FRAMEWORKS[framework][1] if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed here" if missing else None


def entries(frameworks: Sequence[str] = (), short: bool = False) -> list[Entry]:
    """Entries of the frameworks that are named and installed; of all by default.

    Args:
        frameworks: keys of ``FRAMEWORKS``.
        short: small forms of the networks, for tests.
    """
    result = []
    for framework in frameworks or FRAMEWORKS:
        if available(framework) is None:
            module = importlib.import_module(f"benchmarks.zoo.exporters.{FRAMEWORKS[framework][0]}")
            result += module.entries(short=short)
    return result


def versions(framework: str) -> dict[str, str]:
    """Versions of the distributions that decide what a framework's graphs look like."""
    found = {}
    for name in FRAMEWORKS[framework][2]:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
