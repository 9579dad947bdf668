"""What a score file or a gradient archive is, how much of it is there, and whether what is there is whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import StoreError
from vogcore.store._blocks import runs
from vogcore.store._compression import register_filters
from vogcore.store._hdf5 import Reader
from vogcore.store._lock import writing_process
from vogcore.store._resume import Contents
from vogcore.store._score_file import read_scores
from vogcore.store.archive import CheckedBlocks
from vogcore.store.schema import GRADIENTS_FORMAT, SCORE_NAMES, SCORES_FORMAT
from vogcore.store.scores import CheckpointInfo

__all__ = [
    "FileReport",
    "archive_report",
    "checkpoint_facts",
    "example_ranges",
    "format_of",
    "score_report",
    "writer_note",
]

_RANGES = 5
"""Runs of examples that a sentence names before it only counts them."""


@dataclass(frozen=True)
class FileReport:
    """What :func:`vogcore.inspect_file` found.

    Attributes:
        path: the file or folder.
        kind: what it is, in words.
        format: name of the format: ``"vogcore.scores"``, ``"vogcore.gradients"``, ``"vogcore.live"``,
            ``"vogcore journal"`` or ``"onnx"``.
        format_version: its version.
        bytes: size on disk, of a folder that of all its files.
        created: UTC, ISO 8601, or "" where not known.
        vogcore_version: version that wrote it, or "" where not known.
        complete: whether everything is there.
        missing: what is not, one sentence each.
        facts: what is in it, by name, as JSON can hold it.
        settings: how it was made.
        verified: whether everything was read and, where there are digests, compared with them.
        problems: what is damaged, one sentence each.
        notes: what else a reader should know, one sentence each.
    """

    path: str
    kind: str
    format: str
    format_version: str
    bytes: int
    created: str = ""
    vogcore_version: str = ""
    complete: bool = True
    missing: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    verified: bool = False
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing that was looked at is damaged; a file need not be complete for that."""
        return not self.problems


def format_of(path: str | os.PathLike[str]) -> str:
    """Which of our formats an HDF5 file has.

    Raises:
        StoreError: none of them, or it is damaged.
    """
    reader = Reader(path, None)
    reader.close()
    return reader.kind


def score_report(path: str | os.PathLike[str]) -> FileReport:
    """A score file; reading it checks all there is to check, since it holds no digests.

    Raises:
        StoreError: it cannot be read.
    """
    scores = read_scores(path)
    names = [name for name in SCORE_NAMES if getattr(scores.stages["all"], name) is not None]
    maps = scores.maps
    facts = {
        "examples": len(scores),
        "labelled": int(np.sum(scores.labels >= 0)),
        "ids": "numbers" if scores.ids.dtype.kind in "iu" else "text",
        "classes": len(scores.classes),
        "checkpoints": checkpoint_facts(scores.checkpoints),
        "stages": {name: stage.checkpoints.tolist() for name, stage in scores.stages.items()},
        "scores": names,
        "measured_direction": scores.direction.measured,
        "companions": list(scores.companions),
        "predictions": scores.predictions_class is not None,
        "maps": None if maps is None else {"examples": len(maps), "shape": list(maps.vog.shape[1:])},
        "warnings": len(scores.warnings),
    }
    return FileReport(
        path=os.fspath(path),
        kind="score file",
        format=SCORES_FORMAT,
        format_version=_version(path, SCORES_FORMAT),
        bytes=os.path.getsize(path),
        created=scores.created,
        vogcore_version=scores.vogcore_version,
        facts=facts,
        settings=scores.settings,
        verified=True,
        notes=("A score file holds no digests; all of it was read, and every part has the right type and shape.",),
    )


