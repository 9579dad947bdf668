"""Scores in the form of other tools."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from torch.utils.data import WeightedRandomSampler

from vogcore.errors import DataError, SettingsError, VogcoreError, VogcoreWarning
from vogcore_adapters import fiftyone, results

VALUES = st.lists(
    st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1.0, float("nan")])), min_size=1, max_size=40
)  # fmt: skip
FUNCTIONS = {
    "hard_score": results.hard_score,
    "columns_of": results.columns_of,
    "issues": results.issues,
    "sampler_weights": results.sampler_weights,
    "curriculum": results.curriculum,
    "keep_mask": lambda scores, **options: results.keep_mask(scores, 0.5, drop="easy", **options),
    "fiftyone": lambda scores, **options: fiftyone.set_scores(Samples(len(scores)), scores, **options),
}


class Samples:
    """The part of a FiftyOne data set that is used."""

    def __init__(self, n, **fields):
        self.fields, self.n = fields, n

    def __len__(self):
        return self.n

    def values(self, field):
        return self.fields[field]

    def set_values(self, field, values):
        assert len(values) == self.n
        self.fields[field] = values


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("measured", ["undetermined", "not measured"])
def test_an_unknown_direction_must_be_chosen(scores, name: str, measured: str) -> None:
    made = scores(9, measured=measured)
    with pytest.raises(
        SettingsError, match=f"direction of vog .stage all. is {measured} on this run, so say with hard="
    ):
        FUNCTIONS[name](made)
    FUNCTIONS[name](made, hard="high")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_names_that_do_not_exist(scores, name: str) -> None:
    made = scores(9, measured="higher is harder")
    for options, message in (
        ({"stage": "dawn"}, "There is no stage 'dawn'"),
        ({"score": "loss"}, "There is no score 'loss'"),
        ({"score": "vog_relative"}, "has no vog_relative"),
        ({"hard": "up"}, "hard='up' is unknown: give 'high' or 'low'"),
    ):
        with pytest.raises(SettingsError, match=message):
            FUNCTIONS[name](made, **options)


@settings(max_examples=80, deadline=None)
@given(VALUES, st.sampled_from(["higher is harder", "lower is harder"]))
def test_the_hard_score_is_a_rank_from_the_measured_hard_end(scores, values, measured) -> None:
    values = np.array(values)
    got = results.hard_score(scores(len(values), measured, values=values))
    known = ~np.isnan(values)
    np.testing.assert_array_equal(np.isnan(got), ~known)
    turned = -values[known] if measured == "higher is harder" else values[known]
    if known.any():
        np.testing.assert_allclose(got[known], (rankdata(turned) - 0.5) / known.sum(), rtol=1e-12)
        assert got[known].min() > 0
        assert got[known].max() < 1


def test_a_choice_beats_the_measurement(scores) -> None:
    made = scores(4, "higher is harder")
    assert results.hard_score(made).tolist() == [0.875, 0.625, 0.375, 0.125]
    assert results.hard_score(made, hard="low").tolist() == [0.125, 0.375, 0.625, 0.875]


def test_the_table_of_issues(scores) -> None:
    values = np.arange(20.0)
    values[19] = np.nan
    table = results.issues(scores(20, "higher is harder", values=values), fraction=0.1)
    assert list(table.columns) == ["is_hard_issue", "hard_score", "id", "label", "vog", "vog_raw"]
    assert table.index.name == "position"
    assert table.index[table["is_hard_issue"]].tolist() == [17, 18]
    assert table["is_hard_issue"].dtype == bool
    assert table["hard_score"].isna().sum() == 1
    assert table["id"].tolist() == [i * 10 for i in range(20)]
    with pytest.raises(SettingsError, match="fraction=5 is not possible"):
        results.issues(scores(20, "higher is harder"), fraction=5)


def test_pandas_missing(scores, without) -> None:
    without("pandas")
    with pytest.raises(VogcoreError, match=r"A table of issues needs pandas.*pip install 'vogcore\[pandas\]'"):
        results.issues(scores(3, "higher is harder"))


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from(["hard", "easy"]), st.sampled_from([0.0, 0.5, 1.0, 3.0, 1000.0]))
def test_sampler_weights(scores, values, prefer, power) -> None:
    values = np.array(values)
    weights = results.sampler_weights(scores(len(values), "lower is harder", values=values), prefer=prefer, power=power)
    known = ~np.isnan(values)
    assert (weights > 0).all()
    assert (weights[~known] == 1).all()
    if known.any():
        assert weights[known].mean() == pytest.approx(1)
        order = np.argsort(values[known])
        steps = np.diff(weights[known][order]) * (1 if prefer == "easy" else -1)
        assert (steps >= 0).all()
        if power == 0:
            np.testing.assert_allclose(weights, 1)
        if power == 1:
            turned = values[known] if prefer == "easy" else -values[known]
            np.testing.assert_allclose(weights[known], (rankdata(turned) - 0.5) / (known.sum() / 2), rtol=1e-9)


def test_torch_draws_hard_examples_more_often(scores) -> None:
    weights = results.sampler_weights(scores(10, "higher is harder"))
    sampler = WeightedRandomSampler(weights, 20_000, generator=torch.Generator().manual_seed(0))
    drawn = np.bincount(list(sampler), minlength=10) / 20_000
    np.testing.assert_allclose(drawn, weights / weights.sum(), atol=0.012)
    for options, message in (
        ({"prefer": "both"}, "prefer='both'"),
        ({"power": -1}, "power=-1"),
        ({"power": np.inf}, "inf"),
    ):
        with pytest.raises(SettingsError, match=message):
            results.sampler_weights(scores(10, "higher is harder"), **options)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.booleans(), st.sampled_from(["higher is harder", "lower is harder"]))
def test_a_curriculum_goes_from_easy_to_hard(scores, values, hardest_first, measured) -> None:
    values = np.array(values)
    order = results.curriculum(scores(len(values), measured, values=values), hardest_first=hardest_first)
    assert sorted(order.tolist()) == list(range(len(values)))
    known = int((~np.isnan(values)).sum())
    assert np.isnan(values[order[known:]]).all()
    hardness = values[order[:known]] * (1 if measured == "higher is harder" else -1) * (-1 if hardest_first else 1)
    assert (np.diff(hardness) >= 0).all()
    ties = np.flatnonzero(np.diff(hardness) == 0)
    assert (order[ties] < order[ties + 1]).all()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_pruning_mask_keeps_a_fraction_of_each_class(scores, data) -> None:
    values = np.array(data.draw(VALUES))
    n = len(values)
    labels = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)))
    keep, drop = data.draw(st.floats(0, 1)), data.draw(st.sampled_from(["hard", "easy"]))
    per_class = data.draw(st.booleans())
    made = scores(n, "higher is harder", values=values, labels=labels)
    groups = labels if per_class else np.zeros(n, int)
    expected = {group: int(np.floor(keep * (groups == group).sum() + 0.5)) for group in set(groups.tolist())}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = results.keep_mask(made, keep, drop=drop, per_class=per_class)
    for group, count in expected.items():
        members = groups == group
        assert mask[members].sum() == count
        kept, gone = values[members & mask], values[members & ~mask]
        if np.isnan(gone).any():
            assert np.isnan(kept).all()  # those without a score go last
        known = kept[~np.isnan(kept)]
        if len(known) and len(gone):
            assert known.max() <= gone.min() if drop == "hard" else known.min() >= gone.max()
    emptied = set(labels[labels >= 0].tolist()) - set(labels[mask].tolist())
    assert len(caught) == (1 if emptied else 0)


def test_a_class_that_pruning_empties_is_named(scores) -> None:
    made = scores(5, "higher is harder", labels=np.array([0, 0, 0, 0, 2]))
    with pytest.warns(VogcoreWarning, match="Pruning to 0.3 keeps no example of c: keep more of them"):
        mask = results.keep_mask(made, 0.3, drop="easy")
    assert mask.tolist() == [False, False, False, True, False]
    for options, message in (({"keep": 1.5}, "keep=1.5 is not"), ({"keep": 0.5, "drop": "all"}, "drop='all'")):
        with pytest.raises(SettingsError, match=message):
            results.keep_mask(made, **({"drop": "easy"} | options))


def test_fiftyone_fields(scores) -> None:
    values = np.array([3.0, 1.0, np.nan])
    made = scores(3, "lower is harder", values=values, ids=np.array(["a/1.png", "b/2.png", "b/3.png"]))
    samples = Samples(3)
    assert fiftyone.set_scores(samples, made, prefix="vc_") == [
        "vc_vog",
        "vc_vog_raw",
        "vc_hard_score",
        "vc_is_hard_issue",
    ]
    assert samples.fields["vc_vog"] == [3.0, 1.0, None]
    assert samples.fields["vc_hard_score"] == [0.75, 0.25, None]
    assert [type(flag) for flag in samples.fields["vc_is_hard_issue"]] == [bool] * 3
    paths = Samples(4, filepath=["/data/b/2.png", "/data/other.png", "/data/a/1.png", "/data/b/3.png"])
    fiftyone.set_scores(paths, made, key_field="filepath", root="/data/x/..", fraction=0.3)
    assert paths.fields["vog"] == [1.0, None, 3.0, None]
    assert paths.fields["is_hard_issue"] == [True, None, False, False]
    with pytest.raises(DataError, match="There are 4 samples and 3 scores: pass key_field"):
        fiftyone.set_scores(paths, made)
    with pytest.raises(DataError, match=r"No sample has an id of the scores in its field 'filepath' .*'a/1\.png'"):
        fiftyone.set_scores(paths, made, key_field="filepath")
    with pytest.raises(SettingsError, match="root has a meaning with key_field only"):
        fiftyone.set_scores(paths, made, root="/data")
    with pytest.raises(DataError, match="samples is a list: pass a FiftyOne data set"):
        fiftyone.set_scores([], made)
