"""Files that vogcore writes and reads: scores and gradient archives, both HDF5 (described in docs/file-formats.md).

Names are resolved on first use, so that importing this package does not load h5py.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vogcore.store.archive import GradientArchive, GradientWriter, open_gradients
    from vogcore.store.scores import (
        CheckpointInfo,
        Companion,
        Direction,
        Scores,
        StageScores,
        check_output,
        open_scores,
    )

__all__ = [
    "CheckpointInfo",
    "Companion",
    "Direction",
    "GradientArchive",
    "GradientWriter",
    "Scores",
    "StageScores",
    "check_output",
    "open_gradients",
    "open_scores",
]

_MODULES = {
    "GradientArchive": "vogcore.store.archive",
    "GradientWriter": "vogcore.store.archive",
    "open_gradients": "vogcore.store.archive",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "vogcore.store.scores")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
