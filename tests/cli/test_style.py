"""Colour where it is wanted: on terminals, and never in a pipe, a dumb terminal or with NO_COLOR."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vogcore.cli._style import coloured, highlight, paint

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("variables", "terminal", "pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
    ids=str,
)
@pytest.mark.skipif(sys.platform == "win32", reason="the console of Windows is asked for more")
def test_who_gets_colour(variables, terminal, pipe, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (coloured(Terminal()), coloured(io.StringIO())) == (terminal, pipe)


def test_only_what_matters_is_coloured():
    text = "scores.h5\nOn this run higher VoG is harder, weakly so\nWARNING: this\nno WARNING here\n  broken  x"
    shown = highlight(text, Terminal())
    assert "On this run \x1b[1mhigher VoG is harder\x1b[0m, weakly" in shown
    assert "\x1b[33mWARNING\x1b[0m: this\nno WARNING here" in shown
    assert "\x1b[1;31m  broken\x1b[0m  x" in shown
    assert highlight(text, io.StringIO()) == text
    assert paint("", "red", Terminal()) == ""


def on_a_terminal(words: list[str], folder: Path, **environment: str) -> tuple[str, int]:
    """Everything that a command writes to a terminal, and its exit status."""
    terminal, end = pty.openpty()
    variables = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    variables |= {"TERM": "xterm", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "vogcore", *words]
    with subprocess.Popen(command, cwd=folder, stdout=end, stderr=end, env=variables) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                part = os.read(terminal, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
        status = process.wait(timeout=60)
    os.close(terminal)
    return shown.decode(), status


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tools):
    folder = tmp_path_factory.mktemp("run")
    tools.write_run(folder)
    x, y = tools.examples()
    np.savez(folder / "train.npz", x=x, y=y)
    words = ["score", "--checkpoints", "ckpt-*.onnx", "--data", "train.npz", "-o", "scores.h5", "--provider", "cpu"]
    done = tools.process(words, folder, environment={"FORCE_COLOR": ""})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    return folder, words


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_gets_colour_unless_it_is_asked_not_to(scored):
    folder, _ = scored
    shown, status = on_a_terminal(["show", "nope.h5"], folder)
    assert status == 2
    assert shown == "vogcore: \x1b[1;31merror:\x1b[0m Cannot open nope.h5: there is no such file.\r\n"
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        shown, _ = on_a_terminal(["show", "nope.h5"], folder, **environment)
        assert shown == "vogcore: error: Cannot open nope.h5: there is no such file.\r\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_dumb_terminal_gets_lines_instead_of_a_bar(scored):
    folder, words = scored
    shown, status = on_a_terminal([*words, "--overwrite"], folder, TERM="dumb")
    assert status == 0
    assert shown.replace("\r\n", "").isprintable()
    assert "scoring: 144 of 144 gradients (100%)" in shown


def test_colour_can_be_forced_into_a_pipe(scored, tools):
    folder, _ = scored
    done = tools.process(["show", "nope.h5"], folder, environment={"FORCE_COLOR": "1"})
    assert "\x1b[1;31merror:\x1b[0m" in done.stderr
