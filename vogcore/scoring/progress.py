"""Progress of a run, counted in examples x checkpoints."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import IO, Any, Protocol

__all__ = ["Progress", "ProgressBar", "Silent"]

_COLUMNS = 80
"""Width of a terminal that does not tell its own."""


class Progress(Protocol):
    """What a run reports to; pass one as ``progress`` to see it in a program of your own."""

    def start(self, total: int, text: str) -> None:
        """A run of ``total`` examples x checkpoints begins."""

    def advance(self, count: int) -> None:
        """``count`` more are done."""

    def close(self) -> None:
        """The run ended, completely or not."""

    # Optional: go_on(count, text), called instead of advance(count) for what an earlier run had done.


class Silent:
    """No progress."""

    def start(self, total: int, text: str) -> None:
        """See :class:`Progress`."""

    def advance(self, count: int) -> None:
        """See :class:`Progress`."""

    def close(self) -> None:
        """See :class:`Progress`."""


class ProgressBar:
    """A bar on a terminal; on anything else (a log file, CI, TERM=dumb) one plain line every ``interval`` seconds.

    Args:
        stream: where to write, standard error by default, so that output can be piped.
        interval: seconds between lines where the stream is not a terminal.
    """

    def __init__(self, stream: IO[str] | None = None, interval: float = 15.0) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._interval = interval
        self._bar: Any = None
        self._total = self._done = self._before = 0
        self._started = self._printed = 0.0
        self._text = ""

    def start(self, total: int, text: str) -> None:
        """See :class:`Progress`."""
        self._total, self._done, self._before, self._text = total, 0, 0, text
        self._started = self._printed = time.monotonic()
        # A dumb terminal (an editor's, a log) may show every state of the bar on a line of its own.
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            from tqdm import tqdm  # a dependency for terminals only: do not load it for a log file

            # A pseudo-terminal may say that it has no columns, and tqdm would believe it and show nothing.
            width: dict[str, Any] = {"dynamic_ncols": True} if self._columns() else {"ncols": _COLUMNS}
            self._bar = tqdm(total=total, desc=text, unit="ex", unit_scale=True, file=self._stream, leave=True, **width)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            return 0

    def go_on(self, count: int, text: str) -> None:
        """``count`` were done by an earlier run, which does not count for the rate; says ``text``."""
        self._done = self._before = count
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)
            self._bar.initial = self._bar.n = count
            self._bar.refresh()

    def advance(self, count: int) -> None:
        """See :class:`Progress`."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._printed >= self._interval:
            self._line()

    def close(self) -> None:
        """See :class:`Progress`."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._done and self._done >= self._total:  # a run that failed ends with its error, not with a line of ours
            self._line()

    def _line(self) -> None:
        self._printed = time.monotonic()
        seconds = max(self._printed - self._started, 1e-9)
        rate = (self._done - self._before) / seconds
        rest = "" if self._done >= self._total else f", {_clock((self._total - self._done) / max(rate, 1e-9))} left"
        share = 100 * self._done / max(self._total, 1)
        print(
            f"{self._text}: {self._done:,} of {self._total:,} gradients ({share:.0f}%), {rate:,.0f}/s, "
            f"{_clock(seconds)} so far{rest}",
            file=self._stream,
            flush=True,
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
