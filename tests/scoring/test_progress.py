"""Progress for people who watch, and for log files."""

from __future__ import annotations

import io

import numpy as np

import vogcore
from vogcore.scoring import progress
from vogcore.scoring.progress import ProgressBar

from .models import examples, mlps


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_file_gets_plain_lines_at_intervals(monkeypatch):
    now = iter([0.0, *np.arange(10.0, 1000.0, 10)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    stream = io.StringIO()
    with ProgressBar(stream, interval=15) as bar:
        bar.start(4000, "scoring")
        for _ in range(4):
            bar.advance(1000)
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 4
    assert "\r" not in stream.getvalue()
    assert lines[0].startswith("scoring: 2,000 of 4,000 gradients (50%)")
    assert lines[0].endswith("left")
    assert lines[-1].startswith("scoring: 4,000 of 4,000 gradients (100%)")
    assert not lines[-1].endswith("left")


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    x, y = examples(20)
    vogcore.score(mlps(3), x, y, progress=ProgressBar(stream))
    assert "scoring: 100%" in stream.getvalue()


def test_a_run_reports_every_example_at_every_checkpoint():
    stream = io.StringIO()
    x, y = examples(20)
    vogcore.score(mlps(3), x, y, progress=ProgressBar(stream))
    assert stream.getvalue().startswith("scoring: 60 of 60 gradients (100%)")
    assert len(stream.getvalue().splitlines()) == 1


def test_what_an_earlier_run_did_does_not_count_for_the_rate(monkeypatch):
    now = iter([0.0, *np.arange(10.0, 1000.0, 10)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    stream = io.StringIO()
    with ProgressBar(stream, interval=5) as bar:
        bar.start(4000, "scoring")
        bar.go_on(3000, "Going on.")
        bar.advance(500)
        bar.advance(500)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Going on."
    assert lines[1] == "scoring: 3,500 of 4,000 gradients (88%), 25/s, 0:20 so far, 0:20 left"
    assert lines[-1].startswith("scoring: 4,000 of 4,000 gradients (100%)")


def test_a_bar_begins_where_the_earlier_run_ended():
    stream = Terminal()
    with ProgressBar(stream) as bar:
        bar.start(4000, "scoring")
        bar.go_on(3000, "Going on.")
        assert (bar._bar.n, bar._bar.initial) == (3000, 3000)
        bar.advance(1000)
    text = stream.getvalue()
    assert "Going on.\n" in text
    assert "75%" in text
    assert "scoring: 100%" in text


def test_a_bar_that_never_began_says_nothing():
    stream = io.StringIO()
    ProgressBar(stream).close()
    assert stream.getvalue() == ""
    assert progress._clock(59.6) == "1:00"
    assert progress._clock(3661) == "1:01:01"
