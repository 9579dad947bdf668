"""Files that vogcore writes and reads: scores and gradient archives, both HDF5 (described in docs/file-formats.md).

Names are resolved on first use, so that importing this package does not load h5py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.store.archive import GradientArchive, GradientWriter, open_gradients
    from vogcore.store.maps import Maps
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
    "Maps",
    "Scores",
    "StageScores",
    "check_output",
    "open_gradients",
    "open_scores",
]

_ARCHIVE = ("GradientArchive", "GradientWriter", "open_gradients")
_HOME = {name: f"vogcore.store.{'archive' if name in _ARCHIVE else 'scores'}" for name in __all__}
_HOME["Maps"] = "vogcore.store.maps"

__getattr__, __dir__ = lazy(__name__, _HOME)
