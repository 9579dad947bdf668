"""What a measurement was taken on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["TimedCommand", "last_level_cache_mib", "machine", "peak_memory_mib", "run_timed", "versions"]

PACKAGES = ("vogcore", "numpy", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "h5py", "numba")


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, operating system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return {"processor": _processor(), "cores": cores, "memory_gib": memory, "system": platform.platform()}


def last_level_cache_mib() -> float | None:
    """Size of the largest cache that the system reports, None where it reports none."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(float(text[:-1]) * {"K": 2.0**-10, "M": 1.0, "G": 2.0**10}[text[-1]])
    return max(sizes, default=None)


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
    """Run a command in ``directory`` with its output passed through.

    A small process stands in between: what Linux tells about a child counts the memory of the parent that started it.
    """
    if not hasattr(os, "wait4"):
        started = time.perf_counter()
        status = subprocess.run(command, cwd=directory, check=False).returncode
        return TimedCommand(status, time.perf_counter() - started, None)
    reader, writer = os.pipe()
    with open(reader) as answer:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TIMER, str(writer), *command], cwd=directory, pass_fds=[writer]
        )
        os.close(writer)
        with process:
            said = answer.read().split()
    if len(said) != 3:
        raise OSError(f"{command[0]} could not be run")
    status, seconds, peak = said
    unit = 2**20 if platform.system() == "Darwin" else 2**10  # ru_maxrss is in bytes there, in KiB on Linux
    return TimedCommand(int(status), float(seconds), round(int(peak) / unit, 1))


_TIMER = """
import os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - started
with open(int(sys.argv[1]), "w") as answer:
    print(os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss, file=answer)
"""


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss, which starts with that of the process that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 2**10, 1)
    import resource

    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
