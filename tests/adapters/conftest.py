"""What every source of examples must do, and programs that need a framework.

``make test`` builds every environment and sets ``VOGCORE_REQUIRE_FRAMEWORKS``: there a framework that is missing is a
failure. Without the variable, tests that need it are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from vogcore._types import ExampleSource
from vogcore.data import open_source
from vogcore.store import CheckpointInfo, Direction, Scores, StageScores

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {
    # name: environment (None for the one that the tests run in), the package that must be there, backend of Keras
    "torch": (None, "torch", None),
    "lightning": (None, "lightning", None),
    "transformers": (None, "transformers", None),
    "sklearn": (None, "skl2onnx", None),
    "keras-torch": (None, "keras", "torch"),
    "keras-tensorflow": (".venv-zoo-keras", "tensorflow", "tensorflow"),
    "keras-jax": (".venv-zoo-jax", "keras", "jax"),
    "flax": (".venv-zoo-jax", "flax", None),
}


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """The interpreter that has a framework; skips the test, or fails it where all frameworks must be there."""

    def interpreter(framework: str) -> str:
        environment, package, _ = FRAMEWORKS[framework]
        if environment is None:
            python, there = sys.executable, importlib.util.find_spec(package) is not None
        else:
            python = str(ROOT / environment / "bin" / "python")
            there = any((ROOT / environment).glob(f"lib/python*/site-packages/{package}"))
        if not there:
            reason = f"{package} is missing in {environment or sys.prefix}; `make test` installs it"
            if os.environ.get("VOGCORE_REQUIRE_FRAMEWORKS"):
                pytest.fail(reason)
            pytest.skip(reason)
        return python

    return interpreter


@pytest.fixture(scope="session")
def run_program(require) -> Callable[..., str]:
    """Runs a program in the environment of a framework and returns what it printed."""

    def run(framework: str, program: Path, *arguments: object, folder: Path | None = None) -> str:
        backend = FRAMEWORKS[framework][2]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "HF_HUB_OFFLINE": "1",
            **({"KERAS_BACKEND": backend} if backend else {}),
        }
        command = [require(framework), str(program), *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return done.stdout

    return run


DTYPES = ("uint8", "int64", "float32", "float64")


@st.composite
def _labelled_arrays(draw: st.DrawFn, dtypes: tuple[str, ...] = DTYPES) -> tuple[np.ndarray, np.ndarray, list]:
    """Distinct examples (N, ...), labels (N,), and ranges to read in any order."""
    n = draw(st.integers(1, 12))
    shape = draw(st.sampled_from([(1,), (3,), (2, 3), (2, 2, 3)]))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 255, (n, *shape)).astype(draw(st.sampled_from(dtypes)))
    x.reshape(n, -1)[:, 0] = np.arange(n)
    if x.dtype.kind == "f":
        x += np.asarray(0.25, x.dtype)
    starts = draw(st.lists(st.integers(0, n), min_size=1, max_size=6))
    ranges = [(start, draw(st.integers(start, n))) for start in starts]
    return x, rng.integers(0, 4, n), ranges


def _check_source(source: ExampleSource, x: np.ndarray, y: Any, ranges: list, ids: Any = None) -> None:
    assert isinstance(source, ExampleSource)
    assert len(source) == len(x)
    assert source.shape == x.shape[1:]
    assert source.dtype == x.dtype
    for start, stop in [*ranges, (0, len(x)), *ranges]:
        block = source.read(start, stop)
        assert block.dtype == x.dtype
        assert block.flags.c_contiguous
        np.testing.assert_array_equal(block, x[start:stop])
    if y is None:
        assert source.labels is None
    else:
        assert source.labels is not None
        assert source.labels.tolist() == list(y)
        assert source.labels.dtype == np.int64
    if ids is None:
        assert source.ids is None
    else:
        assert source.ids is not None
        assert source.ids.tolist() == list(ids)
    assert source.fingerprint() == open_source(np.ascontiguousarray(x), y, require_labels=False).fingerprint()


@pytest.fixture(scope="session")
def labelled_arrays() -> Callable[..., st.SearchStrategy]:
    return _labelled_arrays


@pytest.fixture(scope="session")
def check_source() -> Callable[..., None]:
    """Compares a source with the array that it was made from, in blocks read in any order, and their fingerprints."""
    return _check_source


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a package as good as not installed."""

    def hide(package: str) -> None:
        for module in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)

    return hide


def _scores(n: int, measured: str = "not measured", **changes: Any) -> Scores:
    """Scores 0, 1, 2... of one stage with a measured direction; three classes in turn."""
    values = np.array(changes.pop("values", np.arange(float(n))), float)
    directions = {name: Direction(measured=measured) for name in ("vog", "vog_raw", "vog_relative")}
    stage = StageScores(
        "all", np.arange(2), values, values, None, None, np.zeros(3), np.ones(3), "class", directions
    )  # fmt: skip
    given = {
        "stages": {"all": stage},
        "labels": np.arange(n) % 3,
        "ids": np.arange(n) * 10,
        "classes": ["a", "b", "c"],
        "class_count": np.bincount(np.arange(n) % 3, minlength=3),
        "checkpoints": [CheckpointInfo("c0.onnx"), CheckpointInfo("c1.onnx")],
        "settings": {"of": "logit"},
    }
    return Scores(**(given | changes))


@pytest.fixture(scope="session")
def scores() -> Callable[..., Scores]:
    return _scores
