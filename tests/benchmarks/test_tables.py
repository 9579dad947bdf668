"""Deciles, directions and reports of the benchmarks, from small made-up scores."""

import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._fashion_report import markdown_report
from benchmarks._tables import decile_errors, json_ready, markdown_table, stage_results, wrong_predictions


@dataclass(frozen=True)
class Direction:
    claimed: str = "higher is harder"
    measured: str = "lower is harder"
    spearman_loss: float = -0.5
    spearman_low: float = -0.6
    spearman_high: float = math.nan
    auroc_errors: float = 0.25
    n_errors: int = 10
    n_examples: int = 20


def made_up_scores(relative=True):
    vog = np.arange(20.0)
    stage = SimpleNamespace(
        checkpoints=np.arange(3),
        directions={"vog": Direction()},
        vog=vog,
        vog_relative=-vog if relative else None,
    )
    predictions = np.zeros((3, 20), np.int32)
    predictions[-1, :10] = 1  # the ten lowest scores are the errors of the last checkpoint
    return SimpleNamespace(
        stages={"all": stage}, predictions_class=predictions, labels=np.zeros(20, np.int64), warnings=[]
    )


def test_deciles_go_from_the_lowest_score_to_the_highest():
    scores = np.array([9.0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    wrong = np.zeros(10, bool)
    wrong[[0, 1]] = True
    assert decile_errors(scores, wrong).tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=10, max_size=80))
def test_deciles_hold_every_example_once_and_order_alone_decides(pairs):
    scores, wrong = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    errors = decile_errors(scores, wrong)
    sizes = [len(part) for part in np.array_split(wrong, 10)]
    assert np.dot(errors, sizes) == pytest.approx(wrong.sum())
    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
    np.testing.assert_array_equal(errors, decile_errors(ranks.astype(float), wrong))


def test_fewer_than_ten_examples_leave_deciles_empty():
    errors = decile_errors(np.array([1.0, 2.0]), np.array([True, False]))
    assert errors[:2].tolist() == [1, 0]
    assert np.isnan(errors[2:]).all()


@pytest.mark.parametrize(
    ("scores", "wrong"), [([1.0, 2.0], [True]), ([1.0, math.nan], [True, False]), ([[1.0]], [[True]])]
)
def test_scores_without_deciles_are_refused(scores, wrong):
    with pytest.raises(ValueError, match=r"one length|not finite"):
        decile_errors(np.array(scores), np.array(wrong))


def test_errors_are_those_of_the_last_checkpoint():
    scores = made_up_scores()
    assert wrong_predictions(scores).tolist() == [True] * 10 + [False] * 10
    scores.predictions_class = None
    with pytest.raises(ValueError, match="no predictions"):
        wrong_predictions(scores)


def test_every_stage_has_its_deciles_and_directions():
    entry = stage_results(made_up_scores(), with_errors=True)["all"]
    assert entry["decile_errors"]["vog"].tolist() == [1] * 5 + [0] * 5
    assert entry["decile_errors"]["vog_relative"].tolist() == [0] * 5 + [1] * 5
    assert entry["directions"]["vog"]["measured"] == "lower is harder"
    assert list(stage_results(made_up_scores(relative=False), True)["all"]["decile_errors"]) == ["vog"]
    assert "decile_errors" not in stage_results(made_up_scores(), with_errors=False)["all"]


def test_results_become_plain_json():
    value = {"a": np.arange(2), 3: (np.float32(0.5), math.nan, np.bool_(True)), "n": None, "s": np.array(["x"])}
    assert json_ready(value) == {"a": [0, 1], "3": [0.5, None, True], "n": None, "s": ["x"]}


def test_a_table_keeps_its_columns():
    assert markdown_table(["a", "b"], [["x|y", None]]) == "| a | b |\n| --- | ---: |\n| x\\|y | - |\n"


def test_the_report_shows_cost_deciles_and_the_direction_as_measured():
    settings_record = {
        "network": "net",
        "optimiser": "SGD",
        "batch_size": 128,
        "epochs": 12,
        "seed": 3,
        "n_train": 60000,
        "n_test": 10000,
        "augmentation": "none",
    }
    results = {
        "machine": {"processor": "P", "cores": 2, "memory_gib": 8, "system": "S"},
        "versions": {"numpy": "9.9"},
        "created": "2025-01-01T00:00:00+00:00",
        "training": {
            "settings": settings_record,
            "threads": 2,
            "seconds": 100.0,
            "epochs": [{"test_accuracy": 0.9123}],
        },
        "training_reused": True,
        "commands": [
            {
                "data": "train",
                "command": "vogcore score",
                "seconds": 12.34,
                "peak_memory_mib": 300,
                "timings": {"gradients": 8.0, "total": 11.0},
            }
        ],
        "train": {"stages": stage_results(made_up_scores(), False)},
        "test": {"stages": stage_results(made_up_scores(), True)},
    }
    report = markdown_report(json.loads(json.dumps(json_ready(results), allow_nan=False)))
    assert "91.23%" in report
    assert "| train | 12.3 | 300 | - | - | 8.00 | - | - | 11.00 |" in report
    row = "| VoG (class z-score, the paper's), all |" + " 100.0 |" * 5 + " 0.0 |" * 5
    assert row in report
    assert "| test, all, vog | higher is harder | lower is harder | -0.500 (-0.600 to -) | 0.250 | 10 of 20 |" in report
    assert "reused" in report
