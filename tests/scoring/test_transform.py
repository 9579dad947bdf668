"""The transform of training is passed to score, as it is to open_source."""

import json

import numpy as np
import pytest

import vogcore
from vogcore.data import Preprocess, open_source
from vogcore.errors import DataError, OutputExistsError, SettingsError

from . import models, stopping

X = np.random.default_rng(3).integers(0, 9, (40, 2, models.FEATURES // 2)).astype(np.uint8)
Y = np.random.default_rng(4).integers(0, models.CLASSES, 40)


def flat(example):
    """One stored example (2, 6) as the network takes it."""
    return example.reshape(-1)[::-1].astype(np.float32) / 4 - 1


def run(*recorded):
    """Three checkpoints, which may record their preprocessing."""
    metadata = {"vogcore.preprocess": json.dumps(recorded[0].to_dict())} if recorded else None
    return [models.mlp(weights, metadata=metadata) for weights in models.walk(models.MLP_SHAPES, 3)]


def score(found, *data, **options):
    return vogcore.score(found, *data, provider="cpu", **options)


def test_scores_are_those_of_the_transformed_examples(tmp_path):
    expected = score(run(), np.stack([flat(example) for example in X]), Y).vog_raw
    np.testing.assert_array_equal(score(run(), X, Y, transform=flat).vog_raw, expected)
    np.testing.assert_array_equal(score(run(), open_source(X, Y), transform=flat).vog_raw, expected)
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    np.testing.assert_array_equal(score(run(), tmp_path / "train.npz", transform=flat).vog_raw, expected)
    halves = score(run(), X, Y, transform=lambda example: flat(example) * 2, preprocess=Preprocess(scale=0.5))
    np.testing.assert_array_equal(halves.vog_raw, expected)


def test_what_the_checkpoints_record_beside_a_transform_must_be_decided_on():
    found = run(Preprocess(scale=0.25))
    with pytest.raises(SettingsError, match=r"transform was given.*checkpoints record.*preprocess=.*Preprocess\(\)"):
        score(found, X, Y, transform=flat)
    decided = score(found, X, Y, transform=flat, preprocess=Preprocess())
    np.testing.assert_array_equal(decided.vog_raw, score(run(), X, Y, transform=flat).vog_raw)


def test_a_random_transform_is_refused(tmp_path):
    rng = np.random.default_rng(0)

    def noisy(example):
        return flat(example) + rng.normal(size=models.FEATURES).astype(np.float32)

    with pytest.raises(DataError, match="example 0 differs between two reads: switch off random augmentation"):
        score(run(), X, Y, transform=noisy, out=tmp_path / "scores.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_goes_on_with_the_same_transform_only(tmp_path):
    def shifted(example):
        return example + 1

    assert stopping.stopped(tmp_path, transform=shifted).exists()
    with pytest.raises(OutputExistsError, match="the data"):
        stopping.score(tmp_path, transform=np.negative)
    found = stopping.score(tmp_path, transform=shifted)
    np.testing.assert_array_equal(found.vog_raw, stopping.score(tmp_path, "whole.h5", data=stopping.X + 1).vog_raw)
