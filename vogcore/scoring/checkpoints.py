"""Checkpoints: find them, put them in order, and make sure that they belong together and differ."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import onnx

from vogcore._checkpoint import CLASS_NAMES_KEY, EPOCH_KEY, PREPROCESS_KEY, STEP_KEY, WRT_KEY
from vogcore.data import Preprocess
from vogcore.errors import CheckpointError, SettingsError
from vogcore.graph import load_model, weights_digest

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "find_checkpoints",
    "in_training_order",
    "natural_key",
    "recorded_preprocess",
    "recorded_wrt",
]

Checkpoints: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str] | onnx.ModelProto]"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of the run."""

    name: str
    path: Path | None
    """Where it is; None for a model that was passed in memory."""
    proto: onnx.ModelProto | None
    step: int | None
    epoch: int | None
    sha256: str
    """Digest of its weights."""
    class_names: list[str] | None
    preprocess: str | None = None
    """JSON text, as it is recorded."""
    wrt: str | None = None
    """The value that it records as what gradients are taken of."""

    def load(self) -> onnx.ModelProto:
        """The forward model."""
        return self.proto if self.proto is not None else load_model(self.path or "")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``ckpt-9`` comes before ``ckpt-10``."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part.lower()) for part in parts]


def find_checkpoints(checkpoints: Checkpoints) -> tuple[list[Checkpoint], list[str]]:
    """Read the checkpoints and put them in the order of training.

    Args:
        checkpoints: a glob pattern or folder, whose matches are ordered by their recorded step (``vogcore.step`` in
            the model's metadata) where all of them have one, else by the numbers in their names; or a list of paths
            or models, whose order is kept.

    Returns:
        The checkpoints, and a warning for each pair with identical weights.

    Raises:
        CheckpointError: none matches, there is only one, or all have the same weights.
        ModelError: one of them cannot be read.
    """
    if isinstance(checkpoints, onnx.ModelProto):
        raise CheckpointError("One model was given, and the variance over one checkpoint is not defined; give several.")
    if isinstance(checkpoints, str | os.PathLike):
        found = [_read(path) for path in _matches(os.fspath(checkpoints))]
        if all(checkpoint.step is not None for checkpoint in found):
            found.sort(key=lambda checkpoint: (checkpoint.step or 0, natural_key(checkpoint.name)))
    else:
        found = [_from_item(item, number) for number, item in enumerate(_require_list(checkpoints))]
    if len(found) < 2:
        names = f" ({found[0].name})" if found else ""
        raise CheckpointError(
            f"There is {len(found) or 'no'} checkpoint{names}, and the variance over fewer than two is not defined; "
            "give at least two checkpoints of one training run."
        )
    found = _with_names_of_their_own(found)
    return found, _identical(found)


def recorded_preprocess(found: Sequence[Checkpoint]) -> Preprocess | None:
    """The preprocessing that the checkpoints record, for examples as they are stored; None where none does.

    Raises:
        CheckpointError: they record different ones, or one that cannot be read.
    """
    advice = "say which one to use: preprocess=, on the command line --scale, --mean, --std and --layout"
    first = found[0]
    for other in found[1:]:
        if other.preprocess != first.preprocess:
            raise CheckpointError(
                f"The checkpoints {first.name} and {other.name} record different preprocessing; {advice}."
            )
    if first.preprocess is None:
        return None
    try:
        return Preprocess(**json.loads(first.preprocess))
    except (ValueError, TypeError, SettingsError) as error:
        raise CheckpointError(
            f"The preprocessing that the checkpoint {first.name} records cannot be read; {advice}."
        ) from error


def recorded_wrt(found: Sequence[Checkpoint]) -> str | None:
    """The value inside the model that the checkpoints record as what gradients are taken of; None for the input.

    Raises:
        CheckpointError: they record different ones.
    """
    for other in found[1:]:
        if other.wrt != found[0].wrt:
            raise CheckpointError(
                f"The checkpoints {found[0].name} and {other.name} record different values whose gradient is wanted; "
                "name one: wrt=, on the command line --wrt."
            )
    return found[0].wrt


def _require_list(checkpoints: Any) -> Iterable[Any]:
    if isinstance(checkpoints, Iterable) and not isinstance(checkpoints, bytes):
        return checkpoints
    raise CheckpointError(
        f"The checkpoints were given as {type(checkpoints).__name__}; give a pattern, a folder, or a list of paths or "
        "models."
    )


