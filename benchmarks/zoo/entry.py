"""One line of the table: a network as some exporter wrote it, with inputs and the gradient that is right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["Entry", "Exported", "Unavailable", "load_folder", "save"]


class Unavailable(Exception):
    """The framework that builds an entry is not installed; the message says what to install."""


@dataclass
class Exported:
    """An exported model and the truth about it."""

    model: bytes
    feeds: dict[str, np.ndarray]
    """Value of every input of the model, by name."""
    target: np.ndarray
    """(N,) int64: the class of each example whose logit is differentiated."""
    gradient: np.ndarray
    """(N, ...) float64: gradient of those logits, computed in float64 by the source named in ``reference``."""
    logits: np.ndarray | None = None
    """(N, C) float64, before a softmax."""
    own: np.ndarray | None = None
    """The same gradient as the reference gives it in the model's own type: what rounding alone does to it."""
    wrt: str | None = None
    """Name of the tensor that ``gradient`` belongs to, where it is not the only input."""
    output: str | None = None
    """Name of the output with the class scores, where there are several."""
    reference: str = "float64 autograd"
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One network, exporter and opset; what they give is computed when it is asked for."""

    model: str
    framework: str
    exporter: str
    opset: int
    build: Callable[[], Exported] = field(compare=False, repr=False)
    bound: float = 1e-5
    """Largest median relative error that is right for this entry in float32 arithmetic."""
    why: str = ""
    """Why ``bound`` is looser than 1e-5, where it is."""

    @property
    def slug(self) -> str:
        """The entry's name as a file name."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.model} {self.exporter} {self.opset}".lower()).strip("-")


def save(entry: Entry, exported: Exported, folder: Path) -> Path:
    """Write an entry with its model as ``slug.npz``, to be measured where its framework is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "model": entry.model, "framework": entry.framework, "exporter": entry.exporter, "opset": entry.opset,
        "bound": entry.bound, "why": entry.why, "wrt": exported.wrt, "output": exported.output,
        "reference": exported.reference, "notes": exported.notes,
    }  # fmt: skip
    arrays = {f"feed:{name}": value for name, value in exported.feeds.items()}
    arrays |= {"target": exported.target, "gradient": exported.gradient, "record": np.array(json.dumps(record))}
    arrays |= {key: value for key in ("logits", "own") if (value := getattr(exported, key)) is not None}
    arrays["model"] = np.frombuffer(exported.model, np.uint8)
    path = folder / f"{entry.slug}.npz"
    np.savez_compressed(path, **arrays)
    return path


def load_folder(folder: Path) -> Iterator[Entry]:
    """Entries that :func:`save` wrote into ``folder``, in the order of their file names."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            record = json.loads(str(arrays["record"]))
        yield Entry(
            *(record[key] for key in ("model", "framework", "exporter", "opset")),
            build=lambda path=path: _load(path),
            bound=record["bound"],
            why=record["why"],
        )


def _load(path: Path) -> Exported:
    with np.load(path) as arrays:
        record = json.loads(str(arrays["record"]))
        return Exported(
            model=arrays["model"].tobytes(),
            feeds={key.removeprefix("feed:"): arrays[key] for key in arrays.files if key.startswith("feed:")},
            target=arrays["target"],
            gradient=arrays["gradient"],
            **{key: arrays[key] for key in ("logits", "own") if key in arrays.files},
            **{key: record[key] for key in ("wrt", "output", "reference", "notes")},
        )
