"""A test set against the class statistics of its training set, and everything that must not be compared."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import vogcore
from vogcore.errors import SettingsError, StoreError, VogcoreWarning

from .models import examples, mlps, save

LABELS = np.arange(30) % 3


def gradients(seed: int, n: int = 30, k: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((k, n, 5)) * rng.uniform(0.5, 2, (1, n, 1))


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.h5"
    return vogcore.score_gradients(gradients(0), LABELS, out=path), path


@pytest.mark.parametrize("normalise", ["class", "absolute"])
def test_scores_against_the_training_set(train, normalise):
    scores, path = train
    labels = LABELS[:20][::-1].copy()
    test = vogcore.score_gradients(gradients(1, 20), labels, statistics=path, normalise=normalise)
    for name, stage in test.stages.items():
        mean, std = scores.stage(name).class_mean, scores.stage(name).class_std
        want = (stage.vog_raw - mean[labels]) / std[labels]
        np.testing.assert_allclose(stage.vog, np.abs(want) if normalise == "absolute" else want, rtol=1e-12)
        np.testing.assert_array_equal(stage.class_mean, mean)
        np.testing.assert_array_equal(stage.class_std, std)
    np.testing.assert_array_equal(test.class_count, np.bincount(labels, minlength=3))
    assert test.settings["statistics"] == str(path)
    again = vogcore.score_gradients(gradients(0), LABELS, statistics=path)
    np.testing.assert_array_equal(again.vog, scores.vog)


def test_robust_statistics_go_with_robust_ones_only(tmp_path, train):
    _, path = train
    robust = tmp_path / "robust.h5"
    scores = vogcore.score_gradients(gradients(0), LABELS, normalise="robust", out=robust)
    again = vogcore.score_gradients(gradients(0), LABELS, normalise="robust", statistics=robust)
    np.testing.assert_array_equal(again.vog, scores.vog)
    for normalise, file in (("class", robust), ("absolute", robust), ("robust", path)):
        with pytest.raises(SettingsError, match=r"made with normalise=.*; one of them is the median"):
            vogcore.score_gradients(gradients(0), LABELS, normalise=normalise, statistics=file)


def test_labels_that_lack_the_last_classes_use_those_of_the_file(train):
    scores, path = train
    labels = np.zeros(10, int)
    test = vogcore.score_gradients(gradients(1, 10), labels, statistics=path)
    assert test.classes == ["0", "1", "2"]
    np.testing.assert_allclose(
        test.vog, (test.vog_raw - scores.stage("all").class_mean[0]) / scores.stage("all").class_std[0]
    )


def test_class_names_are_the_files_where_none_are_given(tmp_path):
    path = tmp_path / "named.h5"
    vogcore.score_gradients(gradients(0), LABELS, class_names=["a", "b", "c"], out=path)
    assert vogcore.score_gradients(gradients(1), LABELS, statistics=path).classes == ["a", "b", "c"]
    with pytest.raises(SettingsError, match="call class 0 'a', but this run calls it 'b'"):
        vogcore.score_gradients(gradients(1), LABELS, statistics=path, class_names=["b", "a", "c"])
    unnamed = tmp_path / "unnamed.h5"
    vogcore.score_gradients(gradients(0), LABELS, out=unnamed)
    test = vogcore.score_gradients(gradients(1), LABELS, statistics=unnamed, class_names=["a", "b", "c"])
    assert test.classes == ["a", "b", "c"]


class Never:
    def start(self, total, text):
        raise AssertionError("the run began")

    advance = close = start


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"channels": "l2"}, "made with channels='mean', but this run has 'l2'"),
        ({"reduction": "var"}, "made with reduction='std'"),
        ({"scale": "relative"}, "made with scale='none'"),
        ({"stages": {"half": slice(3)}}, "have no stage 'half'"),
        ({"stages": {"early": slice(3)}}, "have other checkpoints in stage 'early'"),
        ({"labels": np.arange(30) % 4}, "are for 3 classes, but this run has 4"),
        ({"class_names": ["0", "1", "2", "3"]}, "are for 3 classes, but this run has 4"),
        ({"labels": LABELS % 2, "class_names": ["0", "1"]}, "are for 3 classes, but this run has 2"),
        ({"k": 5, "stages": {}}, "are over 6 checkpoints, but this run has 5"),
    ],
)
def test_statistics_of_another_kind_are_refused_before_the_run(train, given, message):
    _, path = train
    given = dict(given)
    k, labels = given.pop("k", 6), given.pop("labels", LABELS)
    with pytest.raises(SettingsError, match=message) as caught:
        vogcore.score_gradients(gradients(1, k=k), labels, statistics=path, progress=Never(), **given)
    assert str(path) in str(caught.value)


def test_a_class_without_statistics_is_refused(tmp_path):
    path = tmp_path / "s.h5"
    vogcore.score_gradients(gradients(0), LABELS % 2, class_names=["a", "b", "c"], out=path)
    with pytest.raises(SettingsError, match="have no example of class 'c'"):
        vogcore.score_gradients(gradients(1), LABELS, statistics=path, progress=Never())


def test_files_that_are_none_are_refused_before_the_run(tmp_path):
    (tmp_path / "text.h5").write_text("no")
    for name in ("missing.h5", "text.h5"):
        with pytest.raises(StoreError, match=name):
            vogcore.score_gradients(gradients(0), LABELS, statistics=tmp_path / name, progress=Never())


def test_classes_without_spread_in_the_file_are_pointed_out(tmp_path):
    g = gradients(0)
    g[:, LABELS == 1] = g[:, 1:2]
    path = tmp_path / "s.h5"
    with pytest.warns(VogcoreWarning, match="Class '1' has no spread"):
        vogcore.score_gradients(g, LABELS, stages={}, out=path)
    with pytest.warns(VogcoreWarning, match="Class '1' has no spread of raw scores in the stored statistics, so"):
        test = vogcore.score_gradients(gradients(1), LABELS, stages={}, statistics=path)
    assert (test.vog[LABELS == 1] == 0).all()
    assert np.isfinite(test.vog).all()


# ------------------------------------------------------------------------------------------------- from checkpoints


def test_a_test_set_against_its_training_set(tmp_path):
    paths = save(mlps(3), tmp_path)
    x, y = examples(40)
    other_x, other_y = examples(15, seed=9)
    train = vogcore.score(paths, x, y, out=tmp_path / "train.h5")
    test = vogcore.score(paths, other_x, other_y, statistics=tmp_path / "train.h5")
    stage = train.stage("all")
    np.testing.assert_allclose(test.vog, (test.vog_raw - stage.class_mean[other_y]) / stage.class_std[other_y], 1e-12)
    predicted = vogcore.score(paths, other_x, target="predicted", statistics=tmp_path / "train.h5")
    classes = predicted.predictions_class[-1]
    np.testing.assert_allclose(
        predicted.vog, (predicted.vog_raw - stage.class_mean[classes]) / stage.class_std[classes], 1e-12
    )
    for given, message in (
        ({"of": "loss"}, "made with of='logit', but this run has 'loss'"),
        ({"target": 1}, "made with target='label', but this run has 1"),
        ({"wrt": "a"}, "made with wrt=None, but this run has 'a'"),
        ({"class_names": ["a", "b", "c"]}, None),
    ):
        if message is None:
            vogcore.score(paths, other_x, other_y, statistics=tmp_path / "train.h5", **given)
            continue
        with pytest.raises(SettingsError, match=message):
            vogcore.score(paths, other_x, other_y, statistics=tmp_path / "train.h5", progress=Never(), **given)
    with pytest.raises(SettingsError, match=r"other weights in checkpoint ckpt-1.onnx than those of checkpoint 0"):
        vogcore.score(mlps(3, seed=4), other_x, other_y, statistics=tmp_path / "train.h5", progress=Never())


def test_statistics_of_predicted_classes_can_turn_out_to_be_missing(tmp_path):
    models, (x, _) = mlps(3), examples(60)
    classes = vogcore.score(models, x, target="predicted").predictions_class[-1]
    present = np.flatnonzero(classes != 2)
    vogcore.score(models, x[present], target="predicted", out=tmp_path / "s.h5")
    with pytest.raises(SettingsError, match="have no example of class '2'"):
        vogcore.score(models, x, target="predicted", statistics=tmp_path / "s.h5", out=tmp_path / "t.h5")
    assert not (tmp_path / "t.h5").exists()


def test_gradients_of_unknown_making_are_compared_where_something_is_known(tmp_path):
    """An archive says how it was made, an array does not."""
    models, (x, y) = mlps(3), examples(30)
    vogcore.score(models, x, y, of="loss", out=tmp_path / "s.h5", keep_gradients=tmp_path / "g.h5")
    again = vogcore.score_gradients(tmp_path / "g.h5", statistics=tmp_path / "s.h5")
    np.testing.assert_array_equal(again.vog, vogcore.open_scores(tmp_path / "s.h5").vog)
    with h5py.File(tmp_path / "g.h5") as file:
        array = file["gradients"][:]
    np.testing.assert_array_equal(vogcore.score_gradients(array, y, statistics=tmp_path / "s.h5").vog, again.vog)
    vogcore.score(models, x, y, out=tmp_path / "logit.h5")
    with pytest.raises(SettingsError, match="made with of='logit', but this run has 'loss'"):
        vogcore.score_gradients(tmp_path / "g.h5", statistics=tmp_path / "logit.h5")
