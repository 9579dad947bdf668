"""Whether score files can be joined: the same settings, checkpoints, stages and classes, or what differs, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vogcore.errors import SettingsError, StoreError
from vogcore.scoring.compare import differences
from vogcore.store import Scores

__all__ = ["require_mergeable"]

_FREE = ("data", "gradients", "maps", "merged", "threads", "batch_size", "eps", "provider", "device", "versions")
"""Parts of the record in which files of one run may differ."""
_NAMED = 5


def require_mergeable(parts: Sequence[Scores], names: Sequence[str]) -> list[str]:
    """Refuse files that one run could not have written.

    Args:
        parts: the scores.
        names: what to call them.

    Returns:
        The names of the classes of all.

    Raises:
        SettingsError: the message names what differs.
        StoreError: the settings of a file are none that vogcore writes.
    """
    classes = list(parts[0].classes)
    for part, name in zip(parts, names, strict=True):
        _require_sane(part, name)
        for what, stage in part.stages.items():
            if stage.mean_abs_gradient is None:
                raise SettingsError(
                    f"{name} has no mean absolute gradient at stage {what!r}, without which normalised scores cannot "
                    "be computed anew; score its examples again."
                )
        found = _different_settings(parts[0], part)
        found += _different_checkpoints(parts[0], part) or _different_stages(parts[0], part)
        found += _different_content(parts[0], part)
        longer, shorter = sorted((classes, list(part.classes)), key=len, reverse=True)
        numbers = [str(index) for index in range(len(longer))]
        # Classes without names are as many as the labels of a part show.
        if longer[: len(shorter)] == shorter and (len(longer) == len(shorter) or longer == numbers):
            classes = longer
        else:
            found.append(f"the classes are {_shown(part.classes)} and not {_shown(classes)}")
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            raise SettingsError(
                f"{name} cannot be merged with {names[0]}: {'; '.join(found[:_NAMED])}{more}; score both in the same "
                "way."
            )
    return classes


def _require_sane(part: Scores, name: str) -> None:
    """What a merge goes by must be of the types that vogcore writes; settings are JSON that anybody can change."""
    record, k = part.settings, len(part.checkpoints)
    data, eps, at = record.get("data"), record.get("eps"), record.get("target_checkpoint", -1)
    shape = data.get("shape", [0]) if isinstance(data, dict) else [0]
    sane = {
        "data": data is None or (isinstance(shape, list) and shape and all(isinstance(size, int) for size in shape)),
        "eps": eps is None or (isinstance(eps, float) and 0 < eps < 1),
        "target_checkpoint": isinstance(at, int) and -k <= at < k,
        "versions": isinstance(record.get("versions") or {}, dict),
        **{key: isinstance(record.get(key, ""), str | None) for key in ("channels", "reduction", "scale", "normalise")},
    }
    for key, is_so in sane.items():
        if not is_so:
            raise StoreError(f"{name} is damaged: its setting {key} is impossible; restore it from a copy.")


def _different_settings(first: Scores, other: Scores) -> list[str]:
    plain = [{key: value for key, value in s.settings.items() if key not in _FREE} for s in (first, other)]
    found = [f"{d.name} is {d.second!r} and not {d.first!r}" for d in differences(*plain) if d.name[:7] != "stages."]
    shapes = [data.get("shape") if isinstance(data := s.settings.get("data"), dict) else None for s in (first, other)]
    if shapes[0] is not None and shapes[1] is not None and shapes[0][1:] != shapes[1][1:]:
        found.append(f"the examples have the shape {tuple(shapes[1][1:])} and not {tuple(shapes[0][1:])}")
    if ("gradients" in first.settings) != ("gradients" in other.settings):
        found.append("one of them was scored from gradients and the other from checkpoints")
    return found


def _different_checkpoints(first: Scores, other: Scores) -> list[str]:
    if len(first.checkpoints) != len(other.checkpoints):
        return [f"it has {len(other.checkpoints)} checkpoints and not {len(first.checkpoints)}"]
    found = []
    for one, two in zip(first.checkpoints, other.checkpoints, strict=True):
        if one.sha256 and two.sha256:
            if one.sha256 != two.sha256:
                found.append(f"checkpoint {two.name} has other weights than {one.name}")
        elif one.name != two.name:
            found.append(f"checkpoint {two.name} stands where {one.name} does")
    return found


def _different_stages(first: Scores, other: Scores) -> list[str]:
    if list(first.stages) != list(other.stages):
        return [f"the stages are {', '.join(other.stages)} and not {', '.join(first.stages)}"]
    return [
        f"stage {name} has other checkpoints"
        for name, stage in first.stages.items()
        if not np.array_equal(stage.checkpoints, other.stages[name].checkpoints)
    ]


def _different_content(first: Scores, other: Scores) -> list[str]:
    found = []
    for what, has in (
        ("companion metrics", lambda s: list(s.companions)),
        ("predictions", lambda s: s.predictions_class is not None),
        ("probabilities of the label", lambda s: s.predictions_label_probability is not None),
    ):
        if has(first) != has(other):
            found.append(f"it has other {what}")
    if first.settings.get("statistics") is None:
        return found
    for name, stage in first.stages.items():
        two = other.stages.get(name)
        if two is None or not all(
            np.array_equal(one, value, equal_nan=True)
            for one, value in ((stage.class_mean, two.class_mean), (stage.class_std, two.class_std))
        ):
            found.append(f"the statistics that it was normalised with are others at stage {name}")
    return found


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{shown}, ... ({len(names)})" if len(names) > 3 else shown or "none"
