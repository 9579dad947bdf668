"""A long run: ``python -m tests.fuzz --cases 20000 --first 100000``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.targets import READERS, write_seeds
from tests.fuzz.watch import fuzz


def main() -> int:
    """Fuzz the chosen targets; exit status 1 where a case was neither read nor refused."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(READERS)}; all by default")
    parser.add_argument("--cases", type=int, default=10_000, help="for each target")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation of each file")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        seeds = write_seeds(Path(folder))
        for target in options.targets or READERS:
            begun = time.perf_counter()
            report = fuzz(target, seeds[target], options.cases, processes=options.processes, first=options.first)
            counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.most_common())
            print(f"{target}: {counts} in {time.perf_counter() - begun:.0f} s", *report.failures, sep="\n", flush=True)
            failed = failed or bool(report.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
