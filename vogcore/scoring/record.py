"""What a score file records about how it was made."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore._types import ExampleSource
from vogcore.data import Preprocess
from vogcore.runtime import Provider
from vogcore.scoring.settings import Settings
from vogcore.scoring.stored import AS_MADE

__all__ = ["gradients_record", "model_record", "versions"]

_PACKAGES = ("numpy", "numba", "llvmlite", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "h5py")
_OF_THE_GRADIENTS = ("of", "target", "target_checkpoint", "data", "preprocess", "wrt")
"""Settings that were decided when an archive's gradients were computed."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _stages(windows: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, list[int]]:
    return {name: indices.tolist() for name, indices in windows.items()}


def model_record(
    settings: Settings,
    axis: int | None,
    windows: Mapping[str, npt.NDArray[np.int64]],
    source: ExampleSource,
    fingerprint: str,
    *,
    wrt: str | None,
    output: str | None,
    provider: Provider,
    threads: int | None,
    batch: int,
) -> dict[str, Any]:
    """The record of a run on checkpoints."""
    preprocess = getattr(source, "preprocess", None)
    return {
        **settings.to_dict(),
        "channel_axis": axis,
        "stages": _stages(windows),
        "data": {"name": source.name, "shape": [len(source), *source.shape], "sha256": fingerprint},
        "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else None,
        "wrt": wrt,
        "output": output,
        "provider": provider.name,
        "device": provider.device,
        "threads": threads,
        "batch_size": batch,
        "classes_from": "labels" if source.labels is not None else "target",
        "versions": versions(),
    }


def gradients_record(
    settings: Settings,
    axis: int | None,
    windows: Mapping[str, npt.NDArray[np.int64]],
    made: Mapping[str, Any],
    where: str,
    classes_from: str,
) -> dict[str, Any]:
    """The record of a run on given gradients; ``made`` is the record of the archive that holds them, or empty."""
    inherited = {key: made[key] for key in _OF_THE_GRADIENTS if key in made}
    if "of" not in inherited:
        inherited["of"] = inherited["target"] = inherited["wrt"] = AS_MADE
    return {
        **settings.to_dict(),
        **inherited,
        "channel_axis": axis,
        "stages": _stages(windows),
        "gradients": where,
        "classes_from": classes_from,
        "versions": versions(),
    }
