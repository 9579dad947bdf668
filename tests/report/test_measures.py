"""The figures of a report against plain formulas and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vogcore.report.measures import (
    Ranked,
    density,
    emptied_classes,
    error_bins,
    histogram,
    kept_accuracy,
    mean_by_bin,
    quantiles_by_class,
    rank_correlations,
    wilson_interval,
)
from vogcore.scoring.direction import auroc, auroc_interval, measure_direction, spearman

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
few = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=40)


@given(counts)
@settings(max_examples=60, deadline=None)
def test_wilson_interval_is_scipys(pair):
    successes, n = pair
    wanted = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilson_interval_of_nothing():
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


@given(few, st.integers(0, 99), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_bins_hold_every_example_once_in_order(values, seed, parts):
    scores = np.array(values)
    errors = np.random.default_rng(seed).random(len(scores)) < 0.4
    bins = error_bins(scores, errors, parts)
    pairs = sorted(zip(values, range(len(values)), strict=True))
    begin = 0
    for at, count in enumerate(bins.count):
        members = [index for _, index in pairs[begin : begin + count]]
        assert bins.errors[at] == sum(bool(errors[i]) for i in members)
        assert (bins.lowest[at], bins.highest[at]) == (scores[members[0]], scores[members[-1]])
        begin += count
    assert begin == len(values)
    assert bins.count.max() - bins.count.min() <= 1


def test_deciles_by_hand():
    bins = error_bins(np.arange(20.0)[::-1], np.arange(20) >= 18)
    # The last two examples have the lowest scores.
    assert bins.errors.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert bins.rate[0] == 1.0
    assert bins.lowest.tolist() == list(range(0, 20, 2))


@given(few, st.integers(0, 99), st.booleans(), st.floats(0, 0.95))
@settings(max_examples=80, deadline=None)
def test_accuracy_of_what_is_kept(values, seed, high, share):
    scores = np.array(values) + np.arange(len(values)) * 1e-6  # without ties, where the order of the data decides
    correct = np.random.default_rng(seed).random(len(scores)) < 0.6
    gone = math.floor(share * len(scores) + 1e-9)
    kept = sorted(range(len(scores)), key=lambda i: scores[i], reverse=not high)[: max(len(scores) - gone, 1)]
    got = kept_accuracy(scores, correct, high, [share])
    assert got.tolist() == pytest.approx([np.mean([correct[i] for i in kept])])


def test_nothing_set_aside_is_the_accuracy_of_all():
    correct = np.array([True, False, True, True])
    assert kept_accuracy(np.array([1.0, 4.0, 2.0, 3.0]), correct, True, [0.0, 0.25, 0.9]).tolist() == [0.75, 1.0, 1.0]
    assert kept_accuracy(np.array([1.0, 4.0, 2.0, 3.0]), correct, False, [0.75]).tolist() == [0.0]


def test_classes_that_are_emptied():
    values, labels = np.array([9.0, 8.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1, 2])
    assert emptied_classes(values, labels, True, [0.0, 0.2, 0.4, 0.6]) == [0, 0, 1, 2]
    assert emptied_classes(values, labels, False, [0.4, 0.6]) == [1, 2]


@given(few, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_quantiles_by_class_are_numpys(values, seed):
    scores, rng = np.array(values), np.random.default_rng(seed)
    labels = rng.integers(-1, 4, len(scores))
    scores[rng.random(len(scores)) < 0.2] = np.nan
    shares = (0.0, 0.05, 0.5, 0.95, 1.0)
    got = quantiles_by_class(scores, labels, 5, shares)
    for c in range(5):
        own = scores[(labels == c) & np.isfinite(scores)]
        wanted = np.quantile(own, shares) if len(own) else np.full(len(shares), np.nan)
        np.testing.assert_allclose(got[c], wanted, atol=1e-12)


def test_histogram_counts_what_lies_outside_at_its_ends():
    values = np.concatenate([np.linspace(0, 1, 1000), [50.0, -50.0]])
    count, edges = histogram(values, 10)
    assert count.sum() == 1002
    assert -0.1 < edges[0] < edges[-1] < 1.1


@pytest.mark.parametrize("values", [[2.0], [3.0] * 7, [0.0] * 999 + [1.0]])
def test_histogram_of_values_that_hardly_differ(values):
    count, edges = histogram(np.array(values), 10)
    assert count.sum() == len(values)
    assert edges[0] < edges[-1]


def test_density_counts_every_pair():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 500))
    count, x, y = density(a, 3 * b, 20)
    assert count.shape == (20, 20)
    assert count.sum() == 500
    assert (len(x), len(y)) == (21, 21)
    # Rows are the second measure: their sums are its own histogram.
    np.testing.assert_array_equal(count.sum(axis=1), histogram(3 * b, 20)[0])
    np.testing.assert_array_equal(count.sum(axis=0), histogram(a, 20)[0])


def test_mean_by_bin():
    values = np.arange(20.0)
    got = mean_by_bin(values, [values * 2, np.where(values < 2, np.nan, 1.0), values > 9])
    np.testing.assert_allclose(got[0], np.arange(1, 40, 4))
    assert math.isnan(got[1, 0])
    assert got[1, 1:].tolist() == [1.0] * 9
    assert got[2].tolist() == [0.0] * 5 + [1.0] * 5


@given(few, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_ranked_auroc_and_correlation_are_those_of_the_run(values, seed):
    rng = np.random.default_rng(seed)
    first, second = np.array(values), rng.integers(0, 4, len(values)).astype(float)
    positive = rng.random(len(values)) < 0.5
    np.testing.assert_allclose(Ranked(first).auroc(positive), auroc(first, positive), atol=1e-12)
    np.testing.assert_allclose(Ranked(first).spearman(Ranked(second)), spearman(first, second), atol=1e-12)


def test_correlation_where_values_are_missing_is_that_of_the_rest():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 50))
    b += a
    holes = b.copy()
    holes[::7] = np.nan
    wanted = stats.spearmanr(a[~np.isnan(holes)], b[~np.isnan(holes)]).statistic
    got = rank_correlations([Ranked(a), Ranked(holes)], [Ranked(holes), Ranked(np.full(50, np.nan))])
    assert got[0, 0] == pytest.approx(wanted)
    assert got[1, 0] == pytest.approx(1.0)
    assert np.isnan(got[:, 1]).all()


def test_interval_of_the_auroc_covers_the_truth():
    # Two normal distributions one standard deviation apart: AUROC = Phi(1 / sqrt 2).
    truth, rng, inside = stats.norm.cdf(1 / math.sqrt(2)), np.random.default_rng(0), 0
    for _ in range(400):
        scores = np.concatenate([rng.normal(1, 1, 40), rng.normal(0, 1, 120)])
        area = auroc(scores, np.arange(160) < 40)
        low, high = auroc_interval(area, 40, 120)
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 0.985


def test_interval_of_the_auroc_by_hand():
    # Hanley & McNeil 1982: Q1 = A / (2 - A), Q2 = 2 A² / (1 + A).
    a, n, m = 0.8, 30, 50
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m))
    assert auroc_interval(a, n, m) == pytest.approx((a - 1.959964 * error, a + 1.959964 * error), abs=1e-6)
    assert auroc_interval(1.0, 5, 5) == (1.0, 1.0)
    assert all(math.isnan(end) for end in auroc_interval(0.5, 0, 5))


def test_a_finding_is_what_a_run_would_have_measured():
    from vogcore.report.findings import find

    from .runs import run

    scores = run(300)
    measured = {f.title: f for f in find(scores).all}
    loss, correct = scores.companions["loss"].values, scores.companions["correct"].values
    for name in ("aum", "el2n", "forgetting"):
        wanted = measure_direction(scores.companions[name].values.astype(float), loss, correct)
        got = measured[name].direction
        assert got.measured == wanted.measured
        assert got.spearman_loss == pytest.approx(wanted.spearman_loss)
        assert got.auroc_errors == pytest.approx(wanted.auroc_errors)
        assert (got.n_errors, got.n_examples) == (wanted.n_errors, wanted.n_examples)
    assert measured["vog (late)"].direction == scores.stages["late"].directions["vog"]
