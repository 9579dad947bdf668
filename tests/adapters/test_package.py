"""The adapters as a package: where it lies and what importing it costs."""

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
    ],
)
def test_a_missing_framework_is_one_sentence_that_names_the_extra(extra, statement, tmp_path):
    body = "\n".join(f"    {part.strip()}" for part in statement.split(";"))
    program = f"""
import os
os.chdir({str(tmp_path)!r})
from vogcore import VogcoreError
try:
{body}
except VogcoreError as error:
    print(error)
"""
    message = run(program, *FRAMEWORKS)
    assert message.count("\n") == 0
    assert message.endswith(f"install it with: pip install --upgrade 'vogcore[{extra}]'")
    assert "missing" in message
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_adapter_is_an_attribute_error():
    assert set(MODULES) <= set(dir(vogcore_adapters))
    with pytest.raises(AttributeError, match="fortran"):
        _ = vogcore_adapters.fortran
