"""Error rates, distributions and histories: what is drawn, read back from the axes, against formulas of its own."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import StepPatch

from vogcore.errors import SettingsError
from vogcore.store import Companion


def wilson(hits: int, n: int) -> list[float]:
    """The interval as the two roots of (rate - p)² = z² p (1 - p) / n."""
    z2, rate = 1.959963984540054**2, hits / n
    return sorted(np.roots([1 + z2 / n, -(2 * rate + z2 / n), rate**2]).real)


def sorted_errors(scores, values) -> list[bool]:
    """Errors of the labelled, scored examples in the order of their score, one by one."""
    wrong = ~scores.companions["correct"].values
    usable = [i for i in range(len(scores)) if scores.labels[i] >= 0 and np.isfinite(values[i])]
    return [bool(wrong[i]) for i in sorted(usable, key=lambda i: (values[i], i))]


@pytest.mark.parametrize(("stage", "score"), [("all", "vog"), ("late", "vog"), ("all", "vog_raw")])
def test_deciles(scores, stage, score):
    ax = scores.plot.deciles(stage=stage, score=score)
    errors = sorted_errors(scores, getattr(scores.stages[stage], score))
    assert len(errors) == 101
    groups = [errors[:11]] + [errors[11 + 10 * i : 21 + 10 * i] for i in range(9)]
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [100 * sum(group) / len(group) for group in groups])
    (whiskers,) = [container for container in ax.containers if isinstance(container, ErrorbarContainer)]
    segments = whiskers[2][0].get_segments()
    for segment, group in zip(segments, groups, strict=True):
        np.testing.assert_allclose(segment[:, 1] / 100, wilson(sum(group), len(group)), atol=1e-8)
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed[0].get_ydata(), 100 * sum(errors) / len(errors))


@pytest.mark.parametrize(
    ("measured", "words", "hard"),
    [
        ("higher is harder", "high is hard (as measured)", [6, 7, 8, 9, 10]),
        ("lower is harder", "low is hard (as measured, against the claim)", [1, 2, 3, 4, 5]),
        ("undetermined", "high is hard (as claimed; this run does not tell)", [6, 7, 8, 9, 10]),
    ],
)
def test_the_hard_end_is_said_and_hatched(make, measured, words, hard):
    ax = make(measured).plot.deciles()
    assert words in ax.get_title()
    assert [i + 1 for i, bar in enumerate(ax.patches) if bar.get_hatch()] == hard
    ends = ("easiest", "hardest") if hard[-1] == 10 else ("hardest", "easiest")
    assert f"lowest (taken as {ends[0]}) to highest ({ends[1]})" in ax.get_xlabel()


def test_a_group_without_errors_has_a_whisker_from_zero(make):
    scores = make(companions={"correct": Companion(np.ones(103, bool), "lower is harder", "0 or 1", "argmax")})
    ax = scores.plot.deciles(bins=4)
    segments = ax.containers[1][2][0].get_segments()
    assert [segment[0, 1] for segment in segments] == [0.0] * 4
    assert all(segment[1, 1] > 0 for segment in segments)


def test_plots_draw_on_the_axes_given(scores, images):
    figure, given = plt.subplots(2, 3)
    axes = given.ravel()
    drawn = [
        scores.plot.deciles(ax=axes[0]),
        scores.plot.distribution(ax=axes[1]),
        scores.plot.grid(images, 2, ax=axes[2]),
        scores.plot.map(3, images, ax=axes[3]),
        scores.plot.history(3, ax=axes[4]),
    ]
    assert all(a is b for a, b in zip(drawn, axes, strict=False))
    figure.canvas.draw()
    assert len(plt.get_fignums()) == 1


def test_distribution_counts_every_finite_score_once(scores):
    ax = scores.plot.distribution(bins=7)
    (patch,) = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
    counts, edges, _ = patch.get_data()
    finite = scores.vog[np.isfinite(scores.vog)]
    np.testing.assert_allclose(edges, np.linspace(finite.min(), finite.max(), 8))
    expected = [((finite >= a) & (finite < b)).sum() for a, b in itertools.pairwise(edges)]
    expected[-1] += (finite == edges[-1]).sum()
    assert counts.tolist() == expected
    assert "left end" in ax.get_xlabel()


def test_distribution_of_right_and_wrong(scores):
    ax = scores.plot.distribution(by="correct", bins=5)
    right = scores.companions["correct"].values & (scores.labels >= 0) & np.isfinite(scores.vog)
    wrong = ~scores.companions["correct"].values & (scores.labels >= 0) & np.isfinite(scores.vog)
    shares = [patch.get_data().values for patch in ax.patches]
    for share, members in zip(shares, (right, wrong), strict=True):
        np.testing.assert_allclose(share.sum(), 100)
        edges = ax.patches[0].get_data().edges
        below = (scores.vog[members] < edges[1]).mean()
        np.testing.assert_allclose(share[0], 100 * below)
    assert [entry.get_text() for entry in ax.get_legend().get_texts()] == [
        f"right ({right.sum()})",
        f"wrong ({wrong.sum()})",
    ]


def test_distribution_by_class_names_the_largest_ten(make):
    labels = np.concatenate([np.arange(25), np.arange(12, 25), np.full(65, 3)])
    names = [f"kind {i}" for i in range(25)]
    scores = make(labels=labels, classes=names, class_count=np.bincount(labels))
    ax = scores.plot.distribution(by="class")
    named = [entry.get_text().split(" (")[0] for entry in ax.get_legend().get_texts()]
    assert named == ["kind 3", *(f"kind {i}" for i in range(12, 21))]
    assert ax.get_legend().get_title().get_text() == "the 10 largest classes"


def test_names_with_formulas_and_markup_stay_text(scores):
    ax = scores.plot.distribution(by="class")
    ax.figure.canvas.draw()
    third, fourth = (entry.get_text() for entry in ax.get_legend().get_texts()[2:])
    assert third.replace(r"\$", "$").startswith("$100 or $200 (")
    assert fourth.startswith("<b>bird</b> (")


def test_history(scores):
    ax = scores.plot.history(6)
    line = ax.lines[0]
    assert line.get_xdata().tolist() == [0, 10, 40, 90, 160]
    np.testing.assert_array_equal(line.get_ydata(), scores.predictions_label_probability[:, 6])
    right = scores.predictions_class[:, 6] == scores.labels[6]
    dots, crosses = ax.lines[1], ax.lines[2]
    assert dots.get_xdata().tolist() == np.array([0, 10, 40, 90, 160])[right].tolist()
    assert crosses.get_xdata().tolist() == np.array([0, 10, 40, 90, 160])[~right].tolist()
    assert ax.get_xlabel() == "step"
    harder = sum(1 for value in scores.vog if value <= scores.vog[6])
    assert f"{harder} of 102 from the hard end" in ax.get_title()
    assert "(id picture-6)" in ax.get_title()


def test_history_of_a_stage_has_its_checkpoints(scores):
    assert scores.plot.history(6, stage="late").lines[0].get_xdata().tolist() == [90, 160]


def test_history_without_a_label_shows_the_classes(scores):
    ax = scores.plot.history(50)
    assert ax.get_ylabel() == "predicted class"
    assert ax.lines[1].get_ydata().tolist() == scores.predictions_class[:, 50].tolist()


def test_history_of_a_nan_score(scores):
    assert "VoG +nan\n" in scores.plot.history(7).get_title()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: p.deciles(stage="later"), "no stage 'later'"),
        (lambda p: p.deciles(score="loss"), "no score 'loss'"),
        (lambda p: p.deciles(score="vog_relative"), "no vog_relative; choose another score"),
        (lambda p: p.deciles(bins=102), "101 examples .* cannot be cut into 102 groups"),
        (lambda p: p.deciles(bins=0), "choose from 1 to 101"),
        (lambda p: p.distribution(by="label"), "by='label' is not known"),
        (lambda p: p.distribution(bins=0), "bins=0 is not possible"),
        (lambda p: p.history(103), "no example 103; the examples are 0 to 102"),
        (lambda p: p.history(-1), "no example -1"),
    ],
)
def test_what_cannot_be_drawn_is_said(scores, draw, message):
    with pytest.raises(SettingsError, match=message):
        draw(scores.plot)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("changes", "draw", "message"),
    [
        ({"companions": {}}, lambda p: p.deciles(), "no companion .correct"),
        ({"companions": {}}, lambda p: p.distribution(by="correct"), 'by="correct" needs'),
        ({"labels": np.full(103, -1)}, lambda p: p.distribution(by="class"), "needs labels"),
        ({"labels": np.full(103, -1)}, lambda p: p.deciles(), "0 examples with a label"),
        ({"predictions_class": None}, lambda p: p.history(0), "needs the predictions"),
    ],
)
def test_what_the_scores_lack_is_said(make, changes, draw, message):
    with pytest.raises(SettingsError, match=message):
        draw(make(**changes).plot)
    assert plt.get_fignums() == []


def test_scores_that_are_all_nan(make):
    scores = make()
    scores.stages["all"].vog[:] = np.nan
    with pytest.raises(SettingsError, match="No vog of stage 'all' is a finite number"):
        scores.plot.distribution()
