"""Scores in memory and back from a file."""

from __future__ import annotations

import builtins
import math
import tempfile
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import SettingsError, StoreError, VogcoreError
from vogcore.store import CheckpointInfo, Companion, Direction, Scores, StageScores, open_scores

NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)
DIRECTIONS = st.builds(
    Direction,
    claimed=st.sampled_from(["higher is harder", "lower is harder"]),
    measured=st.sampled_from(["higher is harder", "lower is harder", "undetermined", "not measured"]),
    spearman_loss=FLOATS,
    spearman_low=FLOATS,
    spearman_high=FLOATS,
    auroc_errors=FLOATS,
    n_errors=st.integers(0, 2**40),
    n_examples=st.integers(0, 2**40),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def score_sets(draw: st.DrawFn) -> Scores:
    n, k, c = draw(st.integers(1, 7)), draw(st.integers(1, 5)), draw(st.integers(0, 4))

    def floats(length: int) -> np.ndarray:
        return draw(hnp.arrays(np.float64, length, elements=FLOATS))

    def optional(strategy: st.SearchStrategy) -> object:
        return draw(st.none() | strategy)

    def stage(name: str) -> StageScores:
        window = draw(st.lists(st.integers(0, k - 1), unique=True, max_size=k).map(sorted))
        relative = optional(hnp.arrays(np.float64, n, elements=FLOATS))
        scores = ["vog", "vog_raw"] + (["vog_relative"] if relative is not None else [])
        return StageScores(
            name=name,
            checkpoints=np.array(window, dtype=np.int64),
            vog_raw=floats(n),
            vog=floats(n),
            vog_relative=relative,
            mean_abs_gradient=optional(hnp.arrays(np.float64, n, elements=FLOATS)),
            class_mean=floats(c),
            class_std=floats(c),
            normalise=draw(st.sampled_from(["class", "none", "absolute"])),
            directions={score: draw(DIRECTIONS) for score in scores},
        )

    text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)
    ids = draw(hnp.arrays(np.int64, n) | st.lists(text, min_size=n, max_size=n).map(lambda v: np.array(v, dtype=str)))
    counts = st.none() | st.integers(0, 2**40)
    infos = st.lists(st.builds(CheckpointInfo, text, counts, counts, text), min_size=k, max_size=k)
    kinds = st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_])
    companion = st.builds(Companion, kinds.flatmap(lambda kind: hnp.arrays(kind, n)), text, text, text)
    return Scores(
        stages={name: stage(name) for name in ["all", *draw(st.lists(NAMES, max_size=2, unique=True))]},
        labels=draw(hnp.arrays(np.int64, n, elements=st.integers(-1, c - 1))),
        ids=ids,
        classes=draw(st.lists(text, min_size=c, max_size=c)),
        class_count=draw(hnp.arrays(np.int64, c)),
        checkpoints=draw(infos),
        settings=draw(st.dictionaries(st.text(max_size=5), JSON, max_size=3)),
        companions=draw(st.dictionaries(NAMES, companion, max_size=2)),
        predictions_class=optional(hnp.arrays(np.int32, (k, n))),
        predictions_label_probability=optional(hnp.arrays(np.float32, (k, n))),
        warnings=draw(st.lists(st.text(), max_size=2)),
        timings=draw(st.dictionaries(st.text(max_size=5), st.floats(0, 1e6), max_size=2)),
        created=draw(text),
        vogcore_version=draw(text),
    )


@settings(max_examples=60, deadline=None)
@given(scores=score_sets())
def test_what_is_saved_is_what_is_read(assert_equal, scores):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.h5"
        scores.save(path)
        assert [entry.name for entry in Path(folder).iterdir()] == ["scores.h5"]
        back = open_scores(path)
    assert_equal(back, scores)
    assert back.path == str(path) == scores.path


