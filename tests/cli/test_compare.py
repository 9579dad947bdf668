"""``vogcore compare``: what is said of two score files."""

from __future__ import annotations

import numpy as np
import pytest

from vogcore.store import CheckpointInfo, Direction, Scores, StageScores


def save(path, vog, *, measured="higher is harder", ids=None, checkpoint="c0", **settings):
    vog = np.asarray(vog, float)
    stage = StageScores(
        "all", np.arange(2), np.abs(vog), vog, None, None, np.zeros(1), np.ones(1), "class",
        {"vog": Direction(measured=measured)},
    )  # fmt: skip
    n = len(vog)
    Scores(
        stages={"all": stage}, labels=np.zeros(n, np.int64), ids=np.arange(n) if ids is None else np.asarray(ids),
        classes=["k"], class_count=np.array([n]), settings={"of": "logit", **settings},
        checkpoints=[CheckpointInfo(checkpoint, sha256=checkpoint), CheckpointInfo("c1", sha256="c1")],
    ).save(path)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("a.h5", np.arange(40.0))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_same_file_twice(cli):
    result = cli("compare", "a.h5", "a.h5")
    text = flat(result.out)
    assert (result.status, result.err) == (0, "")
    assert "40 examples are in both" in text
    assert "all vog higher is harder higher is harder 40 +1.000 [+1.000, +1.000]" in text
    assert "all vog 4 4 (100%) 0.4 (10%) 1.00 0.05" in text
    assert "The measured directions agree; for 1 of 2 scores they are not decided in both." in text
    assert "Settings: the same in both." in text
    assert "Checkpoints: the same in both." in text
    assert "WARNING" not in text


def test_what_differs_is_listed(cli):
    save("b.h5", -np.arange(50.0), ids=np.arange(50) + 5, measured="lower is harder", checkpoint="other", of="loss")
    text = flat(cli("compare", "a.h5", "b.h5").out)
    assert "35 examples are in both, by their ids. Only in A: 5 (ids 0, 1, 2, 3, 4). Only in B: 15" in text
    assert "-1.000 [-1.000, -1.000]" in text
    assert "3 3 (100%)" in text
    assert "WARNING: the measured directions are opposite for vog at stage all" in text
    assert "Settings that differ A B of logit loss" in text
    assert "Checkpoints that differ A B checkpoint 0 c0 (c0) other (other)" in text


@pytest.mark.parametrize(("amount", "shown"), [("7", "all vog 7 7"), ("50%", "all vog 20 20"), ("2.5%", "all vog 1 1")])
def test_how_many_are_compared(amount, shown, cli):
    assert shown in flat(cli("compare", "a.h5", "a.h5", "-n", amount).out)


@pytest.mark.parametrize("amount", ["0", "-1", "x", "0%", "100%", "1.5", "1%%"])
def test_impossible_amounts(amount, cli, tools):
    tools.refused(cli("compare", "a.h5", "a.h5", f"--hardest={amount}"), "--hardest", "a share such as 5%")


def test_many_settings_are_cut_short(cli):
    save("b.h5", np.arange(40.0), **{f"k{i}": "x" * 100 for i in range(30)})
    text = cli("compare", "a.h5", "b.h5").out
    assert "... and 10 more (--json has them all)" in text
    assert "x" * 46 not in text


def test_names_from_a_file_cannot_steer_the_terminal(cli):
    save("b.h5", np.arange(40.0), evil="\x1b[2J")
    assert "\x1b" not in cli("compare", "a.h5", "b.h5").out


def test_bad_input(cli, tools):
    save("far.h5", np.arange(4.0), ids=np.arange(4) + 1000)
    tools.refused(cli("compare", "a.h5", "far.h5"), "No id is in both a.h5 and far.h5")
    tools.refused(cli("compare", "a.h5", "nope.h5"), "nope.h5")
    tools.refused(cli("compare", "a.h5"), "The following arguments are required: H5")
