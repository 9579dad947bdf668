"""Score files of the shards of a data set, joined: the bits of one run over all of it, or a refusal that says why."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import vogcore
from vogcore.errors import DataError, SettingsError, StoreError, VogcoreWarning
from vogcore.scoring.merge import merge

from .models import examples, mlps

N, BATCH, CUTS = 40, 8, (0, 16, 24, 40)
IDS = np.array([f"example {i}" for i in range(N)])


@pytest.fixture(autouse=True)
def calm():
    """Parts of a data set warn of classes that the whole has no trouble with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VogcoreWarning)
        yield


def run(rows=slice(None), *, labels: bool = True, k: int = 6, **options) -> vogcore.Scores:
    x, y = examples(N)
    if "ids" in options:
        options["ids"] = options["ids"][rows]
    fixed = {"provider": "cpu", "threads": 1, "batch_size": BATCH}
    return vogcore.score(mlps(k), x[rows], y[rows] if labels else None, **(fixed | options))


def shards(**options) -> list[vogcore.Scores]:
    return [run(slice(first, last), **options) for first, last in itertools.pairwise(CUTS)]


def same(merged: vogcore.Scores, whole: vogcore.Scores) -> None:
    """Every array has the same bits, and every word is the same."""
    assert list(merged.stages) == list(whole.stages)
    for name, stage in whole.stages.items():
        for key in ("checkpoints", "vog_raw", "vog", "vog_relative", "mean_abs_gradient", "class_mean", "class_std"):
            np.testing.assert_array_equal(getattr(merged.stages[name], key), getattr(stage, key), err_msg=key)
        assert repr(merged.stages[name].directions) == repr(stage.directions)  # repr, since NaN is not equal to itself
        assert merged.stages[name].normalise == stage.normalise
    for key in ("labels", "ids", "class_count", "predictions_class", "predictions_label_probability"):
        one, other = getattr(merged, key), getattr(whole, key)
        assert (one is None) == (other is None), key
        if other is not None:
            np.testing.assert_array_equal(one, other, err_msg=key)
            assert one.dtype == other.dtype
    assert list(merged.companions) == list(whole.companions)
    for name, companion in whole.companions.items():
        np.testing.assert_array_equal(merged.companions[name].values, companion.values, err_msg=name)
        assert merged.companions[name].source == companion.source
    assert (merged.classes, merged.checkpoints, merged.warnings) == (whole.classes, whole.checkpoints, whole.warnings)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": "relative"},
        {"reduction": "var", "scale": "relative"},
        {"reduction": "var", "normalise": "robust"},
        {"normalise": "absolute"},
        {"normalise": "none"},
        {"target": "predicted"},
        {"target": "predicted", "labels": False},
        {"target": 1, "labels": False},
        {"ids": IDS},
        {"stages": {"ends": [0, 5], "first": slice(0, 2)}},
        {"k": 2},
    ],
    ids=str,
)
def test_shards_have_the_bits_of_one_run(options):
    same(merge(shards(**options)), run(**options))


def test_files_are_read_and_the_result_is_a_file_like_any_other(tmp_path):
    paths = [tmp_path / f"shard {i}.h5" for i in range(3)]
    for path, part in zip(paths, shards(), strict=True):
        part.save(path)
    merge(paths).save(tmp_path / "all.h5")
    read = vogcore.open_scores(tmp_path / "all.h5")
    same(read, run())
    assert read.settings["data"]["shape"] == [N, 12]
    assert read.settings["merged"]["order"] == "numbered"
    assert [entry["file"] for entry in read.settings["merged"]["files"]] == [path.name for path in paths]
    assert [entry["examples"] for entry in read.settings["merged"]["files"]] == [16, 8, 16]


def test_merging_in_steps_is_merging_at_once():
    parts = shards(ids=IDS)
    same(merge([merge(parts[:2]), parts[2]]), merge(parts))


def test_the_statistics_of_another_file_stay(tmp_path):
    train = tmp_path / "train.h5"
    run(out=train)
    same(merge(shards(statistics=train)), run(statistics=train))


def gradients(rows=slice(None), **options) -> vogcore.Scores:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, N, 5)).astype(np.float32)
    return vogcore.score_gradients(values[:, rows], **options)


def test_given_gradients_with_and_without_labels():
    cuts = list(itertools.pairwise(CUTS))
    same(merge([gradients(slice(*cut)) for cut in cuts]), gradients())
    y = np.arange(N) * 7 % 5
    y[:16] %= 3  # the first shard does not show all classes
    same(merge([gradients(slice(*cut), labels=y[slice(*cut)]) for cut in cuts]), gradients(labels=y))


def test_ids_that_are_positions_of_the_whole_bring_its_order():
    order = np.random.default_rng(1).permutation(N)
    x, y = examples(N)
    fixed = {"provider": "cpu", "threads": 1, "batch_size": 1}
    parts = [
        vogcore.score(mlps(6), x[rows], y[rows], ids=rows.astype(np.int64), **fixed)
        for rows in np.split(order, CUTS[1:-1])
    ]
    merged = merge(parts)
    assert merged.settings["merged"]["order"] == "id"
    same(merged, vogcore.score(mlps(6), x, y, **fixed))
    given = merge(parts, order="given")
    np.testing.assert_array_equal(given.ids, order)
    np.testing.assert_array_equal(given.vog_raw, merged.vog_raw[order])


