"""The benchmark of a whole run: what is timed is right, and the tables say what was measured."""

from __future__ import annotations

import numpy as np
import pytest

import vogcore
from benchmarks import pipeline


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "small"
    pipeline._prepare(folder, "small CNN", 150, 3)
    return folder


def test_the_checkpoints_differ_and_the_two_kinds_of_data_are_the_same(files):
    out = files / "a.h5"
    pattern = str(files / "ckpt-*.onnx")
    one = vogcore.score(pattern, files / "data.npy", np.load(files / "labels.npy"), out=out, provider="cpu")
    other = vogcore.score(pattern, files / "data.h5", x_name="x", y_name="y", provider="cpu")
    np.testing.assert_array_equal(one.vog_raw, other.vog_raw)
    assert (one.vog_raw > 0).all()
    assert len({checkpoint.sha256 for checkpoint in one.checkpoints}) == 3


@pytest.mark.parametrize("keep", [False, True])
def test_whole_runs_and_gradients_alone_take_time_and_leave_nothing(files, keep):
    before = set(files.iterdir())
    whole, inside = pipeline._whole(files, 1, keep)
    assert whole > inside > 0
    assert pipeline._gradients(files, 1) > 0
    assert pipeline._peak(files, 1) > 50
    assert set(files.iterdir()) == before


def test_the_tables_hold_medians_and_ratios_round_by_round():
    seconds = {"gradients": [1.0, 2.0, 4.0], "score": [1.1, 2.1, 4.0], "score, archive": [2.0, 2.2, 6.0]}
    seconds |= {"score: inside": [1.0, 2.0, 3.2], "score, archive: inside": [1.0, 2.0, 4.0]}
    runs = [{"examples": 10, "checkpoints": 2, "mib": 100.0}, {"examples": 100, "checkpoints": 2, "mib": 104.4}]
    text = pipeline.report(
        {
            "time": {"net": seconds},
            "memory": {"net": runs},
            "created": "2026-11-25",
            "rounds": 3,
            "threads": 2,
            "machine": {"processor": "P"},
            "versions": {"python": "3"},
        }
    )
    lines = text.splitlines()
    assert "| net | 2.00 | 2.10 | 2.20 | 1.050 | 1.500 | 1.100 | 1.500 |" in lines
    assert "| net | 100 | 2 | 104 | 1.04 |" in lines
