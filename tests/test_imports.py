"""Imports: one way between the layers, cheap at the top, and no package called `adapters`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ["h5py", "numba", "onnx", "onnx_ir", "onnxruntime", "pandas", "tqdm", "torch"]
BUDGET = 0.3
"""Seconds that `import vogcore` may take."""


def test_contracts_of_the_layers_hold():
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def timed_import(statement: str = "import vogcore") -> dict:
    """Seconds that the statement takes in a fresh interpreter, and the heavy modules it loaded."""
    code = (
        "import sys, time, json; start = time.perf_counter(); "
        f"{statement}; seconds = time.perf_counter() - start; "
        f"print(json.dumps(dict(seconds=seconds, loaded=[m for m in {HEAVY!r} if m in sys.modules])))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_is_cheap_and_loads_no_heavy_module():
    runs = [timed_import() for _ in range(5)]
    assert [run["loaded"] for run in runs] == [[]] * 5
    assert min(run["seconds"] for run in runs) < BUDGET


@pytest.mark.parametrize("package", ["graph", "autodiff", "store", "kernels", "data", "runtime"])
def test_packages_of_the_layers_load_nothing_heavy(package):
    assert timed_import(f"import vogcore.{package}")["loaded"] == []


@pytest.mark.parametrize(
    ("statement", "own"),
    [
        ("from vogcore.graph import load_model, logits_model, dynamic_batch", {"onnx", "onnx_ir"}),
        ("from vogcore import gradient_model", {"onnx", "onnx_ir"}),
        ("from vogcore import open_scores, Scores, GradientWriter", {"h5py"}),
        ("from vogcore import VogcoreError, VogcoreWarning", set()),
    ],
)
def test_public_name_loads_its_own_layer_only(statement, own):
    assert set(timed_import(statement)["loaded"]) <= own


def test_unknown_public_name():
    import vogcore

    with pytest.raises(AttributeError, match="has no attribute 'scores'"):
        _ = vogcore.scores


def test_adapters_is_a_source_root_and_not_a_package():
    # `adapters` is the import name of another well-known package, which a package of ours would shadow.
    assert (ROOT / "adapters" / "vogcore_adapters" / "__init__.py").is_file()
    assert not (ROOT / "adapters" / "__init__.py").exists()
