"""A run that goes on where an earlier one was killed."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy.typing as npt

from vogcore._paths import finish_publishing
from vogcore.errors import OutputExistsError, VogcoreWarning
from vogcore.scoring.identity import as_stored, differences
from vogcore.scoring.inputs import check_outputs
from vogcore.scoring.progress import Progress
from vogcore.store import GradientWriter
from vogcore.store.journal import Journal, complement, journal_path

__all__ = ["Unfinished", "tell", "whole_runs"]

_NAMED = 5
"""How many differences a message names before it only counts them."""


class Unfinished:
    """The journal of one run, beside the score file that it will write; without such a file it does nothing.

    The output is claimed at once and until the run ends, however it ends. Leaving without an error means that the
    score file is in its place and removes the journal. After an error it stays, if there is anything in it, and the
    error gets a note that says so.

    Args:
        out: score file to write, or None.
        keep: gradient archive to write, or None.
        overwrite: replace what is there.

    Raises:
        OutputExistsError: a file exists, or another run writes it.
        StoreError: an output cannot be written, or the journal not be read.
    """

    def __init__(
        self, out: str | os.PathLike[str] | None, keep: str | os.PathLike[str] | None, overwrite: bool
    ) -> None:
        self._overwrite, self._keep = overwrite, keep
        self._journal: Journal | None = None
        self._is_new = False
        self._count = 0
        self._writer: GradientWriter | None = None
        check_outputs(out, None, overwrite)
        if out is None:
            check_outputs(None, keep, overwrite)
            return
        self._journal = Journal(journal_path(out))
        try:
            if keep is not None and self.has_archive:
                finish_publishing(f"{os.fspath(keep)}.partial", keep)
            # Once more, now that nobody else can finish it meanwhile. A run that was killed after it had published its
            # archive finds that, and it is its own.
            check_outputs(out, None if self.has_archive else keep, overwrite)
        except BaseException:
            self._let_go()
            raise

    @property
    def has_archive(self) -> bool:
        """Whether the archive was completed by the run that goes on here."""
        closed = self._journal is not None and self._journal.closed
        return closed and self._keep is not None and os.path.exists(self._keep)

    @property
    def _began_archive(self) -> bool:
        """Whether the run of the journal keeps its gradients: its archive is taken up again with the journal alone."""
        run = self._journal.run if self._journal is not None else None
        return run is not None and run.get("settings", {}).get("keep_gradients") is not None

    def begin(self, identity: Mapping[str, Any], arrays: Mapping[str, npt.NDArray]) -> bool:
        """Go on with an earlier run of this identity; where it is another one, start anew or refuse.

        Args:
            identity: see :func:`vogcore.scoring.identity.identity`.
            arrays: results of all examples by name, the last axis over the examples; finished ones are filled in.

        Returns:
            Whether an earlier run goes on.

        Raises:
            OutputExistsError: the journal is that of another run; the message names what differs.
            StoreError: the journal cannot be read or written.
        """
        count = next(iter(arrays.values())).shape[-1]
        journal = self._journal
        if journal is None:
            self._count = count
            return False
        if journal.is_worthless and not self._began_archive:
            goes_on = journal.run == as_stored(identity)
        else:
            problem = journal.problem
            if problem is None and journal.run is not None:
                problem = _in_words(differences(journal.run, as_stored(identity)))
            if problem and not self._overwrite:
                raise OutputExistsError(
                    f"{journal.path} holds an unfinished run that this command cannot go on with ({problem}); restore "
                    "that, move the file away, or start anew (overwrite=True, on the command line --overwrite)."
                )
            goes_on = not problem
        self._count = count
        if not goes_on:
            self._is_new = True
            journal.begin(identity, arrays)
            return False
        if journal.damaged:
            warnings.warn(
                f"{journal.path} is damaged; examples {_ranges(journal.damaged)} are computed again.",
                VogcoreWarning,
                stacklevel=3,
            )
        journal.resume(arrays)
        return True

    def missing(self, writer: GradientWriter | None, checkpoints: int, step: int) -> list[tuple[int, int]]:
        """What has to be computed.

        Args:
            writer: writer of the archive, or None.
            checkpoints: how many there are.
            step: examples in one run of a model.

        Returns:
            Runs (start, stop) of examples, cut where runs of a model begin.
        """
        self._writer = writer
        if self._journal is None or not self._journal.finished:
            return [(0, self._count)]
        missing = complement(self._journal.finished, self._count)
        if writer is not None:
            for checkpoint in range(checkpoints):
                missing += writer.missing(checkpoint)
        return whole_runs(missing, self._count, step)

    def finished(self, start: int, stop: int) -> None:
        """A block of examples is scored. Its gradients are on disk before the journal says so."""
        if self._journal is None:
            return
        if self._writer is not None:
            self._writer.sync()
        self._journal.append(start, stop)

    def end(self) -> None:
        """Everything is scored, and the archive is about to get its name."""
        if self._journal is not None and not self._journal.closed:
            self._journal.end()

    def saved(self) -> None:
        """The score file is in its place; whatever fails now, there is nothing to go on with."""
        if self._journal is not None:
            self._journal.remove()
            self._journal = None

    def _let_go(self) -> None:
        assert self._journal is not None
        # An archive that was begun is lost without its journal.
        archive = self._began_archive and (self._writer is not None or not self._is_new)
        if self._journal.is_worthless and not archive:
            self._journal.remove()
        else:
            self._journal.close()

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._journal is None:
            return
        if error is None:
            self.saved()
            return
        done = sum(stop - start for start, stop in self._journal.finished)
        # Where the run never started, what the journal holds is another's.
        if done and self._count:
            error.add_note(
                f"What is finished ({done:,} of {self._count:,} examples) is kept in {self._journal.path}; the same "
                "command goes on from there."
            )
        with contextlib.suppress(OSError):
            self._let_go()


def tell(progress: Progress, missing: Sequence[tuple[int, int]], count: int, checkpoints: int) -> None:
    """Begin the progress of a run of which some examples are done."""
    done = count - sum(stop - start for start, stop in missing)
    progress.start(count * checkpoints, "scoring")
    if not done:
        return
    go_on = getattr(progress, "go_on", None)
    if go_on is None:
        progress.advance(done * checkpoints)
    else:
        go_on(done * checkpoints, f"Going on: {done:,} of {count:,} examples were done.")


def whole_runs(missing: Sequence[tuple[int, int]], count: int, step: int) -> list[tuple[int, int]]:
    """Ranges rounded out to multiples of ``step``, sorted and merged.

    A gradient's last bits can depend on the examples beside it in a run of the model, so those must be the same.
    """
    rounded = [(start - start % step, min(stop + -stop % step, count)) for start, stop in missing]
    return complement(complement(rounded, count), count)


def _ranges(ranges: Sequence[tuple[int, int]]) -> str:
    return _in_words([str(start) if stop - start == 1 else f"{start} to {stop - 1}" for start, stop in ranges])


def _in_words(items: Sequence[str]) -> str:
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more