def _from_item(item: Any, number: int) -> Checkpoint:
    if isinstance(item, onnx.ModelProto):
        return _from_proto(item, f"checkpoint {number}", None, item)
    if isinstance(item, str | os.PathLike):
        return _read(item)
    raise CheckpointError(f"Checkpoint {number} is a {type(item).__name__}; give paths or models (onnx.ModelProto).")


def _with_names_of_their_own(found: Sequence[Checkpoint]) -> list[Checkpoint]:
    """As many folders in front of the file names as it takes to tell the checkpoints apart.

    Runs that save "epoch-1/model.onnx", "epoch-2/model.onnx" would otherwise have one name for all, in messages and
    in the file. A checkpoint that was given twice gets a number.
    """
    names = [checkpoint.name for checkpoint in found]
    paths = {checkpoint.path.absolute() for checkpoint in found if checkpoint.path is not None}
    depth = 1
    while len({Path(*path.parts[-depth:]) for path in paths}) < len(paths):
        depth += 1
    for index, checkpoint in enumerate(found):
        if checkpoint.path is not None:
            names[index] = str(Path(*checkpoint.path.absolute().parts[-depth:]))
    seen: dict[str, int] = {}
    result = []
    for checkpoint, name in zip(found, names):
        seen[name] = seen.get(name, 0) + 1
        # File names need not be valid Unicode, the names in a score file do.
        readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        result.append(replace(checkpoint, name=readable if seen[name] == 1 else f"{readable} ({seen[name]})"))
    return result


def in_training_order(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Paths and patterns, as a shell passes them, as one list of paths in the order of training.

    A shell sorts ``ckpt-10`` before ``ckpt-2``; this is the order that :func:`find_checkpoints` gives a pattern.

    Raises:
        CheckpointError: a pattern matches nothing.
        ModelError: a file cannot be read.
    """
    found = list(dict.fromkeys(path for item in paths for path in _matches(os.fspath(item))))
    steps = {path: _number(_props(load_model(path)).get(STEP_KEY)) for path in found}
    recorded = None not in steps.values()
    return sorted(found, key=lambda path: ((steps[path] or 0) if recorded else 0, natural_key(path)))


def _matches(pattern: str) -> list[str]:
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*.onnx")
    # A path that exists is meant as it stands, even with brackets in its name.
    paths = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True), key=natural_key)
    if not paths:
        raise CheckpointError(
            f"No checkpoint matches {pattern!r}; check the path, and quote a pattern so that the shell leaves it alone."
        )
    return paths


def _read(path: str | os.PathLike[str]) -> Checkpoint:
    return _from_proto(load_model(path), Path(path).name, Path(path), None)


def _from_proto(model: onnx.ModelProto, name: str, path: Path | None, keep: onnx.ModelProto | None) -> Checkpoint:
    props = _props(model)
    return Checkpoint(
        name=name,
        path=path,
        proto=keep,
        step=_number(props.get(STEP_KEY)),
        epoch=_number(props.get(EPOCH_KEY)),
        sha256=weights_digest(model),
        class_names=_names(props.get(CLASS_NAMES_KEY)),
        preprocess=props.get(PREPROCESS_KEY),
        wrt=props.get(WRT_KEY),
    )


def _props(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _number(text: str | None) -> int | None:
    # What int64 cannot hold is no number of steps.
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else None


def _names(text: str | None) -> list[str] | None:
    try:
        names = json.loads(text) if text is not None else None
    except json.JSONDecodeError:
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _identical(found: Sequence[Checkpoint]) -> list[str]:
    first: dict[str, Checkpoint] = {}
    doubles = []
    for checkpoint in found:
        original = first.setdefault(checkpoint.sha256, checkpoint)
        if original is not checkpoint:
            doubles.append((original, checkpoint))
    if doubles and len(first) == 1:
        raise CheckpointError(
            f"All {len(found)} checkpoints have identical weights ({found[0].name} to {found[-1].name}), so nothing "
            "varies between them; check that the training loop really saved different ones."
        )
    return [
        f"Checkpoints {original.name} and {double.name} have identical weights, so one of them adds nothing."
        for original, double in doubles
    ]
