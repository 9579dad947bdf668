"""``vogcore report``: its options, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def scored(score, run_folder):
    """The current folder with a score file of the run in it."""
    assert score("--maps", "5").status == 0
    return run_folder


def test_a_report_of_a_run(cli, scored):
    result = cli("report", "scores.h5", "--data", "train.npz", "-o", "report.html", "--title", "my <run>")
    assert (result.status, result.err) == (0, "")
    assert "report.html" in result.out
    text = (scored / "report.html").read_text(encoding="utf-8")
    assert "<title>my &lt;run&gt;</title>" in text
    assert "VoG by feature" in text
    assert sorted(p.name for p in scored.glob("*report*")) == ["report.html"]


def test_an_existing_file_is_kept_unless_asked_for(cli, scored, tools):
    (scored / "report.html").write_text("mine")
    tools.refused(cli("report", "scores.h5", "-o", "report.html"), "exists already", "--overwrite")
    assert (scored / "report.html").read_text() == "mine"
    assert cli("report", "scores.h5", "-o", "report.html", "--overwrite").status == 0


def test_the_score_file_is_never_replaced(cli, scored, tools):
    before = (scored / "scores.h5").read_bytes()
    tools.refused(cli("report", "scores.h5", "-o", "scores.h5", "--overwrite"), "is an input of this command")
    assert (scored / "scores.h5").read_bytes() == before


def test_other_data_are_told_and_left_out(cli, scored):
    x = np.load("train.npz")["x"]
    np.savez("other.npz", x=x[:-1], y=np.zeros(len(x) - 1, int))
    result = cli("report", "scores.h5", "--data", "other.npz", "-o", "report.html")
    assert result.status == 0
    assert result.err.startswith("vogcore: warning: The examples are not shown: other.npz holds 47 examples")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stage", "last"], "There is no stage 'last'"),
        (["--score", "loss"], "There is no score 'loss'"),
        (["--labels", "y.npy"], "--labels has a meaning with --data only"),
        (["--vocabulary", "v.txt"], "--vocabulary has a meaning with --data only"),
        (["--images", "-1"], "give a number from 0 to 1000"),
        (["--data", "train.npz", "--vocabulary", "none.txt"], "Cannot read the vocabulary none.txt"),
        (["--data", "train.npz", "--image-layout", "chw"], "no images of layout chw"),
    ],
)
def test_options_that_cannot_be(cli, scored, tools, words, said):
    tools.refused(cli("report", "scores.h5", "-o", "report.html", *words), said)
    assert not (scored / "report.html").exists()


def test_what_is_no_score_file_is_refused(cli, scored, tools):
    tools.refused(cli("report", "train.npz", "-o", "report.html"), "train.npz")
    tools.refused(cli("report", "none.h5", "-o", "report.html"), "none.h5")
