"""How many threads this process may keep busy."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CpuCounts", "cpu_counts", "usable_cpus"]

_QUOTA_FILE = "/sys/fs/cgroup/cpu.max"


@dataclass(frozen=True)
class CpuCounts:
    """CPUs of a machine and of this process.

    Attributes:
        machine: logical CPUs of the machine.
        affinity: those in this process's affinity mask.
        quota: how many a container's quota (cgroup v2) allows, a fraction possibly, or None without one.
    """

    machine: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """CPUs in the affinity mask, or fewer where the quota is smaller; at least 1."""
        count = self.affinity if self.quota is None else min(self.affinity, int(self.quota))
        return max(count, 1)


def cpu_counts(quota_file: str = _QUOTA_FILE) -> CpuCounts:
    """What the system says about its CPUs."""
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    limit = None
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = Path(quota_file).read_text(encoding="ascii").split()
        limit = int(quota) / int(period)  # "max 100000" is no number: no quota
    return CpuCounts(machine, affinity, limit)


def usable_cpus(quota_file: str = _QUOTA_FILE) -> int:
    """CPUs in this process's affinity mask, or fewer where a container's quota (cgroup v2) is smaller; at least 1.

    ONNX Runtime's own default counts the machine's cores and pins threads to them, which oversubscribes a container
    and prints errors where pinning is not allowed.
    """
    return cpu_counts(quota_file).usable
