"""Windows over the checkpoints: which there are, which are refused, and that each is scored as if it were alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vogcore
from vogcore.errors import SettingsError
from vogcore.scoring.moments import BlockMoments
from vogcore.scoring.stages import resolve_stages, segments

from .models import examples, mlps, two_pass

LABELS = np.arange(18) % 3


@pytest.mark.parametrize(
    ("count", "thirds"),
    [
        (2, None), (5, None), (6, ([0, 1], [2, 3], [4, 5])), (7, ([0, 1, 2], [3, 4], [5, 6])),
        (12, (range(4), range(4, 8), range(8, 12))),
    ],
)  # fmt: skip
def test_thirds_by_default_from_six_checkpoints_on(count, thirds):
    stages = resolve_stages(count, None)
    assert stages.pop("all").tolist() == list(range(count))
    assert [list(stage) for stage in stages.values()] == [list(third) for third in thirds or ()]
    assert list(stages) == (["early", "middle", "late"] if thirds else [])
    assert list(resolve_stages(count, {})) == ["all"]


@pytest.mark.parametrize(
    ("window", "indices"),
    [
        (slice(2, 5), [2, 3, 4]), (slice(None, None, 3), [0, 3, 6]), (slice(None, None, -2), [0, 2, 4, 6]),
        (slice(-3, None), [4, 5, 6]), ([6, 0, 3], [0, 3, 6]), (np.array([1, 1, 2], np.uint8), [1, 2]),
        (range(2), [0, 1]), ([-1, 0], [0, 6]),
    ],
)  # fmt: skip
def test_windows_are_slices_or_lists(window, indices):
    assert resolve_stages(7, {"w": window})["w"].tolist() == indices


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"all": slice(3)}, "cannot be named 'all'"), ({"": slice(3)}, "cannot be named ''"),
        ({"a/b": slice(3)}, "named 'a/b'"), ({" a": slice(3)}, "named ' a'"), ({"..": slice(3)}, "named '..'"),
        ({"a\0": slice(3)}, "cannot be named"), ({3: slice(3)}, "named 3"), ({"\ud800": slice(3)}, "cannot be named"),
        ({"w": [1]}, "has 1 of the 7"), ({"w": []}, "has 0 of the 7"), ({"w": slice(5, 5)}, "has 0"),
        ({"w": [2, 2]}, "has 1"), ({"w": [6, -1]}, "has 1"), ({"w": [0, 7]}, "names checkpoint 7, but there are 7"),
        ({"w": [0, -8]}, "names checkpoint -8"), ({"w": 3}, "must be a slice or a list"),
        ({"w": [0.0, 1.0]}, "must be a slice"), ({"w": [True, False]}, "must be a slice"),
        ({"w": "early"}, "must be a slice"), ({"w": [[0, 1]]}, "must be a slice"), ({"w": [[0], [1, 2]]}, "must be a"),
        ({"w": slice(0, 4, 0)}, "must be a slice"), ({"w": slice(0.0, 4.0)}, "must be a slice"),
        (["early"], "must map names"),
    ],
)  # fmt: skip
def test_windows_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(SettingsError, match=message):
        resolve_stages(7, stages)


OWN = {
    "overlapping": slice(1, 6),
    "first": slice(0, 3),
    "odd": slice(1, None, 2),
    "ends": [0, 7],
    "late": [5, 6, 7],
    "whole": slice(None),
}


@pytest.mark.parametrize("reduction", ["std", "var"])
def test_each_stage_is_what_its_checkpoints_alone_give(reduction):
    g = np.random.default_rng(0).standard_normal((8, 18, 5, 4)) + 3
    scores = vogcore.score_gradients(g, LABELS, stages=OWN, reduction=reduction, memory=2000)
    assert list(scores.stages) == ["all", *OWN]
    for name, window in OWN.items():
        alone = vogcore.score_gradients(g[window], LABELS, reduction=reduction, stages={})
        for score in ("vog_raw", "vog", "vog_relative", "mean_abs_gradient", "class_mean", "class_std"):
            np.testing.assert_allclose(getattr(scores.stage(name), score), getattr(alone.stage("all"), score), 1e-9)
        np.testing.assert_array_equal(scores.stage(name).checkpoints, np.arange(8)[window])
    with pytest.raises(SettingsError, match="no stage 'early'; these scores have all, overlapping, first"):
        scores.stage("early")


def test_each_stage_of_checkpoints_is_what_those_checkpoints_alone_give():
    models, (x, y) = mlps(8), examples(20)
    scores = vogcore.score(models, x, y, stages=OWN)
    for name, window in OWN.items():
        chosen = np.array(models, dtype=object)[window].tolist()
        alone = vogcore.score(chosen, x, y)
        np.testing.assert_allclose(scores.stage(name).vog_raw, alone.vog_raw, rtol=1e-9)


@st.composite
def windows(draw):
    count = draw(st.integers(2, 9))
    names = draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=4))
    index = st.integers(0, count - 1)
    chosen = {name: draw(st.lists(index, min_size=2, max_size=count, unique=True)) for name in names}
    return count, resolve_stages(count, chosen)


@given(windows())
@settings(max_examples=60, deadline=None)
def test_segments_cut_the_checkpoints_where_stages_begin_and_end(case):
    count, stages = case
    cut = segments(stages)
    assert [index for segment in cut for index in segment.checkpoints] == list(range(count))
    for segment in cut:
        for name, indices in stages.items():
            members = [index in indices for index in segment.checkpoints]
            assert all(members) if name in segment.stages else not any(members)
    assert all(left.stages != right.stages for left, right in itertools.pairwise(cut))


@given(windows(), st.integers(1, 6), st.sampled_from(["std", "var"]), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_moments_of_any_stages_are_those_of_two_passes(case, batch, reduction, seed):
    count, stages = case
    rng = np.random.default_rng(seed)
    capacity = 5
    moments = BlockMoments(stages, capacity, 7, channel_axis=1, channels="mean", reduction=reduction, dtype="float64")
    for size in (capacity, 3):  # the buffers of one block serve the next, which may be smaller
        g = rng.standard_normal((count, size, 2, 7)) * 10.0 ** rng.integers(-3, 3, (count, 1, 1, 1))
        moments.start(size)
        for checkpoint in range(count):
            for start in range(0, size, batch):
                moments.add(checkpoint, start, g[checkpoint, start : start + batch])
            moments.end(checkpoint)
        for name, result in moments.results().items():
            part = g[stages[name]]
            np.testing.assert_allclose(result.vog, two_pass(part, 1, reduction), rtol=1e-10)
            np.testing.assert_allclose(result.magnitude, np.abs(part.mean(2)).mean((0, 2)), rtol=1e-10)
    assert BlockMoments.sets(stages) <= 1 + len(stages)


def test_the_thirds_need_two_sets_of_moments():
    assert BlockMoments.sets(resolve_stages(9, None)) == 2
    assert BlockMoments.sets(resolve_stages(9, {})) == 1
