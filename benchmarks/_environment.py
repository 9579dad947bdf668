"""What a measurement was taken on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["TimedCommand", "machine", "run_timed", "versions"]

PACKAGES = ("vogcore", "numpy", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "h5py", "numba")


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, operating system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return {"processor": _processor(), "cores": cores, "memory_gib": memory, "system": platform.platform()}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Version of Python and of every installed package that the measurement may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class TimedCommand:
    """What a command cost.

    Attributes:
        status: its exit status.
        seconds: wall time from start to exit, interpreter start and imports included.
        peak_memory_mib: largest resident memory, None where the system does not tell.
    """

    status: int
    seconds: float
    peak_memory_mib: float | None


def run_timed(command: list[str], directory: Path) -> TimedCommand:
    """Run a command in ``directory`` with its output passed through."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=directory) as process:
        if not hasattr(os, "wait4"):
            return TimedCommand(process.wait(), time.perf_counter() - started, None)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
    unit = 2**20 if platform.system() == "Darwin" else 2**10  # ru_maxrss is in bytes there, in KiB on Linux
    return TimedCommand(process.returncode, seconds, round(usage.ru_maxrss / unit, 1))
