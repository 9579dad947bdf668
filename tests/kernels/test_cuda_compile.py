"""Every CUDA kernel compiles for the GPU generations that are promised, on a machine without a GPU."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

COMPILERS = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvrtc")


def missing_packages():
    def installed(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return [name for name in COMPILERS if installed(name) is None]


pytestmark = pytest.mark.skipif(bool(missing_packages()), reason=f"not installed: {', '.join(missing_packages())}")
CAPABILITIES = ("7.5", "8.0", "9.0")
FOLDER = Path(__file__).parent


def start(*arguments: str) -> subprocess.Popen[str]:
    """Python in a process of its own, without the simulator."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parents[1])])}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], env=environment, text=True, **pipes)


@pytest.fixture(scope="module")
def compilers():
    """A process for each generation, all at work at once."""
    processes = {capability: start(str(FOLDER / "cuda_ptx.py"), capability) for capability in CAPABILITIES}
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_compiles_to_ptx(compilers, capability):
    output, errors = compilers[capability].communicate(timeout=900)
    assert compilers[capability].returncode == 0, errors[-4000:]
    compiled = json.loads(output)
    assert len(compiled) >= 40
    for name, ptx in compiled.items():
        assert f".target sm_{capability.replace('.', '')}" in ptx, name
        assert ".entry" in ptx, name
        assert "ld.global" in ptx, name
        assert "st.global" in ptx, name
        # Sums that depend on which thread comes first would differ from run to run.
        assert not re.search(r"\b(atom|red)\.", ptx), f"{name} uses atomic additions"


def test_no_kernel_is_left_out():
    """Whatever is compiled for the device in these modules is in the table that the test above goes by."""
    program = """
import cuda_ptx
from numba.cuda.dispatcher import CUDADispatcher
from vogcore.kernels import _cuda, _cuda_classes
listed = {id(kernel) for _, kernel, _ in cuda_ptx.signatures()}
for module in (_cuda, _cuda_classes):
    for name, value in vars(module).items():
        if isinstance(value, CUDADispatcher) and not value.targetoptions.get("device"):
            assert id(value) in listed, name
for encoding in cuda_ptx.ENCODINGS:
    for layout in cuda_ptx.LAYOUTS:
        for kernel in _cuda.gradient_kernels(encoding, layout):
            assert id(kernel) in listed, (encoding, layout)
"""
    process = start("-c", program)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
