"""Runs workers, notices when one dies or falls silent, and goes on with the next case."""

from __future__ import annotations

import collections
import dataclasses
import os
import queue
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["Report", "fuzz"]

ROOT = Path(__file__).parents[2]
_SILENCE = 20.0
"""Seconds without a line after which a case counts as hanging; one takes milliseconds."""
_START = 120.0
"""Seconds until the first case: imports, on a busy machine."""


@dataclasses.dataclass
class Report:
    """What became of the cases of one target."""

    target: str
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """How many cases were ``read``, ``refused``, ``wrong`` (another exception), ``long`` (more than one line),
    ``memory`` (an allocation beyond the limit), ``crash`` or ``hang``."""
    failures: list[str] = dataclasses.field(default_factory=list)
    """Seed file, number and story of every case that was neither read nor refused."""

    def add(self, other: Report) -> None:
        """Take in the report on another part of the cases."""
        self.counts.update(other.counts)
        self.failures += other.failures


def fuzz(target: str, seeds: list[Path], cases: int, *, processes: int = 2, first: int = 0) -> Report:
    """Mutate every seed file ``cases`` times in all, shared evenly, from number ``first`` on.

    Args:
        target: a reader of :mod:`tests.fuzz.targets`.
        seeds: valid files.
        cases: mutations in all.
        processes: workers at a time.
        first: number of the first mutation of each file; the same numbers give the same mutations.
    """
    report = Report(target)
    each = -(-cases // len(seeds))
    with ThreadPoolExecutor(processes) as pool:
        for part in pool.map(lambda seed: _fuzz_file(target, seed, first, each), seeds):
            report.add(part)
    return report


def _fuzz_file(target: str, seed: Path, first: int, count: int) -> Report:
    report = Report(target)
    at, end = first, first + count
    while at < end:
        at = _run_worker(report, target, seed, at, end) + 1
    return report


def _run_worker(report: Report, target: str, seed: Path, at: int, end: int) -> int:
    """Run one worker to its end; the number of the last case that it began."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.fuzz.worker", target, str(seed), str(at), str(end - at), folder]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=environment) as process,
        ):
            status = _follow(report, process, seed, at)
            process.kill()
            errors.seek(0)
            story = errors.read()[-2000:]
    begun, outcome = status
    if outcome == "end" and begun < end - 1:
        outcome = "crash"
    if begun < at:
        raise RuntimeError(f"the worker for {seed} did not start: {outcome}\n{story}")
    if outcome != "end":
        report.counts[outcome] += 1
        report.failures.append(f"{report.target} {seed.name} {begun}: {outcome} {' '.join(story.split())[-300:]}")
    return begun


def _follow(report: Report, process: subprocess.Popen[bytes], seed: Path, at: int) -> tuple[int, str]:
    """Read the worker's lines until it ends or is silent; the last case begun, and how it ended."""
    lines: queue.Queue[bytes] = queue.Queue()

    def forward() -> None:
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), 65536):
            lines.put(chunk)
        lines.put(b"")

    threading.Thread(target=forward, daemon=True).start()
    begun, text, started = at - 1, "", False
    while True:
        try:
            chunk = lines.get(timeout=_SILENCE if started else _START)
        except queue.Empty:
            return begun, "hang"
        if not chunk:
            return begun, "end" if not text.strip() else "crash"
        started = True
        *whole, text = (text + chunk.decode("utf-8", "replace")).split("\n")
        for line in whole:
            number, _, outcome = line.partition(" ")
            begun = int(number)
            kind = outcome.split(" ", 1)[0]
            report.counts[kind] += 1
            if kind not in ("read", "refused"):
                report.failures.append(f"{report.target} {seed.name} {begun}: {outcome}")
        if text.strip().isdigit() and text.endswith(" "):
            begun = int(text)
