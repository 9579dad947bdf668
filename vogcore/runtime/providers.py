"""Which hardware a model runs on, and why CUDA does not when it does not.

ONNX Runtime answers a request for CUDA that it cannot meet with a CPU session and a line on stderr, so nothing here
believes a request: the providers of a session that really ran are what counts.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import io
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vogcore.errors import ProviderError, SettingsError, VogcoreWarning
from vogcore.runtime import _ort

__all__ = [
    "CudaProbe",
    "Provider",
    "available_providers",
    "choose_provider",
    "installed_distributions",
    "probe_cuda",
    "repair_command",
]

repair_command = _ort.repair_command

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_REQUESTS = ("auto", "cpu", "cuda")
# TensorFloat-32 keeps 10 bits of a factor's mantissa; gradients must be float32 wherever they are computed.
_CUDA_OPTIONS = {"device_id": "0", "use_tf32": "0"}


@dataclass(frozen=True)
class Provider:
    """Where sessions run.

    Attributes:
        name: "cpu" or "cuda".
        ort_providers: what an ONNX Runtime session is given: names, or pairs of name and options, best first.
        device: for people and for the settings record: "cpu", or "cuda:0 (name of the GPU)".
    """

    name: str
    ort_providers: list[str | tuple[str, dict[str, str]]] = field(hash=False)
    device: str

    def check(self, active: list[str]) -> None:
        """Compare the providers that a session has with those it was asked for.

        Raises:
            ProviderError: the session asked for CUDA and quietly became a CPU session.
        """
        if self.name == "cuda" and _CUDA not in active:
            raise ProviderError(
                f"ONNX Runtime was asked for CUDA on {self.device} but made a session on {', '.join(active)}: "
                "check the CUDA and cuDNN libraries (pip install 'vogcore[gpu]') or choose the provider 'cpu'."
            )


@dataclass(frozen=True)
class CudaProbe:
    """What trying CUDA once showed.

    Attributes:
        device: name of the first GPU that the driver offers, also where ONNX Runtime cannot use it.
        problem: why no session runs there, or None where one ran.
        remedy: what to do about it.
    """

    device: str | None
    problem: str | None
    remedy: str = ""


def choose_provider(request: str = "auto") -> Provider:
    """Choose the execution provider for this process.

    Args:
        request: "cpu"; "cuda", which must work; or "auto", CUDA where a small session really runs on it, else the
            CPU. The trial is made once in a process.

    Raises:
        SettingsError: another request.
        ProviderError: CUDA was asked for and cannot run, with the reason and the remedy; or ONNX Runtime itself is
            missing or broken.

    Warns:
        VogcoreWarning: both ONNX Runtime distributions are installed; or "auto" found a GPU that ONNX Runtime cannot
            use, and takes the CPU.
    """
    if request not in _REQUESTS:
        raise SettingsError(f"Unknown provider {request!r}: choose one of {', '.join(_REQUESTS)}.")
    if _both_distributions():
        message = (
            "Both onnxruntime and onnxruntime-gpu are installed and overwrite each other's files: "
            f"run {_ort.repair_command()}."
        )
        if request == "cuda":
            raise ProviderError(message)
        warnings.warn(message, VogcoreWarning, stacklevel=2)
    cpu = Provider("cpu", [_CPU], "cpu")
    if request == "cpu":
        _ort.load()
        return cpu
    probe = _probe_cuda()
    if probe.problem is None:
        return Provider("cuda", [(_CUDA, dict(_CUDA_OPTIONS)), _CPU], f"cuda:0 ({probe.device})")
    if request == "cuda":
        raise ProviderError(f"CUDA was asked for, but {probe.problem}: {probe.remedy}, or choose the provider 'cpu'.")
    if probe.device is not None:
        warnings.warn(
            f"The GPU {probe.device} is not used because {probe.problem}: {probe.remedy}, "
            "or choose the provider 'cpu' to silence this.",
            VogcoreWarning,
            stacklevel=2,
        )
    return cpu


def installed_distributions() -> dict[str, str]:
    """Version of every installed distribution of ONNX Runtime, by its name; two of them break each other."""
    installed = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def _both_distributions() -> bool:
    return len(installed_distributions()) == 2


def available_providers() -> list[str]:
    """Execution providers that the installed ONNX Runtime was built with, which need not work here.

    Raises:
        ProviderError: it is missing or broken.
    """
    return list(_ort.load().get_available_providers())


def probe_cuda() -> CudaProbe:
    """Try CUDA, once in a process; takes seconds where there is a GPU.

    Raises:
        ProviderError: ONNX Runtime itself is missing or broken.
    """
    return _probe_cuda()


@functools.cache
def _probe_cuda() -> CudaProbe:
    ort = _ort.load()
    if _CUDA not in ort.get_available_providers():
        # No driver call here: a user of the CPU build has decided, and is not to be warned of an unused GPU.
        if _ort.required_distribution() == "onnxruntime":
            remedy = "CUDA builds exist for Linux x86_64 and Windows AMD64 only, use one of those"
        else:
            remedy = f"run {_ort.repair_command()}"
        return CudaProbe(None, f"the installed ONNX Runtime {ort.__version__} has no CUDA provider", remedy)
    # The driver is asked first: it answers in milliseconds, where loading the CUDA provider takes seconds.
    devices, problem = _cuda_devices()
    if problem is not None:
        return CudaProbe(None, problem, "install the NVIDIA driver and make a GPU visible to this process")
    problem = _try_session(ort)
    if problem is None:
        return CudaProbe(devices[0], None)
    library = _missing_library(ort)
    if library is not None:
        return CudaProbe(devices[0], f"the library {library} cannot be loaded", "run pip install 'vogcore[gpu]'")
    return CudaProbe(devices[0], problem, "update the NVIDIA driver or run pip install 'vogcore[gpu]'")


def _cuda_devices() -> tuple[list[str], str | None]:
    """Names of the GPUs that the CUDA driver offers, and the reason if there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return [], "this machine has no NVIDIA driver"
    status = driver.cuInit(0)
    count = ctypes.c_int(0)
    status = status or driver.cuDeviceGetCount(ctypes.byref(count))
    if status == 100 or (status == 0 and count.value == 0):  # 100: CUDA_ERROR_NO_DEVICE
        return [], "the NVIDIA driver offers no GPU to this process (CUDA_VISIBLE_DEVICES may hide it)"
    if status != 0:
        return [], f"the NVIDIA driver does not start (CUDA error {status})"
    names = []
    for index in range(count.value):
        name = ctypes.create_string_buffer(128)
        known = driver.cuDeviceGetName(name, len(name), index) == 0
        names.append(name.value.decode(errors="replace") if known else "unnamed GPU")
    return names, None


