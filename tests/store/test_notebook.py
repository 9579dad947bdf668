"""What a notebook shows of scores: the numbers, every name as text, and never an exception."""

from __future__ import annotations

import html.parser
import subprocess
import sys

import numpy as np
import pytest

from vogcore.store import CheckpointInfo, Companion, Direction, Scores, StageScores
from vogcore.store.words import plain

SCRIPT = "<script>alert('&amp;')</script>"
HIGHER = Direction(
    measured="higher is harder", spearman_loss=0.42, spearman_low=0.3, spearman_high=0.5, auroc_errors=0.71,
    n_errors=12, n_examples=30,
)  # fmt: skip
LOWER = Direction(
    measured="lower is harder", spearman_loss=-0.61, spearman_low=-0.7, spearman_high=-0.5, auroc_errors=0.2,
    n_errors=12, n_examples=30,
)  # fmt: skip


class Page(html.parser.HTMLParser):
    """Tags in balance, text of the cells of every table, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data


def stage(name: str, values: np.ndarray, classes: int, **directions: Direction) -> StageScores:
    spread = np.full(classes, 0.25)
    return StageScores(name, np.arange(3), values + 10, values, None, None, spread, spread, "class", directions)


def scores(n: int = 30, n_classes: int = 3, vog: Direction = HIGHER, **changes) -> Scores:
    """Example i has the label i mod classes and the VoG i / 10."""
    values = np.arange(n) / 10.0
    labels = np.arange(n) % n_classes
    predicted = labels.copy()
    predicted[-1:] = 0
    every = {
        "stages": {
            "all": stage("all", values, n_classes, vog=vog, vog_raw=Direction()),
            "late": stage("late", -values, n_classes, vog=LOWER),
        },
        "labels": labels,
        "ids": np.array([f"id {i}" for i in range(n)]),
        "classes": [f"kind {i}" for i in range(n_classes)],
        "class_count": np.bincount(labels, minlength=n_classes),
        "checkpoints": [CheckpointInfo(f"c{i}.onnx") for i in range(3)],
        "settings": {"of": "logit", "target": "label"},
        "companions": {"loss": Companion(np.linspace(0, 1, n), "higher is harder", "[0, inf)", "cross-entropy")},
        "predictions_class": np.stack([predicted] * 3).astype(np.int32),
    }
    return Scores(**(every | changes))


def test_what_is_shown():
    page = Page(scores()._repr_html_())
    assert "30 examples, 3 classes, 3 checkpoints" in page.text
    assert (
        "higher VoG is harder (rank correlation with the loss +0.42 [+0.30, +0.50], AUROC for errors 0.71" in page.text
    )
    assert "most clearly is vog at stage late (-0.61, lower is harder)" in page.text
    directions, hardest, easiest = page.tables
    assert directions[1] == ["all", "vog", "higher is harder", "", "+0.42", "[+0.30, +0.50]", "0.71"]
    assert directions[2][:4] == ["late", "vog", "lower is harder", "opposite of the claim"]
    assert len(directions) == 3
    assert hardest[0] == ["position", "id", "label", "predicted", "VoG", "raw", "loss"]
    assert hardest[1] == ["29", "id 29", "kind 2", "kind 0 (wrong)", "+2.90", "12.9", "1.000"]
    assert [row[0] for row in hardest[1:]] == ["29", "28", "27", "26", "25"]
    assert [row[0] for row in easiest[1:]] == ["0", "1", "2", "3", "4"]


def test_the_lists_follow_the_measurement():
    page = Page(scores(vog=LOWER)._repr_html_())
    assert [row[0] for row in page.tables[1][1:]] == ["0", "1", "2", "3", "4"]
    assert "the opposite of what the paper claims" in page.text
    assert "lowest VoG; low is hard (as measured, against the claim)" in page.text


def test_names_stay_text():
    n = 6
    changes = {
        "ids": np.array([SCRIPT] * n),
        "classes": [SCRIPT, "<b>", "a & b"],
        "checkpoints": [CheckpointInfo(SCRIPT)] * 3,
        "warnings": [SCRIPT],
        "path": SCRIPT,
        "settings": {"of": SCRIPT, "target": SCRIPT},
    }
    made = scores(n, **changes)
    made.stages[SCRIPT] = stage(SCRIPT, np.zeros(n), 3, vog=LOWER)
    text = made._repr_html_()
    page = Page(text)
    assert page.tags <= {
        "div",
        "style",
        "p",
        "strong",
        "br",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
    }
    assert "<b>" not in text
    assert SCRIPT in page.text
    assert {row[1] for row in page.tables[1][1:]} == {SCRIPT}
    assert "<b>" in [row[2] for row in page.tables[1][1:]]


def test_it_stays_small():
    n = 2000
    made = scores(
        n, 1000, classes=["x" * 100_000] * 1000, ids=np.array(["y" * 5_000] * n), warnings=["z" * 10_000] * 50
    )
    for i in range(40):
        made.stages[f"window {i}"] = stage(f"window {i}", np.zeros(n), 1000, vog=LOWER)
    text = made._repr_html_()
    assert len(text) < 20_000
    assert "and 30 more scores" in text
    assert "and 47 more warnings" in text


def broken(**changes) -> Scores:
    """Scores with attributes that the class itself would not give."""
    made = scores()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    "made",
    [
        scores(labels=np.full(30, -1)),
        scores(companions={}),
        scores(predictions_class=None),
        scores(predictions_class=np.zeros((0, 30), np.int32)),
        scores(classes=[], class_count=np.zeros(0, int)),
        scores(checkpoints=[]),
        scores(settings={}),
        scores(vog=Direction()),
        scores(vog=Direction(measured="undetermined")),
        scores(0),
        scores(1),
        scores(stages={"all": stage("all", np.full(30, np.nan), 3)}),
        scores(stages={"all": stage("all", np.array([np.inf, -np.inf] * 15), 3)}),
        scores(ids=np.arange(30)),
        broken(ids=None),
        broken(labels=None),
        broken(stages={}),
        broken(settings=None, warnings=None),
    ],
)  # fmt: skip
def test_it_never_raises(made):
    text = made._repr_html_()
    assert text.startswith(("<div", "<pre>"))
    Page(text)


def test_a_nan_is_a_dash():
    page = Page(scores(5, stages={"all": stage("all", np.full(5, np.nan), 3)})._repr_html_())
    assert page.tables[0][1][-3:] == ["-", "-", "0.000"]


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (Direction(), "was not measured (that needs labels and logits); claimed: higher is harder"),
        (Direction(measured="undetermined", spearman_loss=0.0), "undecided on this run"),
    ],
)
def test_what_the_run_does_not_tell_is_said(measured, words):
    page = Page(scores(vog=measured)._repr_html_())
    assert words in page.text
    assert "high is hard (as claimed; this run does not tell)" in page.text


def test_neither_matplotlib_nor_h5py_is_needed():
    code = (
        "import sys; sys.modules['matplotlib'] = sys.modules['h5py'] = None; import numpy as np; "
        "from vogcore.store import Scores, StageScores; z = np.zeros(2); "
        "s = StageScores('all', np.arange(2), z, z, None, None, z, z, 'class'); "
        "print(Scores({'all': s}, np.zeros(2, int), np.arange(2), ['a'], np.array([2]), [], {})._repr_html_()[:4])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "<div"


def test_plain_text():
    assert plain("a\nb\x1b[31m\u202e") == r"a\nb\x1b[31m\u202e"
    assert plain("x" * 50, 10) == "xxxxxxxxx…"
    assert plain(7) == "7"
