"""The adapters as a package: where it lies and what importing it costs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import vogcore_adapters

ROOT = Path(__file__).parents[2]


def test_the_folder_adapters_is_not_a_package():
    assert (ROOT / "adapters" / "vogcore_adapters" / "__init__.py").is_file()
    assert not (ROOT / "adapters" / "__init__.py").exists()


FRAMEWORKS = ("torch", "lightning", "transformers", "keras", "tensorflow", "jax", "flax", "sklearn", "skl2onnx")
MODULES = ["exporter", "jax", "keras", "lightning", "schedule", "sklearn", "torch", "transformers"]


def run(program: str, *blocked: str) -> str:
    """What a program prints in a process where some packages cannot be imported."""
    before = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'adapters')]!r}; "
    before += f"sys.modules.update(dict.fromkeys({blocked!r}));"
    command = [sys.executable, "-c", before + program]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_importing_an_adapter_imports_no_framework():
    program = (
        "import vogcore_adapters as a;"
        "callbacks = ('keras', 'lightning', 'transformers');"
        "[getattr(a, name) for name in dir(a) if name not in callbacks and not name.startswith('native_')];"
        "heavy = 'onnx onnxscript datasets zarr PIL pyarrow pandas h5py numba';"
        f"print([m for m in (*heavy.split(), *{FRAMEWORKS!r}) if m in sys.modules])"
    )
    assert run(program) == "[]"


@pytest.mark.parametrize(
    ("extra", "statement"),
    [
        ("torch", "from vogcore_adapters.torch import CheckpointExporter; CheckpointExporter('ckpts', None)"),
        ("torch", "from vogcore_adapters.torch import export_checkpoint; export_checkpoint(None, None, 'a.onnx')"),
        ("lightning", "from vogcore_adapters.lightning import ExportCheckpoints"),
        ("transformers", "from vogcore_adapters.transformers import ExportCheckpoints"),
        ("keras", "from vogcore_adapters.keras import ExportCheckpoints"),
        ("jax", "from vogcore_adapters.jax import CheckpointExporter; CheckpointExporter('ckpts', (3,))"),
        ("sklearn", "from vogcore_adapters.sklearn import CheckpointExporter; CheckpointExporter('ckpts', [[1.0]])"),
        ("torch", "from vogcore_adapters.native_torch import input_gradients; next(input_gradients(None, [], []))"),
        ("jax", "from vogcore_adapters.native_jax import input_gradients; next(input_gradients(None, [], []))"),
        ("keras", "from vogcore_adapters.native_keras import input_gradients; next(input_gradients(None, [], []))"),
    ],
)
def test_a_missing_framework_is_one_sentence_that_names_the_extra(extra, statement, tmp_path):
    message = refused(statement, tmp_path, *FRAMEWORKS)
    assert re.fullmatch(rf".+ needs \w+, which cannot be imported here \(.+\): .* 'vogcore\[{extra}\]'\.", message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("statement", [
    "from vogcore_adapters.keras import ExportCheckpoints",
    "from vogcore_adapters.native_keras import input_gradients; next(input_gradients(None, [], []))",
])  # fmt: skip
@pytest.mark.parametrize(
    ("backend", "install"),
    [("tensorflow", "tensorflow"), ("jax", r"'vogcore\[jax\]'"), ("torch", r"'vogcore\[torch\]'")],
)
def test_keras_without_its_backend(statement, backend, install, require, tmp_path, monkeypatch):
    require("keras-torch")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    message = refused(statement, tmp_path, backend)
    assert re.fullmatch(rf".+ needs {backend}, the backend of Keras, .* pip install {install}, or .*\.", message)


def refused(statement: str, folder: Path, *blocked: str) -> str:
    """The message of the error that the statements raise where some packages cannot be imported."""
    body = "\n".join(f"    {part.strip()}" for part in statement.split(";"))
    program = f"""
import os
os.chdir({str(folder)!r})
from vogcore import VogcoreError
try:
{body}
except VogcoreError as error:
    print(error)
"""
    return run(program, *blocked)


def test_an_unknown_adapter_is_an_attribute_error():
    assert set(MODULES) <= set(dir(vogcore_adapters))
    with pytest.raises(AttributeError, match="fortran"):
        _ = vogcore_adapters.fortran
