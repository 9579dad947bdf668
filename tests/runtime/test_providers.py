from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from vogcore.errors import ProviderError, SettingsError, VogcoreWarning
from vogcore.runtime import Provider, Session, _ort, choose_provider, providers

from .models import forward

GPU = "NVIDIA Test GPU"


@pytest.fixture
def one_distribution(monkeypatch):
    """As if exactly onnxruntime-gpu were installed, whatever is."""
    _installed(monkeypatch, {"onnxruntime-gpu"})


def _installed(monkeypatch, names):
    def version(name):
        if name not in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.31.1"

    monkeypatch.setattr(importlib.metadata, "version", version)


def _machine(monkeypatch, *, builds=("CUDAExecutionProvider", "CPUExecutionProvider"), devices=(GPU,)):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(builds))
    problem = None if devices else "this machine has no NVIDIA driver"
    monkeypatch.setattr(providers, "_cuda_devices", lambda: (list(devices), problem))
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("nvidia wheels are missing"))
    monkeypatch.setattr(providers, "_missing_library", lambda ort: None)


def _sessions(monkeypatch, *, active, product=lambda x: x @ x):
    """Replace ONNX Runtime's sessions; returns what they were asked for."""
    asked = []

    class Fake:
        def __init__(self, model, options=None, providers=None, **kwargs):
            asked.append((providers, kwargs))

        def get_providers(self):
            return list(active)

        def run(self, outputs, feeds):
            return [product(feeds["x"])]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fake)
    return asked


def test_cpu_is_always_there(one_distribution):
    provider = choose_provider("cpu")
    assert (provider.name, provider.ort_providers, provider.device) == ("cpu", ["CPUExecutionProvider"], "cpu")


def test_unknown_request_lists_the_choices(one_distribution):
    with pytest.raises(SettingsError, match=r"'gpu'.*auto, cpu, cuda"):
        choose_provider("gpu")


def test_cuda_that_runs_is_chosen(monkeypatch, one_distribution, capsys):
    _machine(monkeypatch)
    asked = _sessions(monkeypatch, active=["CUDAExecutionProvider", "CPUExecutionProvider"])
    for request in ("auto", "cuda"):
        provider = choose_provider(request)
        assert provider.name == "cuda"
        assert provider.device == f"cuda:0 ({GPU})"
        name, options = provider.ort_providers[0]
        assert name == "CUDAExecutionProvider"
        assert options["use_tf32"] == "0"
        assert provider.ort_providers[1:] == ["CPUExecutionProvider"]
    assert len(asked) == 1, "the trial is made once in a process"
    assert asked[0][1] == {"enable_fallback": 0}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("active", "product", "reason"),
    [
        (["CPUExecutionProvider"], lambda x: x @ x, "made a session on CPUExecutionProvider instead"),
        (["CUDAExecutionProvider"], lambda x: x * 0, "matrix product on it is wrong"),
    ],
)
def test_cuda_session_that_is_none_is_caught(monkeypatch, one_distribution, active, product, reason):
    _machine(monkeypatch)
    _sessions(monkeypatch, active=active, product=product)
    with pytest.raises(ProviderError, match=rf"^CUDA was asked for, but .*{reason}.*provider 'cpu'\.$"):
        choose_provider("cuda")
    with pytest.warns(VogcoreWarning, match=rf"{GPU} is not used because .*{reason}"):
        assert choose_provider("auto").name == "cpu"


def test_failing_cuda_session_gives_its_reason(monkeypatch, one_distribution):
    _machine(monkeypatch)

    def fail(x):
        raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient\nsecond line")

    _sessions(monkeypatch, active=["CUDAExecutionProvider"], product=fail)
    with pytest.raises(ProviderError, match="driver version is insufficient") as caught:
        choose_provider("cuda")
    assert "second line" not in str(caught.value)


def test_missing_library_is_named(monkeypatch, one_distribution):
    _machine(monkeypatch)
    _sessions(monkeypatch, active=["CPUExecutionProvider"])
    monkeypatch.setattr(providers, "_missing_library", lambda ort: "libcublasLt.so.13")
    with pytest.raises(ProviderError, match=r"libcublasLt.so.13 cannot be loaded: run pip install 'vogcore\[gpu\]'"):
        choose_provider("cuda")


def test_build_without_cuda(monkeypatch, one_distribution):
    _machine(monkeypatch, builds=["CPUExecutionProvider"])
    monkeypatch.setattr(_ort, "required_distribution", lambda: "onnxruntime-gpu")
    with pytest.raises(ProviderError, match=r"has no CUDA provider: run pip uninstall .*onnxruntime-gpu>=1.27"):
        choose_provider("cuda")
    assert choose_provider("auto").name == "cpu"