def test_settings_of_other_types_become_what_json_can_hold(make_scores, tmp_path):
    odd = {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": (1, 2), "e": math.nan, 3: {"f": np.int64(4)}}
    make_scores(settings=odd).save(tmp_path / "s.h5")
    expected = {"a": 0.5, "b": [0, 1], "c": "x", "d": [1, 2], "e": None, "3": {"f": 4}}
    assert open_scores(tmp_path / "s.h5").settings == expected


def test_large_settings_and_thousands_of_checkpoints_fit(make_scores, assert_equal, tmp_path):
    scores = make_scores(n=2, k=10_000, settings={"fingerprints": ["f" * 64] * 10_000})
    scores.save(tmp_path / "s.h5")
    assert_equal(open_scores(tmp_path / "s.h5"), scores)


def test_hardest_goes_by_the_measured_direction_and_else_by_the_claimed_one(make_scores):
    scores = make_scores(n=4)
    stage = scores.stages["all"]
    stage.vog[:] = [0.5, 2.0, -1.0, 1.0]
    for claimed, measured, expected in [
        ("higher is harder", "lower is harder", [2, 0, 3, 1]),
        ("higher is harder", "undetermined", [1, 3, 0, 2]),
        ("lower is harder", "not measured", [2, 0, 3, 1]),
        ("lower is harder", "higher is harder", [1, 3, 0, 2]),
    ]:
        stage.directions["vog"] = Direction(claimed=claimed, measured=measured)
        assert scores.hardest(10).tolist() == expected
        assert scores.easiest(3).tolist() == expected[::-1][:3]
    assert scores.hardest(0).tolist() == []
    assert scores.hardest(2).dtype == np.int64


def test_ties_keep_the_order_of_the_data_and_nan_comes_last(make_scores):
    scores = make_scores(n=5)
    scores.stages["all"].vog[:] = [1.0, math.nan, 2.0, 1.0, 2.0]
    scores.stages["all"].directions["vog"] = Direction()
    assert scores.hardest(5).tolist() == [2, 4, 0, 3, 1]
    assert scores.easiest(5).tolist() == [0, 3, 2, 4, 1]


def test_hardest_of_each_class_and_of_a_stage(make_scores):
    scores = make_scores(n=6, labels=np.array([0, 1, 0, 1, 0, -1]), class_count=np.array([3, 2, 0]))
    late = scores.stage("late")
    late.vog[:] = [1, 2, 3, 4, 5, 6]
    late.directions["vog"] = Direction(measured="higher is harder")
    found = scores.hardest(2, per_class=True, stage="late")
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "class 0": [4, 2],
        "class 1": [3, 1],
        "class 2": [],
    }
    assert scores.easiest(1, per_class=True, stage="late")["class 1"].tolist() == [1]


def test_every_score_has_its_own_hard_end(make_scores):
    scores = make_scores(n=3)
    stage = scores.stages["all"]
    stage.vog[:], stage.vog_raw[:] = [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]
    stage.directions["vog"] = Direction(measured="lower is harder")
    stage.directions["vog_raw"] = Direction(measured="higher is harder")
    assert scores.hardest(3).tolist() == [0, 1, 2]
    assert scores.hardest(3, score="vog_raw").tolist() == [0, 2, 1]
    assert scores.easiest(1, score="vog_raw").tolist() == [1]
    stage.vog_relative = None
    with pytest.raises(SettingsError, match="Stage 'all' has no vog_relative"):
        scores.hardest(1, score="vog_relative")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.stage("latest"), "no stage 'latest'; these scores have all, late"),
        (lambda s: s.hardest(1, stage="x"), "no stage 'x'"),
        (lambda s: s.hardest(-1), "0 or more, not -1"),
        (lambda s: s.stage("all").direction("loss"), "choose one of vog, vog_raw, vog_relative"),
        (lambda s: Direction(claimed="undetermined"), "not 'undetermined'"),
        (lambda s: Direction(measured="up"), "not 'up'"),
        (lambda s: CheckpointInfo("c", step=-1), "step of checkpoint 'c' must be 0 or more"),
        (lambda s: Scores({}, s.labels, s.ids, [], s.class_count, [], {}), 'need the stage "all"'),
    ],
)
def test_senseless_requests_are_refused(make_scores, call, message):
    with pytest.raises(SettingsError, match=message):
        call(make_scores())


