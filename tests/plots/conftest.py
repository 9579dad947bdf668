"""Scores whose every plotted number can be written down, and matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest

from vogcore.store import CheckpointInfo, Companion, Direction, Maps, Scores, StageScores

N, CLASSES, CHECKPOINTS = 103, 4, 5


def direction(measured: str) -> Direction:
    return Direction(
        measured=measured, spearman_loss=0.3, spearman_low=0.2, spearman_high=0.4, auroc_errors=0.7, n_errors=20,
        n_examples=N,
    )  # fmt: skip


def build(measured: str = "lower is harder", **changes) -> Scores:
    rng = np.random.default_rng(5)
    labels = np.arange(N) % CLASSES
    labels[50] = -1
    vog = rng.normal(size=N).round(1)  # rounded, so that there are ties
    vog[7] = np.nan
    correct = (rng.random(N) < 0.6) & (labels >= 0)
    predicted = np.stack([np.where(rng.random(N) < 0.5, labels, (labels + 1) % CLASSES) for _ in range(CHECKPOINTS)])
    predicted[-1] = np.where(correct, labels, (labels + 1) % CLASSES)
    spread = np.full(CLASSES, 0.5)

    def stage(name: str, checkpoints: np.ndarray, values: np.ndarray, how: str) -> StageScores:
        directions = {"vog": direction(how), "vog_raw": direction("undetermined")}
        return StageScores(
            name, checkpoints, np.abs(values) + 1, values, None, None, spread, spread, "class", directions
        )

    every = np.arange(CHECKPOINTS)
    values = {
        "stages": {
            "all": stage("all", every, vog, measured),
            "late": stage("late", every[3:], -vog, "higher is harder"),
        },
        "labels": labels,
        "ids": np.array([f"picture-{i}" for i in range(N)]),
        "classes": ["cat", "dog", "$100 or $200", "<b>bird</b>"],
        "class_count": np.bincount(labels[labels >= 0], minlength=CLASSES),
        "checkpoints": [CheckpointInfo(f"c{i}.onnx", step=10 * i * i) for i in range(CHECKPOINTS)],
        "settings": {"of": "logit", "target": "label", "reduction": "std"},
        "companions": {"correct": Companion(correct, "lower is harder", "0 or 1", "argmax")},
        "predictions_class": predicted.astype(np.int32),
        "predictions_label_probability": rng.random((CHECKPOINTS, N)).astype(np.float32),
        "maps": Maps(np.array([3, 9]), rng.random((2, 6, 5)).astype(np.float32)),
    }
    return Scores(**(values | changes))


@pytest.fixture
def make() -> Callable[..., Scores]:
    return build


@pytest.fixture
def scores() -> Scores:
    return build()


@pytest.fixture
def images() -> np.ndarray:
    """(N, 6, 5) uint8; no two are equal."""
    return np.random.default_rng(0).integers(0, 256, (N, 6, 5), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_screen():
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
    matplotlib.use(before)
