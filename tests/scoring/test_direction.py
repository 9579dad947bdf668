"""Which end is the hard one, by hand, against scipy, and on data made to point one way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import vogcore
from vogcore.scoring.companions import measure_logits
from vogcore.scoring.direction import auroc, measure_direction, ranks, spearman

HIGHER, LOWER, UNDETERMINED = "higher is harder", "lower is harder", "undetermined"
few_values = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=30)


@given(few_values)
@settings(max_examples=80, deadline=None)
def test_ranks_are_scipys(values):
    np.testing.assert_array_equal(ranks(np.array(values)), stats.rankdata(values))


@given(few_values, st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_spearman_is_scipys(values, seed):
    a = np.array(values)
    b = np.random.default_rng(seed).integers(0, 4, len(a)).astype(float)
    got = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
        assert -1 <= got <= 1


@given(few_values, st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_auroc_counts_pairs(values, seed):
    scores = np.array(values)
    positive = np.random.default_rng(seed).random(len(scores)) < 0.4
    pairs = [1.0 if p > q else 0.5 if p == q else 0.0 for p in scores[positive] for q in scores[~positive]]
    got = auroc(scores, positive)
    if pairs:
        assert got == pytest.approx(np.mean(pairs), abs=1e-12)
        u = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
        assert got == pytest.approx(u / len(pairs), abs=1e-12)
    else:
        assert math.isnan(got)


def test_by_hand():
    np.testing.assert_array_equal(ranks(np.array([10, 30, 20, 20])), [1, 4, 2.5, 2.5])
    assert spearman(np.arange(5.0), np.arange(5.0) ** 3) == 1
    assert spearman(np.arange(5.0), -np.arange(5.0)) == -1
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)
    assert auroc(np.array([3.0, 1, 2]), np.array([True, False, False])) == 1
    assert auroc(np.array([1.0, 1, 1]), np.array([True, False, False])) == 0.5


def made(n: int, sign: float, noise: float, seed: int = 0, errors: float = 0.2):
    """A score that follows the loss (sign 1), its opposite (-1) or nothing (0), and errors where the loss is high."""
    rng = np.random.default_rng(seed)
    loss = rng.exponential(size=n)
    return sign * loss + noise * rng.standard_normal(n), loss, loss < np.quantile(loss, 1 - errors)


@pytest.mark.parametrize(("sign", "measured"), [(1, HIGHER), (-1, LOWER), (0, UNDETERMINED)])
def test_measured_direction_of_constructed_scores(sign, measured):
    scores, loss, correct = made(400, sign, 1.0)
    direction = measure_direction(scores, loss, correct)
    assert direction.measured == measured
    assert direction.claimed == HIGHER
    assert direction.contradicts == (measured == LOWER)
    assert direction.n_examples == 400
    assert direction.n_errors == 80
    assert direction.spearman_loss == pytest.approx(stats.spearmanr(scores, loss).statistic)
    assert direction.spearman_low < direction.spearman_loss < direction.spearman_high
    assert (direction.auroc_errors - 0.5) * sign >= 0


def test_the_interval_holds_what_it_claims():
    """Fisher's z with the error of Bonett & Wright covers the true correlation of normal data about 95% of the time."""
    rho = 0.5
    truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's of a bivariate normal
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        a = rng.standard_normal(60)
        b = rho * a + math.sqrt(1 - rho**2) * rng.standard_normal(60)
        direction = measure_direction(a, b, np.ones(60, bool))
        inside += direction.spearman_low <= truth <= direction.spearman_high
    assert 0.91 < inside / 300 < 0.985


