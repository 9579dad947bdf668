"""``vogcore score`` stopped from outside, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

ROWS, EXAMPLES = 4, 48
SCORE = [
    "score", "--checkpoints", "ckpt-*.onnx", "--data", "train.npz", "-o", "scores.h5", "--provider", "cpu",
    "--threads", "1", "--batch-size", str(ROWS), "--memory", str(ROWS * 6 * (4 + 2 * 8)),
]  # fmt: skip

SIGNAL = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from vogcore.scoring.progress import ProgressBar
left = [{after}]
def advance(self, count):
    left[0] -= count
    if left[0] < 0:
        os.kill(os.getpid(), signal.{name})
ProgressBar.advance = advance
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


def datasets(path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


@pytest.mark.parametrize(("name", "status", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_stopped_run_says_how_to_go_on_and_does(name, status, word, run_folder, tools):
    before = tools.listing(run_folder)
    stopped = tools.process(SCORE, run_folder, before=SIGNAL.format(after=50, name=name))
    assert (stopped.returncode, stopped.stdout) == (status, "")
    assert stopped.stderr == (
        f"vogcore: {word}; no score file was written. What is finished (16 of 48 examples) is kept in "
        "scores.h5.partial; the same command goes on from there.\n"
    )
    assert tools.listing(run_folder) == sorted([*before, "scores.h5.partial"])

    other = tools.process([*SCORE, "--of", "loss"], run_folder)
    tools.refused(other, "scores.h5.partial holds an unfinished run", "(of was logit and is loss)", "--overwrite")

    done = tools.process(SCORE, run_folder, environment={"PYTHONHASHSEED": "7"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("48 examples scored over 3 checkpoints into scores.h5.\n")
    first, *progress = done.stderr.splitlines()
    assert first == "Going on: 16 of 48 examples were done."
    assert progress[-1].startswith("scoring: 144 of 144 gradients (100%)")
    assert tools.listing(run_folder) == sorted([*before, "scores.h5"])

    whole = tools.process([word if word != "scores.h5" else "whole.h5" for word in SCORE], run_folder)
    assert whole.returncode == 0
    expected = datasets(run_folder / "whole.h5")
    for key, values in datasets(run_folder / "scores.h5").items():
        np.testing.assert_array_equal(values, expected[key], err_msg=key)


def test_a_run_from_a_file_of_options_goes_on_as_json_too(run_folder, tools):
    printed = tools.process([*SCORE, "--print-config"], run_folder)
    (run_folder / "run.toml").write_text(printed.stdout)
    words = ["score", "--config", "run.toml", "--json"]
    stopped = tools.process(words, run_folder, before=SIGNAL.format(after=50, name="SIGINT"))
    assert (stopped.returncode, stopped.stdout) == (130, "")
    assert stopped.stderr.endswith("is kept in scores.h5.partial; the same command goes on from there.\n")
    looked = tools.process(["inspect", "scores.h5.partial", "--json"], run_folder)
    assert json.loads(looked.stdout)["facts"]["finished"] == 16
    done = tools.process(words, run_folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == EXAMPLES
    assert done.stderr.startswith("Going on: 16 of 48 examples were done.\n")


def test_quiet_goes_on_without_a_word(run_folder, tools):
    tools.process(SCORE, run_folder, before=SIGNAL.format(after=50, name="SIGINT"))
    done = tools.process([*SCORE, "-q"], run_folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_run_is_refused_until_the_first_was_killed(run_folder, tools):
    wait = """
import time
from vogcore.scoring.progress import Silent
def advance(self, count):
    print("advanced", flush=True)
    time.sleep(60)
Silent.advance = advance
"""
    program = f"import sys\n{wait}\nfrom vogcore.cli import main\nsys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, *SCORE, "-q"]
    with subprocess.Popen(command, cwd=run_folder, env=environment, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "advanced\n"
            who = f"process {first.pid};" if sys.platform == "linux" else ""
            tools.refused(tools.process(SCORE, run_folder), "scores.h5.partial is being written by", who)
        finally:
            first.send_signal(signal.SIGKILL)
    done = tools.process(SCORE, run_folder)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_keeps_what_is_done(run_folder, tools):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    full = tools.process([*SCORE, "-q"], run_folder, before=limit)
    tools.refused(full, "Cannot write scores.h5.partial: the file would be larger", "the same command goes on")
    done = tools.process(SCORE, run_folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Going on: ")
