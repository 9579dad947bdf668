"""What the files of a live run hold: the run itself, its checkpoints, and the moments of one shard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vogcore.store._hdf5 import encode_strings
from vogcore.store._live_file import LiveReader
from vogcore.store._resume import different_settings
from vogcore.store._tables import example_tables
from vogcore.store.scores import CheckpointInfo

__all__ = ["LOGITS", "LiveCheckpoint", "LiveContents", "Segment", "checkpoints_from", "segments"]

_SHARD_BYTES = 32 << 20
"""Moments of one shard: large enough for the disk, small enough to be held several times in memory."""


class _LogitMeasure(NamedTuple):
    path: str
    """Of the dataset."""
    dtype: str
    every_checkpoint: bool
    """(k, n) over the checkpoints; else (n,) at the last one."""
    labelled: bool
    """There are labels."""


LOGITS = {
    "predicted": _LogitMeasure("predictions/class", "<i4", every_checkpoint=True, labelled=False),
    "entropy": _LogitMeasure("entropy", "<f8", every_checkpoint=False, labelled=False),
    "probability": _LogitMeasure("predictions/label_probability", "<f4", every_checkpoint=True, labelled=True),
    "loss": _LogitMeasure("loss", "<f8", every_checkpoint=False, labelled=True),
    "el2n": _LogitMeasure("el2n", "<f8", every_checkpoint=True, labelled=True),
    "margin": _LogitMeasure("margin", "<f8", every_checkpoint=True, labelled=True),
}
"""What a shard keeps of the logits; :class:`vogcore.scoring.companions.LogitMeasures` says what the names mean."""


@dataclass(frozen=True)
class LiveCheckpoint:
    """A checkpoint and the stages that it belongs to, beside ``all``."""

    name: str
    step: int | None = None
    epoch: int | None = None
    sha256: str = ""
    stages: tuple[str, ...] = ()

    @property
    def info(self) -> CheckpointInfo:
        """As score files describe it."""
        return CheckpointInfo(self.name, self.step, self.epoch, self.sha256)

    def describe(self, other: LiveCheckpoint) -> str:
        """In what this one differs from another, in words."""
        names = [key for key, value in asdict(self).items() if value != asdict(other)[key]]
        return ", ".join(f"{name} {getattr(self, name)!r} instead of {getattr(other, name)!r}" for name in names)


@dataclass(eq=False)
class LiveContents:
    """Everything that is decided when a live run is begun.

    Attributes:
        shape: shape of one example's gradient.
        pixels: moments of one example.
        moments: ``"float64"`` or ``"float32"``.
        channels, channel_axis: how channels are reduced to pixels.
        shard_size: examples in a shard (fewer in the last one).
        ids: (N,) int64 or str.
        labels: (N,) int64, or None.
        classes: class names.
        settings: what decided the gradients, as the user says it.
    """

    shape: tuple[int, ...]
    pixels: int
    moments: str
    channels: str
    channel_axis: int | None
    shard_size: int
    ids: npt.NDArray
    labels: npt.NDArray[np.int64] | None
    classes: list[str]
    settings: Mapping[str, Any]

    @staticmethod
    def choose_shard_size(n_examples: int, pixels: int, itemsize: int) -> int:
        """Examples whose moments make up a shard."""
        return min(n_examples, max(1, _SHARD_BYTES // (2 * pixels * itemsize)))

    @property
    def n_examples(self) -> int:
        """N."""
        return len(self.ids)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_examples // self.shard_size)

    @property
    def row_bytes(self) -> int:
        """Bytes of the moments of one example."""
        return 2 * self.pixels * np.dtype(self.moments).itemsize

    def rows(self, shard: int) -> int:
        """Examples in a shard."""
        return min(self.shard_size, self.n_examples - shard * self.shard_size)

    def _record(self) -> dict[str, Any]:
        names = ("shape", "pixels", "moments", "channels", "channel_axis", "shard_size", "settings")
        return {**{name: getattr(self, name) for name in names}, "labelled": self.labels is not None}

    def to_file(self) -> tuple[dict[str, Any], dict[str, npt.NDArray]]:
        """Record and datasets of ``run.h5``.

        Raises:
            StoreError: ids or names cannot be written.
        """
        ids, labels, names, count = example_tables(self.n_examples, self.labels, self.ids, self.classes)
        return self._record(), {
            "examples/id": ids,
            "examples/label": labels,
            "classes/name": encode_strings(names, "classes/name"),
            "classes/count": count,
        }

    @classmethod
    def read(cls, reader: LiveReader) -> tuple[LiveContents, str]:
        """From ``run.h5``, with the id of the run.

        Raises:
            StoreError: something is missing or impossible.
        """
        with reader.guard("its settings"):
            r = reader.record
            ids, labels = (reader.content[f"examples/{name}"] for name in ("id", "label"))
            ids = np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids
            classes = np.char.decode(reader.content["classes/name"], "utf-8").tolist()
            found = cls(
                shape=tuple(int(size) for size in r["shape"]),
                pixels=int(r["pixels"]),
                moments=np.dtype(r["moments"]).name,
                channels=str(r["channels"]),
                channel_axis=None if r["channel_axis"] is None else int(r["channel_axis"]),
                shard_size=int(r["shard_size"]),
                ids=ids,
                labels=labels if r["labelled"] else None,
                classes=classes,
                settings=dict(r["settings"]),
            )
            run = str(r["run"])
        if (
            labels.shape != ids.shape
            or not found.n_examples
            or found.shard_size < 1
            or not 1 <= found.pixels <= math.prod(found.shape)
        ):
            raise reader.damaged("its settings are impossible")
        return found, run

    def differences(self, other: LiveContents) -> str | None:
        """In what another run differs from this one on disk, in words; None where it does not."""
        found = different_settings(self._record(), other._record())
        if self.n_examples != other.n_examples:
            found.insert(0, f"examples: {self.n_examples} then, {other.n_examples} now")
        else:
            if [str(item) for item in self.ids.tolist()] != [str(item) for item in other.ids.tolist()]:
                found.append("the ids of the examples")
            if self.labels is not None and other.labels is not None and not np.array_equal(self.labels, other.labels):
                found.append("the labels")
        if self.classes != other.classes:
            found.append(f"class names: {self.classes} then, {other.classes} now")
        return "; ".join(found) or None


@dataclass(eq=False)
class Segment:
    """Moments of one shard (n examples, P pixels) over consecutive checkpoints of the same stages (k).

    Attributes:
        first: index of the first checkpoint.
        checkpoints: the k checkpoints.
        mean: (n, P) mean of the gradient over the checkpoints.
        m2: (n, P) sum of squared deviations from it.
        magnitude: (k, n) float64, mean absolute gradient of every example.
        eps: unit in the last place of the coarsest type that gradients came in.
        logits: what the logits say, by the names of :data:`LOGITS`; without labels some are missing, and without logits
            all.
    """

    first: int
    checkpoints: list[LiveCheckpoint]
    mean: npt.NDArray
    m2: npt.NDArray
    magnitude: npt.NDArray[np.float64]
    eps: float
    logits: dict[str, npt.NDArray] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """Index behind the last checkpoint."""
        return self.first + len(self.checkpoints)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of its checkpoints, beside ``all``."""
        return self.checkpoints[0].stages

    def to_file(self) -> tuple[dict[str, Any], dict[str, npt.NDArray]]:
        """Record and datasets of a shard's file."""
        record = {"first": self.first, "checkpoints": [asdict(c) for c in self.checkpoints], "eps": self.eps}
        datasets = {
            "moments/mean": self.mean,
            "moments/m2": self.m2,
            "magnitude": self.magnitude,
        }
        return record, datasets | {LOGITS[name].path: values for name, values in self.logits.items()}

    def note_logits(self, found: Mapping[str, npt.NDArray]) -> None:
        """Add what the logits of the last checkpoint say: (n,) or (1, n) by the names of :data:`LOGITS`."""
        for name, values in found.items():
            row = values.reshape(1, -1)
            if not LOGITS[name].every_checkpoint:
                self.logits[name] = row[0]
            elif name in self.logits:
                self.logits[name] = np.concatenate([self.logits[name], row])
            else:
                self.logits[name] = row

    @classmethod
    def read(cls, reader: LiveReader, contents: LiveContents, shard: int) -> Segment:
        """From a shard's file.

        Raises:
            StoreError: it does not fit the run.
        """
        with reader.guard("its settings"):
            record = reader.record
            checkpoints = checkpoints_from(record["checkpoints"])
            first, number, eps = int(record["first"]), int(record["shard"]), float(record["eps"])
        k, n = len(checkpoints), contents.rows(shard)
        moments = np.dtype(contents.moments).str
        segment = cls(
            first,
            checkpoints,
            mean=_expect(reader, "moments/mean", moments, (n, contents.pixels)),
            m2=_expect(reader, "moments/m2", moments, (n, contents.pixels)),
            magnitude=_expect(reader, "magnitude", "<f8", (k, n)),
            eps=eps,
        )
        for name, kind in LOGITS.items():
            alone = "loss" if kind.labelled else "predictions/class"
            if alone in reader.content:
                shape = (k, n) if kind.every_checkpoint else (n,)
                segment.logits[name] = _expect(reader, kind.path, kind.dtype, shape)
        if number != shard or not k or any(c.stages != checkpoints[0].stages for c in checkpoints):
            raise reader.damaged("its settings are impossible")
        return segment


def checkpoints_from(values: Sequence[Mapping[str, Any]]) -> list[LiveCheckpoint]:
    """Checkpoints as the record of a file lists them."""
    return [LiveCheckpoint(**{**value, "stages": tuple(value["stages"])}) for value in values]


def segments(checkpoints: Sequence[LiveCheckpoint]) -> list[tuple[int, int]]:
    """Runs (first, last) of consecutive checkpoints of the same stages."""
    result: list[tuple[int, int]] = []
    for index, checkpoint in enumerate(checkpoints):
        if result and checkpoints[result[-1][0]].stages == checkpoint.stages:
            result[-1] = (result[-1][0], index + 1)
        else:
            result.append((index, index + 1))
    return result


def _expect(reader: LiveReader, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray:
    values = reader.content.get(name)
    if values is None or values.dtype != np.dtype(dtype) or values.shape != shape:
        raise reader.damaged(f"{name} is missing or not {np.dtype(dtype)} {shape}")
    return values
