"""Every reader against thousands of mutated files: they are read or refused, and nothing else happens.

VOGCORE_FUZZ_CASES sets how many mutations each reader gets; ``python -m tests.fuzz`` runs for longer and says more.
"""

from __future__ import annotations

import os
import sys

import h5py
import numpy as np
import pytest

from tests.fuzz.hdf5_checksum import mended
from tests.fuzz.targets import READERS, write_seeds
from tests.fuzz.watch import fuzz

CASES = int(os.environ.get("VOGCORE_FUZZ_CASES", "700"))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return write_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory as Linux has them")
@pytest.mark.parametrize("target", READERS)
def test_mutated_files_are_read_or_refused(target, seeds):
    report = fuzz(target, seeds[target], CASES)
    assert report.failures == []
    assert sum(report.counts.values()) >= CASES
    assert report.counts["refused"] > CASES / 10  # the mutations do harm
    assert report.counts["read"] > CASES / 20  # and not so much that nothing behind the first check is reached


def test_a_worker_that_crashes_or_hangs_is_noticed(seeds, monkeypatch, tmp_path):
    from tests.fuzz import watch

    monkeypatch.setattr(watch, "_SILENCE", 2.0)
    program = tmp_path / "worker"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        "first, count = int(sys.argv[5]), int(sys.argv[6])\n"
        "for number in range(first, first + count):\n"
        "    print(number, end=' ', flush=True)\n"
        "    if number == 2: os.abort()\n"
        "    if number == 4: time.sleep(60)\n"
        "    print('read', flush=True)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(watch.sys, "executable", str(program))
    report = fuzz("scores", seeds["scores"][:1], 7, processes=1)
    assert report.counts == {"read": 5, "crash": 1, "hang": 1}
    assert [failure.split(":")[0].split()[-1] for failure in report.failures] == ["2", "4"]


def test_checksums_are_those_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file["group/x"] = np.arange(5)
        file["group"].attrs["name"] = "value"
    content = (tmp_path / "x.h5").read_bytes()
    assert mended(content) == content
    damaged = bytearray(content)
    damaged[content.index(b"OHDR") + 8] ^= 1
    assert mended(bytes(damaged)) != damaged