def test_per_class_needs_labels_and_distinct_class_names(make_scores):
    with pytest.raises(SettingsError, match="no labels"):
        make_scores(labels=np.full(6, -1)).hardest(1, per_class=True)
    with pytest.raises(SettingsError, match="same name"):
        make_scores(labels=np.zeros(6, int), classes=["a", "a", "b"]).hardest(1, per_class=True)


def test_directions_that_contradict():
    assert Direction(measured="lower is harder").contradicts
    assert not Direction(measured="higher is harder").contradicts
    assert not Direction(claimed="lower is harder", measured="undetermined").contradicts
    assert not Direction(claimed="lower is harder").contradicts


def test_table(make_scores):
    pytest.importorskip("pandas")
    scores = make_scores(labels=np.array([0, 1, 2, 0, 1, -1]))
    scores.stages["late"].vog_relative = None
    scores.companions["label"] = Companion(np.arange(6), "", "", "")
    table = scores.to_pandas()
    assert list(table.columns) == [
        "id", "label", "class", "vog", "vog_raw", "vog_relative", "late_vog", "late_vog_raw", "predicted_class",
        "loss", "companion_label",
    ]  # fmt: skip
    assert table.index.name == "position"
    assert table["class"].tolist()[:5] == ["class 0", "class 1", "class 2", "class 0", "class 1"]
    assert table["class"].isna().tolist() == [False] * 5 + [True]
    assert table["predicted_class"].tolist() == [f"class {i}" for i in scores.predictions_class[-1]]
    np.testing.assert_array_equal(table["late_vog"], scores.stage("late").vog)


def test_table_without_pandas_names_the_extra(make_scores, monkeypatch):
    real = builtins.__import__

    def without_pandas(name, *arguments, **options):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(VogcoreError, match=r"vogcore\[pandas\]"):
        make_scores().to_pandas()


def test_repr_and_shortcuts(make_scores):
    scores = make_scores()
    assert repr(scores) == (
        "Scores(6 examples, 6 checkpoints, 3 classes, stages all, late; "
        "claimed higher is harder, measured lower is harder)"
    )
    assert len(scores) == 6
    assert scores.vog is scores.stage("all").vog
    assert scores.vog_raw is scores.stage("all").vog_raw
    assert scores.direction == scores.stage("all").directions["vog"]
    assert StageScores.direction(scores.stage("late"), "vog_raw") == Direction()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1, 3, 0, 0, 0])}, "outside of -1 to 2"),
        ({"labels": np.zeros(6)}, "examples/label: its type is float64"),
        ({"ids": np.arange(5)}, r"examples/id: its shape is \(5,\), not \(6,\)"),
        ({"ids": np.arange(6) / 2}, "ids must be int64 or str"),
        ({"ids": np.array(["a\0b"] * 6)}, "NUL"),
        ({"ids": np.array(["\udc80"] * 6)}, "not valid Unicode"),
        ({"class_count": np.zeros(2, int)}, "classes/count"),
        ({"predictions_class": np.zeros((5, 6), int)}, r"predictions/class: its shape is \(5, 6\), not \(6, 6\)"),
        ({"companions": {"a/b": Companion(np.zeros(6), "", "", "")}}, "hold a slash"),
        ({"companions": {"a": Companion(np.zeros(5), "", "", "")}}, "companions/a"),
        ({"companions": {"a": Companion(np.array(["x"] * 6), "", "", "")}}, "not a number"),
    ],
)
def test_arrays_that_do_not_fit_are_not_saved(make_scores, tmp_path, changes, message):
    with pytest.raises(StoreError, match=message):
        make_scores(**changes).save(tmp_path / "s.h5")
    assert list(tmp_path.iterdir()) == []


def test_stages_that_do_not_fit_are_not_saved(make_scores, tmp_path):
    scores = make_scores()
    scores.stages["late"].checkpoints = np.array([6])
    with pytest.raises(StoreError, match="scores/late: a checkpoint is outside of 0 to 5"):
        scores.save(tmp_path / "s.h5")
    scores = make_scores()
    scores.stages["late"].class_std = np.zeros(2)
    with pytest.raises(StoreError, match="scores/late/class_std"):
        scores.save(tmp_path / "s.h5")
