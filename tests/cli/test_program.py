"""The program as a shell sees it: help, exit status, signals, pipes, terminals, full disks."""

from __future__ import annotations

import argparse
import fcntl
import importlib
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import tomllib
from pathlib import Path

import numpy as np
import pytest

import vogcore
from vogcore.cli import _COMMANDS, main
from vogcore.cli._parser import Parser

SCORE = ["score", "--checkpoints", "ckpt-*.onnx", "--data", "train.npz", "-o", "scores.h5", "--provider", "cpu"]
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tools):
    """A folder with a run that was scored."""
    folder = tmp_path_factory.mktemp("run")
    tools.write_run(folder)
    x, y = tools.examples()
    np.savez(folder / "train.npz", x=x, y=y)
    done = tools.process(SCORE, folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def subparsers() -> dict[str, argparse.ArgumentParser]:
    commands = Parser(prog="vogcore").add_subparsers()
    for name in _COMMANDS:
        importlib.import_module(f"vogcore.cli.{name}").add_parser(commands)
    return dict(commands.choices)


@pytest.mark.parametrize("command", [name.replace("_", "-") for name in _COMMANDS])
def test_help_explains_every_option(command, cli):
    result = cli(command, "--help")
    assert (result.status, result.err) == (0, "")
    assert f"examples:\n  {'eval' if command == 'completion' else 'vogcore'} " in result.out
    assert "\nexit status:\n  0   " in result.out
    assert "%%" not in result.out
    for action in subparsers()[command]._actions:
        assert action.help, action.dest
        for option in action.option_strings or [action.metavar]:
            assert option in result.out


def test_help_lists_every_command(cli):
    result = cli("--help")
    assert result.status == 0
    for command in subparsers():
        assert f"    {command}" in result.out


def test_choices_in_the_help_are_those_that_are_taken(cli):
    text = " ".join(cli("score", "--help").out.split()).replace("log- probability", "log-probability")
    for action in subparsers()["score"]._actions:
        for choice in action.choices or []:
            assert re.search(rf"\b{choice}\b", text)


def test_no_command_prints_the_usage(cli):
    result = cli()
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("usage: vogcore ")


def test_an_unknown_command(cli, tools):
    tools.refused(cli("scroe"), "scroe", "gradient-model")


def test_the_version(cli):
    assert cli("--version").out == f"vogcore {vogcore.__version__}\n"
    assert tomllib.loads(PROJECT.read_text())["project"]["version"] == vogcore.__version__


def test_the_console_script_is_the_same_program(scored, tools):
    assert tomllib.loads(PROJECT.read_text())["project"]["scripts"]["vogcore"] == "vogcore.cli:main"
    script = shutil.which("vogcore", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("vogcore is not installed beside this interpreter")
    folder, _ = scored
    environment = {**os.environ, "PYTHONPATH": str(PROJECT.parent)}  # another checkout may be installed
    for words in (["show", "scores.h5"], ["show", "nope.h5"], ["--version"], []):
        one = subprocess.run(
            [script, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        other = tools.process(words, folder)
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)


def test_a_pipe_gets_plain_lines(scored):
    _, done = scored
    assert done.stderr.count("\n") == 1
    assert all(c.isprintable() for c in (done.stdout + done.stderr).replace("\n", ""))


def test_results_and_progress_keep_their_order_in_one_log(scored, tools):
    folder, _ = scored
    with (folder / "log").open("w") as log:
        tools.process([*SCORE, "--overwrite"], folder, capture_output=False, stdout=log, stderr=subprocess.STDOUT)
    lines = (folder / "log").read_text().splitlines()
    assert lines[0].startswith("scoring: ")
    assert lines[1].startswith("48 examples scored")


@pytest.mark.parametrize("columns", [0, 100])
def test_a_terminal_gets_a_bar_with_rate_and_time_left(columns, scored):
    folder, _ = scored
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    words = [sys.executable, "-m", "vogcore", *SCORE, "--overwrite", "--memory", "1kB"]
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(PROJECT.parent)}
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=end, env=environment) as process:
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
        output = process.stdout.read().decode()
        assert process.wait(timeout=60) == 0
    os.close(terminal)
    text = shown.decode()
    assert "\r" in text
    assert re.search(r"scoring: +100%\|[^|]*\| 144/144 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+[kM]?ex/s\]", text)
    assert output.startswith("48 examples scored")


def test_a_reader_that_leaves_early_is_no_error(scored, tools):
    folder, _ = scored
    for words in (["show", "scores.h5"], ["show", "scores.h5", "-n", "100"], [*SCORE, "-q", "--overwrite"]):
        read, write = os.pipe()
        os.close(read)
        done = tools.process(words, folder, capture_output=False, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert done.stderr == ""
        assert done.returncode == 141


def test_a_terminal_that_lacks_a_character_is_no_error(scored, tools):
    folder, _ = scored
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    tools.refused(tools.process(["show", "猫.h5"], folder, environment=environment), "\\u732b.h5")


INTERRUPT = """
import os, signal
from vogcore.scoring.progress import ProgressBar
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored
ProgressBar.advance = lambda self, count: os.kill(os.getpid(), signal.SIGINT)
"""


def test_an_interrupt_ends_with_one_line_and_leaves_nothing(scored, tools):
    folder, _ = scored
    words = [word if word != "scores.h5" else "interrupted.h5" for word in SCORE]
    before = tools.listing(folder)
    done = tools.process(words, folder, before=INTERRUPT)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "vogcore: interrupted; no score file was written.\n"
    assert tools.listing(folder) == before


def test_an_interrupt_keeps_the_gradients_that_were_asked_for(scored, tools):
    folder, _ = scored
    words = [word if word != "scores.h5" else "interrupted.h5" for word in SCORE]
    done = tools.process([*words, "--keep-gradients", "kept.h5"], folder, before=INTERRUPT)
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1
    assert "kept.h5.partial" in done.stderr
    assert not (folder / "kept.h5").exists()
    (folder / "kept.h5.partial").unlink()


def test_an_interrupt_of_another_command(capsys, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(vogcore, "open_scores", interrupted)
    assert main(["show", "scores.h5"]) == 130
    assert capsys.readouterr().err == "vogcore: interrupted.\n"


def test_too_little_memory_is_said_in_one_sentence(run_folder, score, tools, monkeypatch):
    def too_much(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(vogcore, "score", too_much)
    tools.refused(score(), "--batch-size", "--memory")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("keep", [False, True], ids=["scores", "gradients"])
def test_a_full_disk_leaves_no_score_file(keep, run_folder, tools):
    before = tools.listing(run_folder)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    words = [*SCORE, "-q", *(["--keep-gradients", "kept.h5"] if keep else [])]
    done = tools.process(words, run_folder, before=limit)
    tools.refused(done, "kept.h5" if keep else "scores.h5", "file size limit")
    assert tools.listing(run_folder) == before


def test_errors_have_no_traceback_in_a_process_of_their_own(run_folder, tools):
    (run_folder / "ckpt-1.onnx").write_bytes(b"")
    before = tools.listing(run_folder)
    done = tools.process(SCORE, run_folder)
    tools.refused(done, "ckpt-1.onnx")
    assert "Traceback" not in done.stderr
    assert tools.listing(run_folder) == before