def _try_session(ort: Any) -> str | None:
    """Run a small product on CUDA; what went wrong, or None."""
    if hasattr(ort, "preload_dlls"):
        # Finds the CUDA libraries of the nvidia wheels; it prints what it misses, and the session below says it too.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    ort.set_default_logger_severity(4)  # the failure is reported in our sentence
    try:
        session = ort.InferenceSession(
            _probe_model(), options, providers=[(_CUDA, dict(_CUDA_OPTIONS))], enable_fallback=0
        )
        active = session.get_providers()
        if _CUDA not in active:
            return f"ONNX Runtime made a session on {', '.join(active)} instead"
        x = np.linspace(-1.0, 1.0, 64, dtype=np.float32).reshape(8, 8)
        (y,) = session.run(None, {"x": x})
    except _ort.failures() as error:
        return f"a session on it fails ({_ort.sentence(error)})"
    finally:
        ort.set_default_logger_severity(2)  # ONNX Runtime's default; the level cannot be read back
    if not np.allclose(y, x @ x, rtol=1e-5, atol=1e-5):
        return "a small matrix product on it is wrong"
    return None


def _probe_model() -> bytes:
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 8])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _missing_library(ort: Any) -> str | None:
    """Name of the shared library that keeps the CUDA provider from loading, where that is the reason.

    Only for after a failed session: a provider library that is opened before ONNX Runtime has introduced itself to
    it would crash later.
    """
    if sys.platform != "linux":
        return None
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return str(error).split(":", 1)[0]
    return None
