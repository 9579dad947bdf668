"""Reads mutated files one after the other and says so on standard output; it may crash or hang, the parent watches.

``python -m tests.fuzz.worker TARGET SEED_FILE FIRST COUNT FOLDER``: a line with the number of each case before it is
read, and one with its outcome afterwards.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sys
import traceback
import zlib
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import READERS
from vogcore.errors import VogcoreError

__all__ = ["mutated"]

_MEMORY = 512 << 20
"""Bytes that a reader may ask for beyond what the process has before the first case; the files hold some 10 KB.

libhdf5 asks for buffers of the size that a header claims and finds out when it fills them that the file is too short.
Such a request costs nothing unless the memory is touched, so it counts only where the process grows.
"""
_GROWTH = 128 << 10
"""Kilobytes by which the process may really grow in one case."""


def mutated(target: str, seed: Path, number: int) -> bytes:
    """The content of one case."""
    rng = np.random.default_rng([zlib.crc32(f"{target}/{seed.name}".encode()), number])
    return mutate(seed.read_bytes(), rng)


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether a refused allocation is behind an error: then something was sized by what the file claims."""
    while error is not None:
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _kilobytes(name: str) -> int:
    """A figure of this process's memory as Linux tells it; ``getrusage`` would count what its parent had."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(f"{name}:"))


def _outcome(target: str, path: Path) -> str:
    before = _kilobytes("VmHWM")
    outcome = _read(target, path)
    growth = _kilobytes("VmHWM") - before
    return f"memory {growth} KB more, then {outcome}" if growth > _GROWTH else outcome


def _read(target: str, path: Path) -> str:
    try:
        READERS[target](path)
    except VogcoreError as error:
        if _out_of_memory(error):
            return "memory " + _where(error.__cause__ or error)
        return "long " + repr(str(error)) if "\n" in str(error) else "refused"
    except BaseException as error:  # noqa: BLE001
        return ("memory " if _out_of_memory(error) else "wrong ") + _where(error)
    return "read"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    inner = next((f for f in reversed(frames) if "vogcore" in f.filename), frames[-1] if frames else None)
    place = f"{Path(inner.filename).name}:{inner.lineno}" if inner else "?"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:200]}"


def main(target: str, seed: Path, first: int, count: int, folder: Path) -> None:
    """Run the cases ``first`` to ``first + count`` of one seed file."""
    for beside in seed.parent.glob(f"{seed.stem}.data"):
        shutil.copy(beside, folder / beside.name)
    path = folder / f"case{seed.suffix}"
    path.write_bytes(seed.read_bytes())
    READERS[target](path)  # what is imported or compiled on first use does not count; and the seed itself must be valid
    used = _kilobytes("VmSize") << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, first + count):
        print(number, end=" ", flush=True)
        path.write_bytes(mutated(target, seed, number))
        print(_outcome(target, path).replace("\n", " "), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    os._exit(0)  # what a damaged file left behind in HDF5 may crash on the way out
