"""How many threads this process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["usable_cpus"]

_QUOTA_FILE = "/sys/fs/cgroup/cpu.max"


def usable_cpus(quota_file: str = _QUOTA_FILE) -> int:
    """CPUs in this process's affinity mask, or fewer where a container's quota (cgroup v2) is smaller; at least 1.

    ONNX Runtime's own default counts the machine's cores and pins threads to them, which oversubscribes a container
    and prints errors where pinning is not allowed.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        quota, period = Path(quota_file).read_text(encoding="ascii").split()
        count = min(count, int(quota) // int(period))  # "max 100000" is no number: no quota
    except (OSError, ValueError, ZeroDivisionError):
        pass
    return max(count, 1)
