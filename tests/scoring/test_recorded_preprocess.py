"""Preprocessing that the checkpoints record is applied where the user gives none."""

import json

import numpy as np
import pytest

import vogcore
from vogcore.cli import main
from vogcore.data import ArraySource, Preprocess
from vogcore.errors import CheckpointError

from . import models

RECORDED = Preprocess(scale=0.25, mean=0.5, std=2.0)


def checkpoints(*texts):
    """Networks with the given texts as their recorded preprocessing; None records nothing."""
    weights = models.walk(models.MLP_SHAPES, len(texts))
    return [
        models.mlp(w, metadata=None if text is None else {"vogcore.preprocess": text})
        for w, text in zip(weights, texts, strict=True)
    ]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    return rng.integers(0, 9, (20, models.FEATURES)).astype(np.uint8), rng.integers(0, models.CLASSES, 20)


def score(found, data, **options):
    return vogcore.score(found, data, provider="cpu", **options)


def test_it_is_applied_recorded_and_gives_way_to_what_the_user_says(data):
    recorded, plain = checkpoints(*[json.dumps(RECORDED.to_dict())] * 3), checkpoints(None, None, None)
    expected = score(plain, data, preprocess=RECORDED)
    scores = score(recorded, data)
    np.testing.assert_array_equal(scores.vog_raw, expected.vog_raw)
    assert scores.settings["preprocess"] == RECORDED.to_dict()
    other = Preprocess(scale=0.1)
    np.testing.assert_array_equal(
        score(recorded, data, preprocess=other).vog_raw, score(plain, data, preprocess=other).vog_raw
    )
    none = score(recorded, data, preprocess=Preprocess())
    np.testing.assert_array_equal(none.vog_raw, score(plain, (data[0].astype(np.float32), data[1])).vog_raw)
    assert not np.array_equal(none.vog_raw, scores.vog_raw)


def test_a_source_of_the_users_is_left_alone(data):
    x = data[0].astype(np.float32)
    recorded, plain = checkpoints(*[json.dumps(RECORDED.to_dict())] * 2), checkpoints(None, None)
    found = score(recorded, ArraySource(x, data[1]))
    np.testing.assert_array_equal(found.vog_raw, score(plain, (x, data[1])).vog_raw)


@pytest.mark.parametrize("text", ["{", "[1]", '{"scael": 2}', '{"scale": 0}', "3"])
def test_one_that_cannot_be_read_is_refused_unless_another_is_given(data, text):
    found = checkpoints(text, text)
    with pytest.raises(CheckpointError, match=r"checkpoint 0 records cannot be read; say which one to use: .*--scale"):
        score(found, data)
    score(found, data, preprocess=RECORDED)


@pytest.mark.parametrize("other", [None, '{"scale": 0.5}'])
def test_checkpoints_that_disagree_are_refused(data, other):
    found = checkpoints('{"scale": 0.25}', '{"scale": 0.25}', other)
    with pytest.raises(CheckpointError, match="checkpoint 0 and checkpoint 2 record different preprocessing"):
        score(found, data)


def test_the_command_line_says_what_it_applied(data, tmp_path, capsys):
    for number, model in enumerate(checkpoints(*[json.dumps(RECORDED.to_dict())] * 2)):
        (tmp_path / f"ckpt-{number}.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "train.npz", x=data[0], y=data[1])
    command = ["score", "--checkpoints", str(tmp_path), "--data", str(tmp_path / "train.npz"), "-q"]
    assert main([*command, "-o", str(tmp_path / "a.h5")]) == 0
    assert "Preprocessing: scale 0.25, mean 0.5, std 2.0." in capsys.readouterr().out
    assert main([*command, "--scale", "1", "-o", str(tmp_path / "b.h5")]) == 0
    assert vogcore.open_scores(tmp_path / "b.h5").settings["preprocess"]["mean"] is None


def test_the_value_to_differentiate_by_is_taken_from_the_checkpoints_too():
    shapes = {"table": (models.WORDS, models.WIDTH), "w": (models.WIDTH, models.CLASSES)}
    weights = models.walk(shapes, 3)
    rng = np.random.default_rng(4)
    data = rng.integers(0, models.WORDS, (20, models.LENGTH)), rng.integers(0, models.CLASSES, 20)
    plain = [models.tokens(w) for w in weights]
    recorded = [models.tokens(w) for w in weights]
    for model in recorded:
        model.metadata_props.add(key="vogcore.input_values", value="embedded")
    scores = score(recorded, data)
    np.testing.assert_array_equal(scores.vog_raw, score(plain, data, wrt="embedded").vog_raw)
    assert scores.settings["wrt"] == "embedded"
    with pytest.raises(CheckpointError, match=r"checkpoint 0 and checkpoint 2 record different values .*--wrt"):
        score([*recorded[:2], plain[2]], data)
