"""Builders of small scores and archives, shared by the tests of the store."""

from __future__ import annotations

import math
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vogcore.store import CheckpointInfo, Companion, Direction, GradientWriter, Scores, StageScores

DATA = Path(__file__).parents[1] / "data"


def _make_scores(n: int = 6, k: int = 6, c: int = 3, seed: int = 0, **changes: Any) -> Scores:
    rng = np.random.default_rng(seed)

    measured = Direction(measured="lower is harder", n_examples=n)
    directions = {"vog": measured, "vog_raw": Direction(), "vog_relative": Direction()}

    def stage(name: str, window: list[int]) -> StageScores:
        return StageScores(
            name, np.array(window), rng.random(n), rng.normal(size=n), rng.random(n), rng.random(n),
            rng.random(c), rng.random(c), "class", dict(directions),
        )  # fmt: skip

    labels = rng.integers(-1, c, n)
    values: dict[str, Any] = {
        "stages": {"all": stage("all", list(range(k))), "late": stage("late", [k - 1])},
        "labels": labels,
        "ids": np.arange(n) * 10,
        "classes": [f"class {i}" for i in range(c)],
        "class_count": np.bincount(labels[labels >= 0], minlength=c),
        "checkpoints": [CheckpointInfo(f"c{i}.onnx", i, None, "ab") for i in range(k)],
        "settings": {"of": "logit"},
        "companions": {"loss": Companion(rng.random(n), "higher is harder", "[0, inf)", "cross-entropy")},
        "predictions_class": rng.integers(0, c, (k, n), dtype=np.int32),
        "predictions_label_probability": rng.random((k, n), dtype=np.float32),
    }
    return Scores(**(values | changes))


@pytest.fixture(scope="session")
def make_scores() -> Callable[..., Scores]:
    return _make_scores


def _assert_equal(left: object, right: object) -> None:
    """Deep equality, down to the types of arrays; NaN equals NaN."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        if left.dtype.kind == "U":
            assert left.tolist() == right.tolist()
        else:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            _assert_equal(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            _assert_equal(one, other)
    elif isinstance(left, float):
        assert left == right or (math.isnan(left) and math.isnan(right))
    elif hasattr(left, "__dataclass_fields__"):
        for name in left.__dataclass_fields__:
            if name != "path":
                _assert_equal(getattr(left, name), getattr(right, name))
    else:
        assert left == right


@pytest.fixture(scope="session")
def assert_equal() -> Callable[[object, object], None]:
    return _assert_equal


@pytest.fixture(scope="session")
def golden() -> SimpleNamespace:
    """The builders of tests/data/make_golden.py and the folder of the files they once wrote."""
    return SimpleNamespace(folder=DATA, **runpy.run_path(str(DATA / "make_golden.py")))


def _write_archive(path: Path, k: int = 3, n: int = 10, shape: tuple[int, ...] = (2, 3), **options: Any) -> np.ndarray:
    gradients = np.random.default_rng(1).normal(size=(k, n, *shape)).astype(np.float32)
    with GradientWriter(path, n, shape, **({"block_size": 4} | options)) as writer:
        for index, block in enumerate(gradients):
            writer.write(index, 0, block)
    return gradients


@pytest.fixture(scope="session")
def write_archive() -> Callable[..., np.ndarray]:
    return _write_archive


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in a process of its own, from the project's root."""

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            capture_output=True, text=True, timeout=60, cwd=DATA.parents[1], check=False,
        )  # fmt: skip

    return run
