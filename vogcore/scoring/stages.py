"""Stages: windows over the checkpoints, each with moments of its own, filled in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError
from vogcore.store.schema import ALL

__all__ = ["Segment", "StageSpec", "can_be_named", "resolve_stages", "segments"]

StageSpec = Mapping[str, "slice | Sequence[int]"]
"""Name -> a slice of the checkpoints, or their indices."""

_THIRDS = ("early", "middle", "late")
_FEWEST_FOR_THIRDS = 6


class Segment(NamedTuple):
    """A run of consecutive checkpoints that belong to the same stages."""

    checkpoints: tuple[int, ...]
    stages: tuple[str, ...]


def resolve_stages(count: int, stages: StageSpec | None) -> dict[str, npt.NDArray[np.int64]]:
    """Checkpoint indices of every stage, ``"all"`` first.

    Args:
        count: number of checkpoints K.
        stages: the user's windows; None gives the thirds ``early``, ``middle``, ``late`` from six checkpoints on.

    Raises:
        SettingsError: a stage is named "all" or badly, reaches past the checkpoints, or has fewer than two of them.
    """
    resolved = {ALL: np.arange(count, dtype=np.int64)}
    if stages is None:
        if count >= _FEWEST_FOR_THIRDS:
            parts = np.array_split(resolved[ALL], len(_THIRDS))
            resolved.update(zip(_THIRDS, parts, strict=True))
        return resolved
    if not isinstance(stages, Mapping):
        raise SettingsError(f"stages must map names to slices or lists of checkpoints, not be {stages!r}.")
    for name, window in stages.items():
        if not can_be_named(name):
            raise SettingsError(f"A stage cannot be named {name!r}; choose another name, without slashes.")
        indices = _indices(name, window, count)
        if len(indices) < 2:
            raise SettingsError(
                f"Stage {name!r} has {len(indices)} of the {count} checkpoints, and a variance needs at least two."
            )
        resolved[name] = indices
    return resolved


def can_be_named(name: object) -> bool:
    """Stages are groups of the score file: what HDF5 cannot name is found out now, not when the file is written."""
    if not isinstance(name, str) or not name or name != name.strip() or name in (ALL, ".", ".."):
        return False
    return name.isprintable() and "/" not in name


def _indices(name: str, window: slice | Sequence[int], count: int) -> npt.NDArray[np.int64]:
    try:
        if isinstance(window, slice):
            return np.sort(np.arange(count, dtype=np.int64)[window])
        chosen = np.asarray(window)
    except (TypeError, ValueError):  # a slice by floats or of step 0, a list of lists
        chosen = np.empty((0, 0))
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise SettingsError(f"Stage {name!r} must be a slice or a list of checkpoint indices, not {window!r}.")
    outside = [int(index) for index in chosen if not -count <= index < count]
    if outside:
        raise SettingsError(f"Stage {name!r} names checkpoint {outside[0]}, but there are {count} (0 to {count - 1}).")
    return np.unique(chosen.astype(np.int64) % count)


def segments(stages: Mapping[str, npt.NDArray[np.int64]]) -> list[Segment]:
    """Cut the checkpoints where the set of stages that they belong to changes.

    Disjoint stages share their work: a segment's moments are computed once and merged into every stage it is part of.
    """
    count = int(stages[ALL].size)
    membership = [tuple(name for name, indices in stages.items() if index in indices) for index in range(count)]
    result: list[Segment] = []
    for index, names in enumerate(membership):
        if result and result[-1].stages == names:
            result[-1] = Segment((*result[-1].checkpoints, index), names)
        else:
            result.append(Segment((index,), names))
    return result