def test_platform_without_cuda_build_is_not_sent_to_pip(monkeypatch, one_distribution):
    _machine(monkeypatch, builds=["CPUExecutionProvider"])
    monkeypatch.setattr(_ort, "required_distribution", lambda: "onnxruntime")
    with pytest.raises(ProviderError, match="CUDA builds exist for Linux x86_64 and Windows AMD64 only"):
        choose_provider("cuda")


def test_no_device(monkeypatch, one_distribution):
    _machine(monkeypatch, devices=())
    asked = _sessions(monkeypatch, active=["CUDAExecutionProvider"])
    with pytest.raises(ProviderError, match="this machine has no NVIDIA driver"):
        choose_provider("cuda")
    assert choose_provider("auto").name == "cpu"
    assert asked == [], "without a GPU the CUDA libraries are not loaded"


def test_both_distributions(monkeypatch):
    _installed(monkeypatch, {"onnxruntime", "onnxruntime-gpu"})
    _machine(monkeypatch, devices=())
    repair = r"run pip uninstall -y onnxruntime onnxruntime-gpu && pip install"
    with pytest.raises(ProviderError, match=repair):
        choose_provider("cuda")
    for request in ("cpu", "auto"):
        with pytest.warns(VogcoreWarning, match=repair):
            assert choose_provider(request).name == "cpu"


def test_broken_runtime(monkeypatch, one_distribution):
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    with pytest.raises(ProviderError, match="ONNX Runtime is incomplete: run pip uninstall"):
        choose_provider("cpu")


def test_missing_runtime(monkeypatch, one_distribution):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match="ONNX Runtime cannot be imported"):
        choose_provider("cpu")


def test_session_that_falls_back_to_the_cpu_is_refused(monkeypatch):
    """Without CUDA libraries ONNX Runtime makes a CPU session of a CUDA request; here one is made on purpose."""
    provider = Provider("cuda", ["CPUExecutionProvider"], f"cuda:0 ({GPU})")
    with pytest.raises(ProviderError, match=r"asked for CUDA on cuda:0 .* made a session on CPUExecutionProvider"):
        Session(forward(), provider=provider, threads=1)


class _Driver:
    """libcuda as far as it is used."""

    def __init__(self, status=0, names=()):
        self.status, self.names = status, names

    def cuInit(self, flags):
        return self.status

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGetName(self, buffer, size, index):
        buffer.value = self.names[index].encode()
        return 0


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (_Driver(status=100), "offers no GPU"),
        (_Driver(), "offers no GPU"),
        (_Driver(status=803), r"does not start \(CUDA error 803\)"),
        (_Driver(names=["A", "B"]), None),
    ],
)
def test_what_the_driver_says(monkeypatch, driver, reason):
    monkeypatch.setattr(providers.ctypes, "CDLL", lambda name: driver)
    devices, problem = providers._cuda_devices()
    if reason is None:
        assert (devices, problem) == (["A", "B"], None)
    else:
        assert devices == []
        with pytest.raises(ProviderError, match=reason):
            raise ProviderError(problem)


def test_no_driver(monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(providers.ctypes, "CDLL", absent)
    assert providers._cuda_devices() == ([], "this machine has no NVIDIA driver")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the library")
def test_missing_library_comes_from_the_loader(monkeypatch):
    def absent(name):
        raise OSError("libcudnn.so.9: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(providers.ctypes, "CDLL", absent)
    assert providers._missing_library(onnxruntime) == "libcudnn.so.9"


def test_trial_model_runs_on_onnx_runtime():
    session = onnxruntime.InferenceSession(providers._probe_model(), providers=["CPUExecutionProvider"])
    x = np.eye(8, dtype=np.float32) * 3
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x @ x)


def test_required_distribution_follows_the_platform(monkeypatch):
    for system, machine, name in (
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("darwin", "arm64", "onnxruntime"),
        ("linux", "aarch64", "onnxruntime"),
    ):
        monkeypatch.setattr(_ort.sys, "platform", system)
        monkeypatch.setattr(_ort.platform, "machine", lambda machine=machine: machine)
        assert _ort.required_distribution() == name


def test_importing_the_layer_loads_nothing_heavy():
    code = (
        "import sys, vogcore.runtime as r; assert 'choose_provider' in r.__all__; "
        "print([m for m in ('onnxruntime', 'onnx', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_name():
    import vogcore.runtime

    with pytest.raises(AttributeError, match="no attribute 'Sesion'"):
        vogcore.runtime.Sesion  # noqa: B018
