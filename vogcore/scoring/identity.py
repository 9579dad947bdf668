"""What a run is: everything that decides a bit of its scores, and how two runs differ, in words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from vogcore import __version__
from vogcore.scoring.record import versions
from vogcore.store import CheckpointInfo

__all__ = ["as_stored", "differences", "identity", "processor"]

_APART = ("data", "stages", "versions")
"""Parts of the record that are compared by their own rules."""
_NO_NUMBERS = ("python", "h5py")
"""Packages that read and write numbers but compute none."""


def identity(
    record: Mapping[str, Any],
    checkpoints: Sequence[CheckpointInfo],
    ids: npt.NDArray,
    classes: Sequence[str],
    *,
    threads: int,
    rows: int,
    graphs: str,
    keep: str | os.PathLike[str] | None,
    keep_dtype: str,
) -> dict[str, Any]:
    """Everything that must agree for one run to go on with another's results.

    Args:
        record: settings as the score file records them.
        checkpoints: name and digest of each.
        ids: of the examples (N,).
        classes: their names.
        threads: threads of ONNX Runtime that are really used.
        rows: examples in one run of a model.
        graphs: digest of the structure of all gradient graphs.
        keep: gradient archive that is written on the way, or None.
        keep_dtype: its type.
    """
    settings = {key: value for key, value in record.items() if key not in _APART}
    settings["threads"] = threads
    settings["examples in a run of a model"] = rows
    settings["keep_gradients"] = None if keep is None else os.path.abspath(keep)
    settings["keep_dtype"] = None if keep is None else keep_dtype
    packages = {name: version for name, version in versions().items() if name not in _NO_NUMBERS}
    return {
        "settings": settings,
        "stages": record["stages"],
        "data": {key: record["data"][key] for key in ("shape", "sha256")},
        "ids": hashlib.sha256(repr(ids.dtype.kind).encode() + ids.tobytes()).hexdigest(),
        "classes": list(classes),
        "checkpoints": [[checkpoint.name, checkpoint.sha256] for checkpoint in checkpoints],
        "graphs": graphs,
        "versions": {"vogcore": __version__, **packages},
        "processor": processor(),
    }


def as_stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """What reading it back from JSON gives (tuples become lists, for one)."""
    return dict(json.loads(json.dumps(content)))


def processor() -> list[str]:
    """Name of the processor and a digest of its instruction set.

    ONNX Runtime and Numba choose their code by it, and the last bits of a sum with it.
    """
    from llvmlite import binding

    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:  # not known on this platform
        features = {}
    able = ",".join(sorted(name for name, has in features.items() if has))
    return [binding.get_host_cpu_name(), hashlib.sha256(able.encode()).hexdigest()[:16]]


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed between two runs, one clause each; empty where nothing has.

    Args:
        then, now: from :func:`identity`, as :func:`as_stored` gives them.
    """
    found = _data(then, now) + _checkpoints(then.get("checkpoints", []), now["checkpoints"])
    if then.get("classes") != now["classes"]:
        found.append("the class names have changed")
    settings = _changes("", then.get("settings", {}), now["settings"])
    found += settings + _changes("stage ", then.get("stages", {}), now["stages"])
    found += _changes("", then.get("versions", {}), now["versions"])
    if then.get("processor") != now["processor"]:
        was, here = (then.get("processor") or ["?"])[0], now["processor"][0]
        found.append(
            f"the processor was {was} and is {here}" if was != here else "the processor has other instructions"
        )
    if then.get("graphs") != now["graphs"] and not found:
        found.append("the graph of a checkpoint or the gradient rule of an operator has changed")
    if not found and dict(then) != dict(now):
        found.append("the description of the run is that of another version")
    return found


def _data(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    was, here = then.get("data", {}), now["data"]
    if was.get("shape") != here["shape"]:
        return [f"the data had the shape {_said(was.get('shape'))} and have {_said(here['shape'])}"]
    preprocessed = [run.get("settings", {}).get("preprocess") for run in (then, now)]
    if was.get("sha256") != here["sha256"] and preprocessed[0] == preprocessed[1]:  # else that says it all
        return ["the data have changed (examples or labels)"]
    return ["the ids of the examples have changed"] if then.get("ids") != now["ids"] else []


def _checkpoints(then: Sequence[Sequence[str]], now: Sequence[Sequence[str]]) -> list[str]:
    if len(then) != len(now):
        return [f"there were {len(then)} checkpoints and are {len(now)}"]
    was, here = [sha256 for _, sha256 in then], [sha256 for _, sha256 in now]
    if was != here and sorted(was) == sorted(here):
        return ["the checkpoints are in another order"]
    changed = [f"checkpoint {new[0]} has changed" for old, new in zip(then, now) if old[1] != new[1]]
    renamed = [
        f"checkpoint {old[0]} is now {new[0]}" for old, new in zip(then, now) if old[1] == new[1] and old[0] != new[0]
    ]
    return changed + renamed


def _changes(what: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = [*now, *(key for key in then if key not in now)]
    return [
        f"{what}{key} was {_said(then.get(key))} and is {_said(now.get(key))}"
        for key in keys
        if then.get(key) != now.get(key)
    ]


def _said(value: Any) -> str:
    if value is None:
        return "not there"
    if isinstance(value, list):
        return "(" + ", ".join(map(str, value)) + ")"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {part}" for key, part in value.items() if part is not None) + ")"
    return str(value)
