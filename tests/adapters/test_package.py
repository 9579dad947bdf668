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


def test_importing_an_adapter_imports_no_framework():
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; import vogcore_adapters;"
        "names = [name for name in dir(vogcore_adapters) if not name.startswith('native_')];"
        "[getattr(vogcore_adapters, name) for name in names];"
        "heavy = 'torch onnx onnxscript tensorflow datasets zarr PIL pyarrow pandas h5py';"
        "print([m for m in heavy.split() if m in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(ROOT), str(ROOT / "adapters")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_importing_native_gradients_imports_no_framework():
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; import vogcore_adapters as a;"
        "a.native_torch.input_gradients, a.native_jax.input_gradients, a.native_keras.input_gradients;"
        "print([m for m in ('torch', 'jax', 'keras', 'tensorflow', 'onnxscript', 'numba') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(ROOT), str(ROOT / "adapters")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_an_unknown_adapter_is_an_attribute_error():
    assert {"native_jax", "native_keras", "native_torch", "torch"} <= set(dir(vogcore_adapters))
    with pytest.raises(AttributeError, match="fortran"):
        _ = vogcore_adapters.fortran
