"""What is there of a run under way: the journal of a score run, the folder of a live run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vogcore._paths import reason
from vogcore.errors import StoreError
from vogcore.store._live_file import LiveReader
from vogcore.store.journal import Journal, complement
from vogcore.store.live import shard_file
from vogcore.store.live_contents import LiveCheckpoint, LiveContents, Segment, checkpoints_from, segments
from vogcore.store.overview import FileReport, checkpoint_facts, example_ranges, writer_note
from vogcore.store.schema import LIVE_FORMAT

__all__ = ["JOURNAL_FORMAT", "journal_report", "live_file_report", "live_report"]

JOURNAL_FORMAT = "vogcore journal"
_SHARD = re.compile(r"shard-(\d{5,})\.(\d{5,})-(\d{5,})\.h5")


def journal_report(path: str | os.PathLike[str]) -> FileReport:
    """The journal of a score run. A block counts with its digest only, so reading it verifies it.

    Raises:
        StoreError: it is no journal, is of a later version, or cannot be read.
    """
    with Journal(path, read_only=True) as journal:
        run = journal.run or {}
        done = sum(stop - start for start, stop in journal.finished)
        left = complement(journal.finished, journal.count)
        damaged, problem, closed, count = journal.damaged, journal.problem, journal.closed, journal.count
    missing = []
    if not run:
        missing.append("The run has not been begun.")
    elif left:
        missing.append(f"Examples {example_ranges(left)} are not scored yet; the same command goes on from there.")
    elif not closed:
        missing.append("Every example is scored, but the score file is not written yet.")
    problems = [f"It cannot be gone on with: {problem}."] if problem else []
    if damaged:
        problems.append(f"The records of examples {example_ranges(damaged)} are damaged; they will be computed again.")
    try:
        facts: dict[str, Any] = {
            "examples": count,
            "finished": done,
            "classes": len(run.get("classes", [])),
            "checkpoints": [{"name": str(name), "sha256": str(sha256)} for name, sha256 in run.get("checkpoints", [])],
            "stages": {str(name): list(window) for name, window in run.get("stages", {}).items()},
        }
        settings, versions = dict(run.get("settings", {})), dict(run.get("versions", {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: its description of the run makes no sense; move or delete it.") from error
    return FileReport(
        path=os.fspath(path),
        kind="journal of a score run under way",
        format=JOURNAL_FORMAT,
        format_version="1",
        bytes=os.path.getsize(path),
        vogcore_version=str(versions.get("vogcore", "")),
        complete=closed and not left,
        missing=tuple(missing),
        facts=facts,
        settings=settings,
        verified=True,
        problems=tuple(problems),
        notes=writer_note(path),
    )


def live_report(path: str | os.PathLike[str], *, verify: bool = False) -> FileReport:
    """The folder of a live run, looked at without claiming or changing it.

    Args:
        path: the folder.
        verify: read every shard and compare it with its digest.

    Raises:
        StoreError: it is not the folder of a live run, or the file of the run is damaged.
    """
    folder = Path(path)
    if not (folder / "run.h5").is_file():
        raise StoreError(f"{folder} is a folder, but not that of a live run; give one of vogcore's files.")
    head = _read(folder / "run.h5")
    contents, run = LiveContents.read(head)
    log = _read(folder / "checkpoints.h5")
    with log.guard("the list of checkpoints"):
        checkpoints = checkpoints_from(log.record["checkpoints"])
    try:
        names = sorted(os.listdir(folder))
        size = sum((folder / name).stat().st_size for name in names)
    except OSError as error:
        raise StoreError(f"Cannot read {folder}: {reason(error)}.") from error
    needed = [(shard, first, last) for shard in range(contents.n_shards) for first, last in segments(checkpoints)]
    problems = [f"The shard {file} is missing." for part in needed if (file := shard_file(*part)) not in names]
    if str(log.record.get("run")) != run:
        problems.append("checkpoints.h5 belongs to another live run than run.h5.")
    newer = [m for m in map(_SHARD.fullmatch, names) if m and int(m[3]) == len(checkpoints) + 1]
    missing = [] if checkpoints else ["No checkpoint is complete."]
    if newer:
        missing.append(
            f"Checkpoint {len(checkpoints)} has been added to {len(newer)} of {contents.n_shards} shards; add it "
            "again, and it goes on from there."
        )
    if verify:
        for part in needed:
            if shard_file(*part) in names:
                problems += _verify(folder / shard_file(*part), part, contents, run, checkpoints)
    facts = {
        "examples": contents.n_examples,
        "labelled": contents.labels is not None,
        "classes": len(contents.classes),
        "checkpoints": [
            {**fact, "stages": list(c.stages)}
            for fact, c in zip(checkpoint_facts([c.info for c in checkpoints]), checkpoints, strict=True)
        ],
        "shape": list(contents.shape),
        "pixels": contents.pixels,
        "moments": contents.moments,
        "channels": contents.channels,
        "channel_axis": contents.channel_axis,
        "shards": contents.n_shards,
        "shard_size": contents.shard_size,
    }
    return FileReport(
        path=os.fspath(path),
        kind="live run",
        format=LIVE_FORMAT,
        format_version=str(head.format_version),
        bytes=size,
        created=head.created,
        vogcore_version=head.vogcore_version,
        complete=not missing and not problems,
        missing=tuple(missing),
        facts=facts,
        settings=dict(contents.settings),
        verified=verify,
        problems=tuple(problems),
        notes=writer_note(folder / "lock"),
    )


def live_file_report(path: str | os.PathLike[str]) -> FileReport:
    """One file of a live run; reading it compares it with its digest.

    Raises:
        StoreError: it is damaged.
    """
    reader = _read(Path(path))
    part = reader.record.get("part")
    shapes = {
        name: f"{values.dtype.name} ({', '.join(map(str, values.shape))})" for name, values in reader.content.items()
    }
    facts = {"part": part, "datasets": shapes}
    return FileReport(
        path=os.fspath(path),
        kind="file of a live run",
        format=LIVE_FORMAT,
        format_version=reader.format_version,
        bytes=os.path.getsize(path),
        created=reader.created,
        vogcore_version=reader.vogcore_version,
        facts=facts,
        settings=reader.record,
        verified=True,
        notes=("The run is the whole folder; inspect that to see which checkpoints are complete.",),
    )


def _read(path: Path) -> LiveReader:
    reader = LiveReader(path)
    reader.close()
    return reader


def _verify(
    path: Path, part: tuple[int, int, int], contents: LiveContents, run: str, checkpoints: Sequence[LiveCheckpoint]
) -> list[str]:
    shard, first, last = part
    try:
        reader = _read(path)
        segment = Segment.read(reader, contents, shard)
    except StoreError as error:
        return [str(error)]
    if reader.record.get("run") != run or segment.checkpoints != list(checkpoints[first:last]):
        return [f"{path} does not belong to this run."]
    return []
