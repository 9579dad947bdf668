"""The folder of a live run: moments of the gradients so far, in shards, of which no crash leaves half a checkpoint.

A shard is a run of examples. Consecutive checkpoints of the same stages are a segment, and every shard has one file for
each segment. Adding a checkpoint writes a new version of the shard's last file beside the old one. When all shards have
it, the list of checkpoints is replaced, which is the moment from which the checkpoint counts; only then do the old
versions go. So the folder holds at any time the moments of all complete checkpoints, exactly.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from vogcore._paths import check_output, reason
from vogcore.errors import OutputExistsError, StoreError
from vogcore.store import _system
from vogcore.store._live_file import LiveReader, write_live_file
from vogcore.store._lock import lock_writer
from vogcore.store.live_contents import LiveCheckpoint, LiveContents, Segment, checkpoints_from, segments

__all__ = ["LiveFolder", "shard_file"]

_SHARD = re.compile(r"shard-(\d{5,})\.(\d{5,})-(\d{5,})\.h5")
_OWN = ("lock", "run.h5", "checkpoints.h5")


def shard_file(shard: int, first: int, last: int) -> str:
    """Name of the file with the moments of a shard over the checkpoints ``first`` to ``last`` (exclusive)."""
    return f"shard-{shard:05d}.{first:05d}-{last:05d}.h5"


class _Part(NamedTuple):
    """A segment of one shard: the checkpoints ``first`` to ``last`` (exclusive)."""

    shard: int
    first: int
    last: int

    @property
    def file(self) -> str:
        return shard_file(*self)


class LiveFolder:
    """One live run on disk, locked for this process until it is closed.

    Args:
        path: the folder.
        contents: what the run is made of, to begin it or to be compared with what is there; None opens what is there.
        overwrite: begin anew where the folder holds another live run.

    Attributes:
        contents: what the run is made of.
        checkpoints: the complete ones, in the order in which they were added.
        pending: the checkpoint that some shards have and others have not, or None.

    Raises:
        OutputExistsError: another process has the folder, or it holds another run.
        StoreError: it cannot be read or written, is damaged, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str], contents: LiveContents | None, overwrite: bool = False) -> None:
        self.path = Path(path)
        if contents is None and not (self.path / "run.h5").is_file():
            raise StoreError(f"Cannot open {self.path}: there is no live run; give the folder of a LiveScorer.")
        self._create_folder()
        try:
            self._lock: int | None = _system.SYSTEM.open(self.path / "lock")
        except OSError as error:
            raise StoreError(f"Cannot write in {self.path}: {reason(error)}.") from error
        try:
            lock_writer(self._lock, self.path / "lock")
            self._open(contents, overwrite)
        except BaseException:
            self.close()
            raise

    def _create_folder(self) -> None:
        if self.path.is_dir():
            names = self._names()
            foreign = [name for name in names if not _is_own(name)]
            if foreign and "run.h5" not in names:
                raise StoreError(
                    f"{self.path} holds other files, such as {min(foreign)}; give a live run a folder of its own."
                )
            return
        check_output(self.path)
        try:
            self.path.mkdir()
        except OSError as error:
            raise StoreError(f"Cannot create {self.path}: {reason(error)}.") from error
        _system.SYSTEM.sync_folder(self.path.parent)

    def _open(self, contents: LiveContents | None, overwrite: bool) -> None:
        self.checkpoints: list[LiveCheckpoint] = []
        self.pending: LiveCheckpoint | None = None
        self._has: set[int] = set()
        if (self.path / "run.h5").exists():
            try:
                found, self._run = LiveContents.read(self._read(self.path / "run.h5", "run"))
                different = found.differences(contents) if contents is not None else None
            except StoreError:
                if not overwrite:
                    raise
                different = "it is damaged"
            if different is None:
                self.contents = found
                self._recover()
                return
            if not overwrite:
                raise OutputExistsError(
                    f"{self.path} holds a live run that cannot be gone on with: {different}; do as before, choose "
                    "another folder, or begin anew (overwrite=True)."
                )
        assert contents is not None
        self.contents = contents
        self._begin()

    def _begin(self) -> None:
        # The file of the run goes first: what is left without it is no run.
        self._remove([self.path / "run.h5"])
        _system.SYSTEM.sync_folder(self.path)
        self._remove([self.path / name for name in self._names() if _is_own(name) and name != "lock"])
        self._run = uuid.uuid4().hex
        self._write_checkpoints()
        record, datasets = self.contents.to_file()
        write_live_file(self.path / "run.h5", {"part": "run", "run": self._run, **record}, datasets)
        _system.SYSTEM.sync_folder(self.path)

    def _write_checkpoints(self) -> None:
        record = {"part": "checkpoints", "run": self._run, "checkpoints": [asdict(c) for c in self.checkpoints]}
        write_live_file(self.path / "checkpoints.h5", record, {})
        _system.SYSTEM.sync_folder(self.path)

    # What is there

    def _recover(self) -> None:
        """Find out what an earlier process has left, and clear away what it no longer needed."""
        log = self._read(self.path / "checkpoints.h5", "checkpoints")
        self._check_run(log)
        with log.guard("the list of checkpoints"):
            self.checkpoints = checkpoints_from(log.record["checkpoints"])
        matches = [match for match in map(_SHARD.fullmatch, self._names()) if match]
        there = {match.group(): _Part(*map(int, match.groups())) for match in matches}
        count = len(self.checkpoints)
        needed = self._needed()
        missing = sorted(needed - set(there))
        if missing:
            raise StoreError(
                f"{self.path} is damaged: {missing[0]} is missing, so the moments of its examples are lost; restore it "
                "from a copy, or begin anew (overwrite=True)."
            )
        newer = [part for part in there.values() if part.last > count]
        for part in newer:
            if part.last > count + 1 or part.shard >= self.contents.n_shards:
                raise StoreError(f"{self.path / part.file} does not belong to this run; move it away.")
        for part in newer:
            segment = self._read_part(part)
            if self.pending is not None and segment.checkpoints[-1] != self.pending:
                raise StoreError(f"{self.path / part.file} is of another checkpoint than the others; move it away.")
            self.pending = segment.checkpoints[-1]
            self._has.add(part.shard)
        self._clean(needed | {part.file for part in newer})
        self._commit_if_complete()

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except OSError as error:
            raise StoreError(f"Cannot read {self.path}: {reason(error)}.") from error

    def _clean(self, keep: set[str]) -> None:
        """Remove our files that are no longer needed; anything else in the folder is not ours to touch."""
        unneeded = [name for name in self._names() if _is_own(name) and name not in keep and name not in _OWN]
        self._remove([self.path / name for name in unneeded])

    def _remove(self, paths: Sequence[Path]) -> None:
        try:
            for path in paths:
                _system.SYSTEM.unlink(path)
        except OSError as error:
            raise StoreError(f"Cannot remove a file from {self.path}: {reason(error)}.") from error

    def _read(self, path: Path, part: str) -> LiveReader:
        reader = LiveReader(path)
        reader.close()
        if reader.record.get("part") != part:
            raise reader.damaged(f"it is not the part {part!r} of a live run")
        return reader

    def _check_run(self, reader: LiveReader) -> None:
        if reader.record.get("run") != self._run:
            raise StoreError(f"{reader.path} belongs to another live run than {self.path / 'run.h5'}; restore its own.")

    def _read_part(self, part: _Part) -> Segment:
        reader = self._read(self.path / part.file, "shard")
        self._check_run(reader)
        segment = Segment.read(reader, self.contents, part.shard)
        if (segment.first, segment.last) != (part.first, part.last):
            raise reader.damaged("it is not what its name says")
        return segment

    def segments(self) -> list[tuple[int, int]]:
        """The complete checkpoints as runs (first, last) of the same stages."""
        return segments(self.checkpoints)

    def parts(self, shard: int) -> list[_Part]:
        """The files of a shard that hold the complete checkpoints."""
        return [_Part(shard, first, last) for first, last in self.segments()]

    def _needed(self) -> set[str]:
        return {part.file for shard in range(self.contents.n_shards) for part in self.parts(shard)}

    def read(self, shard: int) -> Iterator[Segment]:
        """The segments of a shard, complete checkpoints only.

        Raises:
            StoreError: a file is missing or damaged.
        """
        for part in self.parts(shard):
            segment = self._read_part(part)
            if segment.checkpoints != self.checkpoints[part.first : part.last]:
                raise StoreError(f"{self.path / part.file} holds other checkpoints than the run; restore it.")
            yield segment

    # A checkpoint more

    def has(self, shard: int) -> bool:
        """Whether a shard has the pending checkpoint."""
        return shard in self._has

    def begin(self, checkpoint: LiveCheckpoint) -> None:
        """Make ``checkpoint`` the pending one, after finding out whether the disk has room for it.

        Raises:
            StoreError: another one is pending, or the disk is too small.
        """
        if self.pending is not None and self.pending != checkpoint:
            raise StoreError(
                f"Checkpoint {self.pending.name!r} has been added to {len(self._has)} of the {self.contents.n_shards} "
                f"shards of {self.path}, and with {self.pending.describe(checkpoint)}; add it again as it was, or drop "
                "it (discard())."
            )
        rows = sum(self.contents.rows(shard) for shard in range(self.contents.n_shards) if shard not in self._has)
        needed = rows * self.contents.row_bytes
        try:
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise StoreError(f"Cannot write in {self.path}: {reason(error)}.") from error
        if needed > free:
            raise StoreError(
                f"The moments of one more checkpoint need {needed / 1e9:.2f} GB in {self.path} for a while, and the "
                f"disk has {free / 1e9:.2f} GB left; free some space."
            )
        self.pending = checkpoint
        self._commit_if_complete()  # where an earlier attempt failed at the very end

    def last_segment(self, shard: int, checkpoint: LiveCheckpoint) -> Segment | None:
        """The segment of a shard that ``checkpoint`` goes on with, or None where it begins one."""
        parts = self.parts(shard)
        if not parts or self.checkpoints[-1].stages != checkpoint.stages:
            return None
        return self._read_part(parts[-1])

    def write(self, shard: int, segment: Segment) -> None:
        """Add the pending checkpoint to a shard: ``segment`` is its last one, with that checkpoint at the end.

        Raises:
            StoreError: the system refused; the shard is as it was.
        """
        assert self.pending is not None
        assert segment.checkpoints[-1] == self.pending
        record, datasets = segment.to_file()
        part = _Part(shard, segment.first, segment.last)
        write_live_file(self.path / part.file, {"part": "shard", "run": self._run, "shard": shard, **record}, datasets)
        self._has.add(shard)
        self._commit_if_complete()

    def _commit_if_complete(self) -> None:
        if self.pending is None or len(self._has) < self.contents.n_shards:
            return
        _system.SYSTEM.sync_folder(self.path)  # the shards' new names come before the list that needs them
        self.checkpoints.append(self.pending)
        try:
            self._write_checkpoints()
        except BaseException:
            self.checkpoints.pop()
            raise
        self.pending = None
        self._has.clear()
        with contextlib.suppress(StoreError):  # the checkpoint counts; the next one, or the next process, clears away
            self._clean(self._needed())

    def discard(self) -> None:
        """Drop the pending checkpoint from the shards that have it; nothing else changes."""
        if self.pending is None:
            return
        self._clean(self._needed())
        _system.SYSTEM.sync_folder(self.path)
        self.pending = None
        self._has.clear()

    def close(self) -> None:
        """Give up the lock; everything that was added is on disk already."""
        if self._lock is not None:
            _system.SYSTEM.close(self._lock)
            self._lock = None

    def __enter__(self) -> LiveFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _is_own(name: str) -> bool:
    plain = name.removesuffix(".new")
    return plain in _OWN or _SHARD.fullmatch(plain) is not None
