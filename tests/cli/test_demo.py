"""``vogcore demo`` on a machine without frameworks: what it writes and says."""

from __future__ import annotations

import re
import shlex
import time

import numpy as np
import pytest

import vogcore

WITHOUT_FRAMEWORKS = "for name in ('torch', 'sklearn', 'pandas', 'jax', 'tensorflow'): sys.modules[name] = None"


@pytest.fixture(scope="module")
def demo(tmp_path_factory, tools):
    """The demo in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    begun = time.monotonic()
    done = tools.process(["demo"], folder, before=WITHOUT_FRAMEWORKS)
    return folder, done, time.monotonic() - begun


def test_it_runs_in_an_empty_folder_without_any_framework(demo, tools):
    folder, done, seconds = demo
    assert done.returncode == 0, done.stderr
    assert seconds < 60
    files = [*(f"ckpt-{i}.onnx" for i in range(1, 13)), "scores.h5", "test.npz", "train.npz"]
    assert tools.listing(folder) == sorted(["vogcore-demo", *(f"vogcore-demo/{name}" for name in files)])
    assert re.fullmatch(r"scoring: 16,164 of 16,164 gradients .*\n", done.stderr)


def test_its_scores_are_a_score_file_like_any_other(demo):
    folder, *_ = demo
    scores = vogcore.open_scores(folder / "vogcore-demo/scores.h5")
    assert len(scores) == 1347
    assert np.isfinite(scores.vog).all()
    assert list(scores.stages) == ["all", "early", "middle", "late"]
    assert scores.direction.measured != "not measured"
    with np.load(folder / "vogcore-demo/train.npz") as data:
        np.testing.assert_array_equal(scores.labels, data["y"])
        np.testing.assert_array_equal(scores.ids, data["ids"])


def test_it_prints_the_measured_direction_and_what_came_of_the_wrong_labels(demo):
    folder, done, _ = demo
    measured = vogcore.open_scores(folder / "vogcore-demo/scores.h5").direction.measured
    words = {"higher is harder": "On this run higher VoG is harder", "lower is harder": "On this run lower VoG is"}
    assert words.get(measured, "is undecided on this run") in " ".join(done.stdout.split())
    assert ("WARNING: this contradicts the paper" in done.stdout) == (measured == "lower is harder")
    assert "Does the score find the 67 wrong labels?" in done.stdout
    assert not re.search(r"\bnan\b", done.stdout)


def test_the_command_that_it_prints_gives_the_same_scores(demo, cli, monkeypatch):
    folder, done, _ = demo
    monkeypatch.chdir(folder)
    line = next(line for line in done.stdout.splitlines() if line.startswith("  vogcore score "))
    words = shlex.split(line)[1:]
    assert words[-2:] == ["-o", "vogcore-demo/scores.h5"]
    assert cli(*words[:-1], folder / "again.h5").status == 0
    again, first = vogcore.open_scores(folder / "again.h5"), vogcore.open_scores("vogcore-demo/scores.h5")
    np.testing.assert_array_equal(again.vog, first.vog)
    (folder / "again.h5").unlink()


def test_a_second_run_is_refused_unless_it_may_overwrite(demo, cli, tools, monkeypatch):
    folder, *_ = demo
    monkeypatch.chdir(folder)
    before = (folder / "vogcore-demo/scores.h5").read_bytes()
    tools.refused(cli("demo"), "vogcore-demo", "--overwrite")
    (folder / "vogcore-demo/scores.h5").unlink()
    tools.refused(cli("demo"), "vogcore-demo", "--overwrite")
    (folder / "vogcore-demo/scores.h5").write_bytes(before)
    result = cli("demo", "--overwrite", "--epochs", "2", "--seed", "3")
    assert result.status == 0
    scores = vogcore.open_scores("vogcore-demo/scores.h5")
    assert [c.epoch for c in scores.checkpoints] == [1, 2]  # none is left over from the longer run


def test_a_folder_with_an_awkward_name(tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = cli("demo", "--output", "my [demo]", "--epochs", "2")
    assert result.status == 0, result.err
    line = next(line for line in result.out.splitlines() if line.startswith("  vogcore score "))
    assert cli(*shlex.split(line)[1:-1], "again.h5").status == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--epochs", "1"], ["--epochs", "2 or more"]),
        (["--epochs", "few"], ["--epochs", "few"]),
        (["--seed", "-1"], ["--seed", "0 or more"]),
        (["--output", "a file"], ["a file"]),
        (["--output", "a file/below"], ["a file/below"]),
    ],
)
def test_bad_input(words, named, tmp_path, cli, tools, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("in the way")
    before = tools.listing(tmp_path)
    tools.refused(cli("demo", *words), *named)
    assert tools.listing(tmp_path) == before
