"""Two score files side by side, against scipy and against sets."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

import vogcore
from vogcore.errors import DataError, SettingsError
from vogcore.store import CheckpointInfo, Direction, Scores, StageScores

N = 200


def scores(
    vog, *, ids=None, measured="higher is harder", labels=None, classes=("a", "b"), settings=None, sha="s"
) -> Scores:
    vog = np.asarray(vog, float)
    n = len(vog)
    direction = Direction(measured=measured)
    stage = StageScores(
        "all", np.arange(2), np.abs(vog), vog, None, None, np.zeros(2), np.ones(2), "class", {"vog": direction}
    )
    return Scores(
        stages={"all": stage},
        labels=np.zeros(n, np.int64) if labels is None else np.asarray(labels),
        ids=np.arange(n) if ids is None else np.asarray(ids),
        classes=list(classes),
        class_count=np.array([n, 0]),
        checkpoints=[CheckpointInfo("c0", sha256=sha), CheckpointInfo("c1", sha256="t")],
        settings=settings or {"of": "logit"},
    )


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    a = rng.standard_normal(N)
    return a, a + rng.standard_normal(N)


def test_rank_correlation_is_that_of_scipy(pair):
    a, b = pair
    found = vogcore.compare(scores(a), scores(b))
    (vog, raw) = found.scores
    assert (vog.stage, vog.score, raw.score, vog.n) == ("all", "vog", "vog_raw", N)
    assert vog.spearman == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)
    z, width = math.atanh(vog.spearman), 1.96 * math.sqrt((1 + vog.spearman**2 / 2) / (N - 3))
    assert (vog.spearman_low, vog.spearman_high) == pytest.approx(
        (math.tanh(z - width), math.tanh(z + width)), abs=1e-5
    )
    assert raw.spearman == pytest.approx(scipy.stats.spearmanr(np.abs(a), np.abs(b)).statistic, abs=1e-12)


@pytest.mark.parametrize(("hardest", "count"), [(None, 20), (0.05, 10), (7, 7), (1000, N), (0.001, 1)])
def test_overlap_of_the_hard_ends(pair, hardest, count):
    a, b = pair
    found = vogcore.compare(scores(a), scores(b), hardest=hardest).scores[0]
    common = set(np.argsort(-a)[:count]) & set(np.argsort(-b)[:count])
    assert (found.hardest, found.overlap) == (count, len(common))
    assert found.jaccard == pytest.approx(len(common) / (2 * count - len(common)))
    assert found.overlap_by_chance == pytest.approx(count**2 / N)


def test_each_file_is_read_at_its_own_hard_end(pair):
    a, _ = pair
    found = vogcore.compare(scores(a), scores(-a, measured="lower is harder")).scores[0]
    assert found.spearman == pytest.approx(-1)
    assert (found.overlap, found.jaccard, found.agree) == (20, 1.0, False)
    assert vogcore.compare(scores(a), scores(a)).scores[0].agree is True
    assert vogcore.compare(scores(a), scores(a, measured="undetermined")).scores[0].agree is None


def test_examples_are_joined_by_id_whatever_their_order(pair):
    a, _ = pair
    order = np.random.default_rng(1).permutation(N)
    first = scores(a, ids=[f"x{i}" for i in range(N)])
    second = scores(a[order][20:], ids=[f"x{i}" for i in order[20:]])
    found = vogcore.compare(first, second)
    assert (found.n_first, found.n_second, found.common) == (N, N - 20, N - 20)
    assert found.scores[0].spearman == pytest.approx(1)
    assert set(found.only_first) == {f"x{i}" for i in order[:20]}
    assert len(found.only_second) == 0


def test_labels_are_compared_by_the_name_of_the_class():
    first = scores(np.arange(4.0), labels=[0, 1, 0, -1])
    second = scores(np.arange(4.0), labels=[1, 0, 0, -1], classes=("b", "a"))
    assert vogcore.compare(first, second).labels_differ == 1


def test_scores_that_are_not_finite_are_left_out(pair):
    a, b = pair
    a[:5], b[-5:] = np.nan, np.nan
    found = vogcore.compare(scores(a), scores(b)).scores[0]
    assert found.n == N - 10
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(a[5:-5], b[5:-5]).statistic)
    empty = vogcore.compare(scores(a), scores(np.full(N, np.nan))).scores[0]
    assert (empty.n, empty.hardest, empty.overlap) == (0, 0, 0)
    assert math.isnan(empty.spearman)


def test_what_differs_is_named():
    first = scores(np.arange(5.0), settings={"of": "logit", "versions": {"numpy": "1"}, "data": {"sha256": "p"}})
    second = scores(
        np.arange(5.0), settings={"of": "loss", "versions": {"numpy": "2"}, "data": {"sha256": "q"}}, sha="other"
    )
    second.stages["late"] = dataclasses.replace(second.stages["all"], name="late")
    found = vogcore.compare(first, second)
    assert [(d.name, d.first, d.second) for d in found.settings] == [
        ("of", "logit", "loss"), ("versions.numpy", "1", "2"), ("data.sha256", "p", "q"),
    ]  # fmt: skip
    assert [d.name for d in found.checkpoints] == ["checkpoint 0"]
    assert [(d.name, d.first, d.second) for d in found.only_stages] == [("late", None, [0, 1])]
    assert "joined by position" in found.notes[0]
    same = vogcore.compare(first, first)
    assert (same.settings, same.checkpoints, same.notes) == ((), (), ())


def test_what_cannot_be_compared():
    a = scores(np.arange(5.0))
    with pytest.raises(DataError, match="No id is in both first and second"):
        vogcore.compare(a, scores(np.arange(5.0), ids=np.arange(5) + 10))
    with pytest.raises(DataError, match="numbers and those in second text"):
        vogcore.compare(a, scores(np.arange(5.0), ids=list("abcde")))
    with pytest.raises(DataError, match="first has an id twice"):
        vogcore.compare(scores(np.arange(5.0), ids=[0, 1, 1, 2, 3]), a)
    for hardest in (0, -1, 1.5, 0.0):
        with pytest.raises(SettingsError, match="not possible"):
            vogcore.compare(a, a, hardest=hardest)
