"""Programs that need a framework: which environment has it, and that none is skipped unnoticed.

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

import pytest

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