def test_text_ids_keep_the_order_given_unless_asked():
    parts = shards(ids=IDS)
    np.testing.assert_array_equal(merge(parts[::-1]).ids, np.concatenate([IDS[24:], IDS[16:24], IDS[:16]]))
    np.testing.assert_array_equal(merge(parts[::-1], order="id").ids, np.sort(IDS))


def test_maps_go_with_their_examples():
    parts = shards(ids=np.arange(N), maps=[1, 3])
    merged = merge(parts[::-1])  # by id, since the ids are positions
    np.testing.assert_array_equal(np.sort(merged.maps.index), [1, 3, 17, 19, 25, 27])
    whole = run(maps=[1, 3, 17, 19, 25, 27])
    for position in whole.maps.index:
        np.testing.assert_array_equal(merged.maps.of(position), whole.maps.of(position))
    assert merged.settings["maps"] == {"positions": 6}
    some = merge([*shards(ids=np.arange(N))[:2], parts[2]])
    np.testing.assert_array_equal(some.maps.index, [25, 27])


def test_warnings_about_the_files_are_kept_and_those_about_classes_are_judged_anew():
    one, two = run(slice(0, 4)), run(slice(4, 40))
    assert any("one example only" in note for note in one.warnings)
    one.warnings.append("Something about this shard.")
    for part in (one, two):
        part.warnings.append("Something about the run.")
    assert merge([one, two]).warnings == ["file 0: Something about this shard.", "Something about the run."]


def test_other_versions_and_hardware_are_noted():
    one, two, three = shards()
    two.settings["versions"] = {**two.settings["versions"], "numpy": "1.26.0"}
    three.settings["device"] = "cuda:0 (some GPU)"
    notes = " ".join(merge([one, two, three]).warnings)
    assert "different versions of numpy" in notes
    assert "1.26.0 in file 1" in notes
    assert "different hardware (device: cpu in file 0, cuda:0 (some GPU) in file 2)" in notes


def test_doubled_ids_are_refused():
    one, two, three = shards(ids=IDS)
    with pytest.raises(DataError, match=r"Example example 0 is in file 0 and in file 2 \(16 ids occur twice\)"):
        merge([one, two, one])
    with pytest.raises(DataError, match="file 0 and file 1 are scores of the same examples"):
        merge([run(), run()])
    with pytest.raises(DataError, match="file 0 and file 1 are scores of the same examples"):
        merge([gradients(), gradients()])
    with pytest.raises(DataError, match="numbers as ids and others text"):
        merge([run(slice(0, 8)), three])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reduction": "var"}, "reduction is 'var' and not 'std'"),
        ({"of": "loss"}, "of is 'loss' and not 'logit'"),
        ({"normalise": "robust"}, "normalise is 'robust' and not 'class'"),
        ({"k": 5}, "it has 5 checkpoints and not 6"),
        ({"stages": {"own": [0, 1]}}, "the stages are all, own and not all, early, middle, late"),
        ({"class_names": ["a", "b", "c"]}, "the classes are 'a', 'b', 'c' and not '0', '1', '2'"),
    ],
    ids=str,
)
def test_runs_that_differ_are_refused_by_name(options, words):
    with pytest.raises(SettingsError, match=words) as caught:
        merge([run(slice(0, 16)), run(slice(16, 40), **options)])
    assert str(caught.value).startswith("file 1 cannot be merged with file 0: ")


def test_other_weights_are_refused():
    x, y = examples(N)
    other = vogcore.score(mlps(6, seed=9), x[16:], y[16:], provider="cpu", threads=1)
    with pytest.raises(SettingsError, match="checkpoint 0 has other weights than checkpoint 0"):
        merge([run(slice(0, 16)), other])


def test_what_cannot_be_merged_at_all():
    part = run(slice(0, 16))
    with pytest.raises(SettingsError, match="at least two"):
        merge([part])
    with pytest.raises(SettingsError, match="order='size' is not known"):
        merge([part, part], order="size")
    bare = run(slice(16, 40))
    bare.stages["all"].mean_abs_gradient = None
    with pytest.raises(SettingsError, match="file 1 has no mean absolute gradient"):
        merge([part, bare])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data", {"shape": 5}), ("data", {"shape": []}), ("eps", "x"), ("eps", -1.0), ("target_checkpoint", 99),
        ("target_checkpoint", "x"), ("versions", [1]), ("scale", ["none"]),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_somebody_has_changed_are_refused(key, value):
    parts = [run(slice(0, 16)), run(slice(16, 40))]
    for part in parts:
        part.settings[key] = value
    with pytest.raises(StoreError, match=f"file 0 is damaged: its setting {key} is impossible"):
        merge(parts)