def archive_report(path: str | os.PathLike[str], *, verify: bool = False) -> FileReport:
    """A gradient archive, complete or under way.

    Args:
        path: the archive, or its ``.partial`` file.
        verify: read every block that is there and compare it with its digest.

    Raises:
        StoreError: it cannot be read.
    """
    contents = Contents.read(path)
    checkpoints = Contents.checkpoints(path)
    reader = Reader(path, GRADIENTS_FORMAT)
    try:
        data = reader.dataset("gradients", ("f4", "f2", "u2"), None, partial=True)
        logits = reader.dataset("logits", ("f4",), (data.shape[0], data.shape[1], None), need=False, partial=True)
        missing: list[str] = [] if data.shape[0] else ["No checkpoint has been begun."]
        problems: list[str] = []
        done_share = {}
        for name, prefix, node in (("gradients", "", data), ("logits", "logits_", logits)):
            if node is None:
                continue
            table = (int(data.shape[0]), -(-contents.n_examples // contents.block_size))
            done = reader.read(f"{prefix}done", "b1", table)
            done_share[name] = [int(row.sum()) for row in done]
            missing += _missing(name, done, contents, checkpoints)
            if verify:
                digests = reader.read(f"{prefix}digest", "u8", table)
                problems += _verify(reader, name, node, digests, done, contents)
        created = reader.string_attribute(reader.file, "created")
        version = reader.string_attribute(reader.file, "vogcore_version")
    finally:
        reader.close()
    partial = Path(path).suffix == ".partial"
    if partial and not missing:
        missing.append("Every block is there, but the archive was not closed; go on with GradientWriter(resume=True).")
    if Path(f"{os.fspath(path)}.journal").exists():
        missing.append(
            "A change of its tables was interrupted; GradientWriter(resume=True) completes it, and until then the file "
            "may not be readable."
        )
    facts = {
        "examples": contents.n_examples,
        "labelled": int(np.sum(contents.labels >= 0)),
        "classes": len(contents.classes),
        "checkpoints": checkpoint_facts(checkpoints),
        "shape": list(contents.shape),
        "type": contents.dtype,
        "channel_axis": contents.channel_axis,
        "block_size": contents.block_size,
        "blocks": -(-contents.n_examples // contents.block_size),
        "blocks_done": done_share,
        "logits": None if logits is None else int(logits.shape[2]),
        "compression": contents.compression,
        "digest": contents.digest,
    }
    return FileReport(
        path=os.fspath(path),
        kind="gradient archive under way" if partial else "gradient archive",
        format=GRADIENTS_FORMAT,
        format_version=_version(path, GRADIENTS_FORMAT),
        bytes=os.path.getsize(path),
        created=created,
        vogcore_version=version,
        complete=not missing,
        missing=tuple(missing),
        facts=facts,
        settings=dict(contents.settings),
        verified=verify,
        problems=tuple(problems),
        notes=writer_note(path),
    )


def _version(path: str | os.PathLike[str], kind: str) -> str:
    reader = Reader(path, kind)
    try:
        return str(reader.string_attribute(reader.file, "format_version"))
    finally:
        reader.close()


def _missing(name: str, done: npt.NDArray, contents: Contents, checkpoints: Sequence[CheckpointInfo]) -> list[str]:
    found = []
    for index, row in enumerate(done):
        lost = np.flatnonzero(~row)
        if not len(lost):
            continue
        size, n = contents.block_size, contents.n_examples
        ranges = [(first * size, min(last * size, n)) for first, last in runs(lost)]
        which = checkpoints[index].name if index < len(checkpoints) else str(index)
        where = "all examples" if len(lost) == len(row) else f"examples {example_ranges(ranges)}"
        found.append(f"The {name} of checkpoint {which}, {where}, are missing.")
    return found


def _verify(
    reader: Reader, name: str, node: Any, digests: npt.NDArray, done: npt.NDArray, contents: Contents
) -> list[str]:
    if contents.compression is not None and not register_filters():
        raise StoreError(
            f"{reader.path} is compressed; to read it install hdf5plugin: pip install 'vogcore[compression]'"
        )
    blocks = CheckedBlocks(reader, name, node, digests, contents.digest, contents.block_size)
    problems = []
    for checkpoint, block in np.argwhere(done).tolist():
        start = block * contents.block_size
        try:
            blocks.read(checkpoint, start, min(start + contents.block_size, contents.n_examples))
        except StoreError as error:
            problems.append(str(error))
    return problems


def checkpoint_facts(checkpoints: Sequence[CheckpointInfo]) -> list[dict[str, Any]]:
    """Checkpoints as JSON can hold them."""
    return [{"name": c.name, "step": c.step, "epoch": c.epoch, "sha256": c.sha256} for c in checkpoints]


def example_ranges(ranges: Sequence[tuple[int, int]]) -> str:
    """Runs (start, stop) of examples in words."""
    shown = [str(start) if stop - start == 1 else f"{start:,} to {stop - 1:,}" for start, stop in ranges[:_RANGES]]
    more = f" and {len(ranges) - _RANGES:,} more ranges" if len(ranges) > _RANGES else ""
    return ", ".join(shown) + more


def writer_note(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """A sentence where a process is writing the file just now."""
    process = writing_process(path)
    return () if process is None else (f"Process {process} is writing it just now.",)