def test_errors_that_say_the_opposite_leave_it_undecided():
    rng = np.random.default_rng(0)
    loss = np.arange(200.0)
    scores = loss + rng.standard_normal(200)
    assert measure_direction(scores, loss, loss < 150).measured == HIGHER
    contrary = measure_direction(scores, loss, loss >= 50)  # the examples of low loss are the errors
    assert contrary.spearman_loss > 0.9
    assert contrary.auroc_errors < 0.1
    assert contrary.measured == UNDETERMINED
    assert measure_direction(-scores, loss, loss >= 50).measured == UNDETERMINED
    few = measure_direction(scores, loss, loss >= 9)  # nine errors are too few to contradict
    assert few.measured == HIGHER


def test_degenerate_runs():
    scores, loss, _ = made(100, 1, 0.1)
    for correct, n_errors in ((np.ones(100, bool), 0), (np.zeros(100, bool), 100)):
        direction = measure_direction(scores, loss, correct)
        assert direction.measured == HIGHER
        assert math.isnan(direction.auroc_errors)
        assert direction.n_errors == n_errors
    for constant in (
        measure_direction(np.ones(100), loss, loss < 1),
        measure_direction(scores, np.ones(100), loss < 1),
    ):
        assert constant.measured == UNDETERMINED
        assert math.isnan(constant.spearman_loss)
    assert measure_direction(loss, loss, loss < 1).measured == HIGHER  # perfect: no interval to compute
    assert measure_direction(-loss, loss, loss < 1).spearman_low == -1
    assert measure_direction(loss[:9], loss[:9], loss[:9] < 1).measured == UNDETERMINED
    for n in range(4):
        tiny = measure_direction(scores[:n], loss[:n], np.ones(n, bool))
        assert (tiny.measured, tiny.n_examples) == (UNDETERMINED, n)
    ties = measure_direction(np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], 50), np.repeat([True, False], 50))
    assert (ties.measured, ties.auroc_errors) == (HIGHER, 1.0)


def test_examples_without_score_or_loss_are_left_out():
    scores, loss, correct = made(100, 1, 0.5)
    want = measure_direction(scores[10:90], loss[10:90], correct[10:90])
    scores[:5], scores[5:10], loss[90:] = np.nan, np.inf, np.nan
    assert measure_direction(scores, loss, correct) == want


def test_loss_is_the_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((50, 4)) * 5, rng.integers(0, 4, 50)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(
        measure_logits(logits.astype(np.float32), labels).loss, -np.log(p[np.arange(50), labels]), 1e-5
    )
    extreme = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32)
    np.testing.assert_array_equal(measure_logits(extreme, np.array([0, 1])).loss, [0, 2e4])
    assert np.isnan(measure_logits(extreme, np.array([-1, 0])).loss).tolist() == [True, False]


@pytest.mark.parametrize(("power", "measured"), [(1.0, HIGHER), (-1.0, LOWER)])
def test_a_run_tells_its_own_direction(power, measured, tmp_path):
    """Gradients whose spread grows (or shrinks) with the loss of the logits beside them."""
    rng = np.random.default_rng(0)
    k, n = 4, 300
    labels = np.arange(n) % 3
    logits = rng.standard_normal((n, 3))
    loss = measure_logits(logits, labels).loss
    g = rng.standard_normal((k, n, 30)) * (loss**power)[None, :, None]
    with vogcore.GradientWriter(tmp_path / "g.h5", n, (30,), labels=labels) as writer:
        for checkpoint in range(k):
            writer.write(checkpoint, 0, g[checkpoint])
            writer.write_logits(checkpoint, 0, logits)
    scores = vogcore.score_gradients(tmp_path / "g.h5", stages={"last": slice(2, 4)}, out=tmp_path / "s.h5")
    for stage in ("all", "last"):
        for score in ("vog", "vog_raw"):
            assert scores.stage(stage).direction(score).measured == measured
    assert scores.direction.contradicts == (measured == LOWER)
    hardest = scores.hardest(30)
    assert loss[hardest].mean() > loss.mean() > loss[scores.easiest(30)].mean()
    stored = vogcore.open_scores(tmp_path / "s.h5")
    assert stored.direction == scores.direction
    np.testing.assert_array_equal(stored.hardest(30), hardest)
