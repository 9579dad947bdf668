"""Class statistics against pandas and NumPy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import DataError
from vogcore.kernels import class_statistics, merge_statistics, normalise, robust_statistics


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(0, 200),
    n_classes=st.integers(1, 12),
    offset=st.sampled_from([0.0, 1e6, -1e-6]),
)
def test_statistics_agree_with_pandas_and_numpy(seed, n, n_classes, offset):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n) + offset
    classes = rng.integers(-1, n_classes, size=n)
    groups = pd.DataFrame({"score": scores, "class": classes}).groupby("class")["score"]
    every = pd.RangeIndex(n_classes)
    found = class_statistics(scores, classes, n_classes)
    np.testing.assert_array_equal(found.count, groups.count().reindex(every, fill_value=0))
    np.testing.assert_allclose(found.mean, groups.mean().reindex(every), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.std, groups.std(ddof=0).reindex(every), rtol=1e-9, atol=1e-13)

    robust = robust_statistics(scores, classes, n_classes)
    np.testing.assert_array_equal(robust.count, found.count)
    for c in range(n_classes):
        members = scores[classes == c]
        if members.size == 0:
            assert np.isnan([found.mean[c], found.std[c], robust.mean[c], robust.std[c]]).all()
            continue
        assert robust.mean[c] == np.median(members)
        assert robust.std[c] == 1.4826 * np.median(np.abs(members - np.median(members)))


def test_two_passes_keep_a_spread_far_below_the_mean():
    scores = 1e8 + np.tile([-1e-3, 1e-3], 500_000)
    found = class_statistics(scores, np.zeros(scores.size, np.int64), 1)
    np.testing.assert_allclose(found.std, np.std(scores), rtol=1e-9)
    np.testing.assert_allclose(found.mean, 1e8, rtol=1e-15)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-300, 7e5])
def test_equal_scores_have_exactly_no_spread(value):
    found = class_statistics(np.full(9999, value), np.zeros(9999, np.int64), 1)
    assert found.std[0] == 0.0
    assert found.mean[0] == value
    normalised = normalise(np.full(3, value), [0, 0, 0], found.mean, found.std)
    np.testing.assert_array_equal(normalised, 0.0)


def test_a_score_that_is_not_finite_spoils_its_own_class_only():
    for bad in (np.nan, np.inf):
        for statistics in (class_statistics, robust_statistics):
            found = statistics([1.0, 3.0, bad, bad, bad], [0, 0, 1, 1, 1], 2)
            assert np.isfinite([found.mean[0], found.std[0]]).all()
            assert np.isnan(found.std[1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(0, 100), absolute=st.booleans())
def test_normalised_scores_have_mean_0_and_std_1_in_every_class(seed, n, absolute):
    rng = np.random.default_rng(seed)
    scores, classes = rng.normal(size=n) * 5 + 3, rng.integers(0, 4, size=n)
    found = class_statistics(scores, classes, 4)
    z = normalise(scores, classes, found.mean, found.std, absolute=absolute)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = (scores - found.mean[classes]) / found.std[classes]
    expected[found.std[classes] == 0] = 0.0
    np.testing.assert_allclose(z, np.abs(expected) if absolute else expected, rtol=1e-12, atol=1e-12)
    again = class_statistics(normalise(scores, classes, found.mean, found.std), classes, 4)
    spread = (found.count > 0) & (found.std > 0)
    np.testing.assert_allclose(again.mean[spread], 0.0, atol=1e-12)
    np.testing.assert_allclose(again.std[spread], 1.0, rtol=1e-12)


def test_normalise_with_other_statistics_marks_what_it_cannot_place():
    z = normalise(
        [1.0, 2.0, 3.0, 4.0, np.nan, 6.0], [0, 1, 2, -1, 1, 3], [0.0, 2.5, np.nan, 0.0], [2.0, 0.0, np.nan, 1e-17]
    )
    np.testing.assert_array_equal(z, [0.5, 0.0, np.nan, np.nan, np.nan, 6e17])
    z = normalise([1.0, 6.0], [0, 1], [0.0, 0.0], [2.0, 1e-17], zero_spread=[False, True])
    np.testing.assert_array_equal(z, [0.5, 0.0])
    assert normalise([-1.0], [0], [1.0], [1.0], absolute=True)[0] == 2.0


def test_inputs_are_left_alone():
    scores, classes = np.array([3.0, 1.0, 2.0]), np.array([1, 0, 1])
    mean, std = np.array([1.0, 2.0]), np.array([0.0, 1.0])
    class_statistics(scores, classes, 2)
    robust_statistics(scores, classes, 2)
    normalise(scores, classes, mean, std, zero_spread=np.array([True, False]))
    assert scores.tolist() == [3.0, 1.0, 2.0]
    assert classes.tolist() == [1, 0, 1]
    assert mean.tolist() == [1.0, 2.0]
    assert std.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("function", [class_statistics, robust_statistics])
@pytest.mark.parametrize(
    ("scores", "classes", "message"),
    [
        ([1.0, 2.0], [0], "two lists of the same length"),
        ([[1.0]], [[0]], "two lists of the same length"),
        ([1.0, 2.0], [0, 3], "example 1 has class 3, but classes go from 0 to 2"),
        ([1.0, 2.0], [-2, 0], "example 0 has class -2"),
        ([1.0], [0.0], "classes must be integers, not float64"),
    ],
)
def test_classes_that_do_not_fit_are_refused(function, scores, classes, message):
    with pytest.raises(DataError, match=message):
        function(scores, classes, 3)


def test_statistics_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="one value for each class"):
        normalise([1.0], [0], [0.0], [1.0, 1.0])
    with pytest.raises(DataError, match="there are 1 classes"):
        normalise([1.0], [0], [0.0], [1.0], zero_spread=[True, False])
    with pytest.raises(DataError, match="example 0 has class 1"):
        normalise([1.0], [1], [0.0], [1.0])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(0, 200),
    n_classes=st.integers(1, 12),
    n_parts=st.integers(1, 5),
    offset=st.sampled_from([0.0, 1e6, -1e-6]),
)
def test_merged_parts_equal_the_whole(seed, n, n_classes, n_parts, offset):
    rng = np.random.default_rng(seed)
    scores, classes = rng.normal(size=n) + offset, rng.integers(-1, n_classes, size=n)
    cuts = np.sort(rng.integers(0, n + 1, size=n_parts - 1))
    parts = zip(np.split(scores, cuts), np.split(classes, cuts), strict=True)
    merged = merge_statistics(*(class_statistics(*part, n_classes) for part in parts))
    whole = class_statistics(scores, classes, n_classes)
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(merged.std, whole.std, rtol=1e-9, atol=1e-9 * abs(offset))
    for c in range(n_classes):
        members = scores[classes == c]
        expected = np.square(members - members.mean()).sum() if members.size else np.nan
        np.testing.assert_allclose(whole.m2[c], expected, rtol=1e-9, atol=1e-13)


def test_merging_keeps_equal_scores_without_spread_and_nan_where_it_was():
    part = class_statistics([0.1, 0.1, np.nan, np.inf], [0, 0, 1, 2], 4)
    other = class_statistics([0.1, 1.0, 2.0], [0, 1, 2], 4)
    merged = merge_statistics(part, other)
    assert merged.count.tolist() == [3, 2, 2, 0]
    assert merged.std[0] == 0.0
    assert merged.mean[0] == 0.1
    assert np.isnan(merged.std[1:]).all()
    assert part.count.tolist() == [2, 1, 1, 0]


def test_statistics_that_cannot_be_merged_are_refused():
    with pytest.raises(DataError, match="at least one part"):
        merge_statistics()
    with pytest.raises(DataError, match="of 1 and of 2 classes"):
        merge_statistics(class_statistics([1.0], [0], 1), class_statistics([1.0], [0], 2))
