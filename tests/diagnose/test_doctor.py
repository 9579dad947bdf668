"""The examination of an installation: whole here, and broken in the ways that installations are."""

from __future__ import annotations

import importlib
import importlib.metadata

import numpy as np
import pytest

from vogcore.diagnose import doctor
from vogcore.kernels import self_test
from vogcore.runtime import providers
from vogcore.runtime._threads import CpuCounts


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_this_machine_is_fine():
    found = by_name(doctor.examine())
    assert [f.name for f in found.values() if f.status == "broken"] == []
    assert set(found) >= {
        "vogcore", "packages", "ONNX Runtime", "CUDA", "CPUs", "kernel cache", "temporary folder", "kernels",
        "gradient",
    }  # fmt: skip
    assert found["packages"].details["numpy"] == np.__version__
    assert "agrees with finite differences" in found["gradient"].text


def test_two_distributions_of_onnx_runtime(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.27.0")
    (finding,) = doctor._onnxruntime()
    assert finding.status == "broken"
    assert "overwrite each other's files" in finding.text
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in finding.remedy


def test_a_package_that_cannot_be_imported(monkeypatch):
    real = importlib.import_module

    def without(name, *more):
        if name == "xxhash":
            raise ImportError("no such library")
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", without)
    (finding,) = doctor._packages()
    assert finding.status == "broken"
    assert finding.text == "xxhash cannot be imported (no such library)"


@pytest.mark.parametrize(
    ("probe", "status", "words"),
    [
        (
            (None, "this machine has no NVIDIA driver", "install it"),
            "ok",
            "not used: this machine has no NVIDIA driver",
        ),
        (("Some GPU", "the library x cannot be loaded", "install it"), "note", "Some GPU is not used: the library x"),
        (("Some GPU", None, ""), "ok", "gradients are computed on Some GPU"),
    ],
)
def test_why_cuda_is_used_or_not(probe, status, words, monkeypatch):
    monkeypatch.setattr(providers, "_probe_cuda", lambda: providers.CudaProbe(*probe))
    monkeypatch.setattr("vogcore.kernels.devices.problem", lambda kind: "numba-cuda fails (x)")
    finding, *more = doctor._cuda()
    assert (finding.status, words in finding.text) == (status, True)
    assert finding.remedy == (probe[2] if status == "note" else "")
    assert [f.name for f in more] == (["GPU kernels"] if probe[1] is None else [])


@pytest.mark.parametrize(("quota", "status"), [(None, "ok"), (2.0, "note")])
def test_more_threads_than_the_container_allows(quota, status, monkeypatch):
    monkeypatch.setattr("vogcore.runtime._threads.cpu_counts", lambda: CpuCounts(16, 8, quota))
    monkeypatch.setattr("vogcore.runtime.cpu_counts", lambda: CpuCounts(16, 8, quota), raising=False)
    monkeypatch.setattr("vogcore.kernels.get_threads", lambda: 8)
    (finding,) = doctor._cpus()
    assert finding.status == status
    assert "16 CPUs in the machine, 8 for this process" in finding.text
    assert ("NUMBA_NUM_THREADS=2" in finding.remedy) == (status == "note")


def test_folders_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(self_test, "compiled_code_folder", lambda: None)
    (finding,) = doctor._kernel_cache()
    assert (finding.status, finding.remedy) == ("note", "set NUMBA_CACHE_DIR to a folder that can be written")
    (tmp_path / "file").touch()
    monkeypatch.setattr(self_test, "compiled_code_folder", lambda: str(tmp_path / "file" / "below"))
    (finding,) = doctor._kernel_cache()
    assert "below cannot be written" in finding.text


def test_kernels_that_compute_something_else(monkeypatch):
    monkeypatch.setattr(self_test._reference, "vog", lambda values, *more: np.ones(values.shape[1]))
    (finding,) = doctor._kernels()
    assert finding.status == "broken"
    assert "disagree with plain NumPy, such as moments, float32, mean" in finding.text


def test_whatever_is_raised_becomes_a_finding(monkeypatch):
    def wrong():
        raise RuntimeError("out of luck.\nreally")
        yield

    monkeypatch.setattr(doctor, "_gradient", wrong)
    finding = doctor.examine()[-1]
    assert (finding.status, finding.text) == ("broken", "out of luck. really")
