"""ONNX Runtime as the other modules of this layer see it: imported late, its errors in one sentence."""

from __future__ import annotations

import functools
import platform
import re
import sys
from typing import Any

from vogcore.errors import ProviderError

__all__ = ["failures", "is_out_of_memory", "load", "repair_command", "required_distribution", "sentence"]

_PREFIX = re.compile(r"^\s*\[ONNXRuntimeError\] : \d+ : \w+ : ")
# "/src/onnxruntime/core/x.cc:12 void* onnxruntime::A::B(size_t, bool) ": where in ONNX Runtime's own source it
# failed, which tells a user nothing.
_SOURCE_PLACE = re.compile(r"\S+\.(?:cc|cpp|cu|cuh|h|hpp):\d+ (?:[^()]*\([^()]*\) (?:const )?)?")
_MEMORY = re.compile(
    r"failed to allocate memory|bad_alloc|bad allocation|out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation|CUDA failure 2\b",
    re.IGNORECASE,
)
_LONGEST = 400


def required_distribution() -> str:
    """Name of the one ONNX Runtime distribution that vogcore requires on this platform."""
    gpu_build = (sys.platform, platform.machine()) in {("linux", "x86_64"), ("win32", "AMD64")}
    return "onnxruntime-gpu" if gpu_build else "onnxruntime"


def repair_command() -> str:
    """Shell command that leaves exactly one, whole ONNX Runtime distribution."""
    return f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install '{required_distribution()}>=1.27'"


def load() -> Any:
    """The module onnxruntime.

    Raises:
        ProviderError: it is missing, or what uninstalling one of two distributions left behind.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(f"ONNX Runtime cannot be imported ({error}): run {repair_command()}.") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise ProviderError(f"The installed ONNX Runtime is incomplete: run {repair_command()}.")
    return onnxruntime


@functools.cache
def failures() -> tuple[type[Exception], ...]:
    """Every exception that ONNX Runtime raises; its own ones share no base below Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure means that host or device memory ran out."""
    return isinstance(error, MemoryError) or _MEMORY.search(str(error)) is not None


def sentence(error: BaseException) -> str:
    """First line of an ONNX Runtime message without status code and source position, and without a final stop."""
    text = _PREFIX.sub("", str(error)).strip() or type(error).__name__
    text = _SOURCE_PLACE.sub("", text.splitlines()[0]).strip()
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rstrip() + " ..."
    return text.removesuffix(".")
