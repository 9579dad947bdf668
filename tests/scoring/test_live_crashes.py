"""Live runs that are killed, lose power or fill the disk: no complete checkpoint is lost, none counts twice."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring import live_runs as t
from tests.store.power import PowerCut
from vogcore.errors import StoreError
from vogcore.scoring.live import LiveScorer
from vogcore.store import _system

ROOT = Path(__file__).parents[2]

KILLED = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, os.getcwd())
from tests.scoring import live_runs as t
import numpy as np
from vogcore.scoring.live import LiveScorer

folder, kills_wanted = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(int(sys.argv[3]))
wanted = t.expected(folder)  # compiles the kernels, too
live = folder / "live"
kills = finished = most = 0
while kills < kills_wanted:
    batch = int(rng.integers(1, 12))
    child = os.fork()
    if child == 0:
        try:
            t.run(live, batch)
            os._exit(0)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
            os._exit(1)
    time.sleep(float(rng.exponential(0.06)))
    try:
        os.kill(child, 9)
    except ProcessLookupError:
        pass
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        kills += 1
        if (live / "run.h5").exists():
            with LiveScorer.open(live) as scorer:
                count = len(scorer.checkpoints)
            if count < most:
                sys.exit(f"after {kills} kills there are {count} complete checkpoints, and there were {most}")
            most = count
    elif os.WEXITSTATUS(status) == 0:
        with LiveScorer.open(live) as scorer:
            t.check_same(scorer.scores(), wanted)
        for path in live.iterdir():
            path.unlink()
        most = 0
        finished += 1
    else:
        sys.exit(f"a run failed after {kills} kills")
t.run(live)
with LiveScorer.open(live) as scorer:
    t.check_same(scorer.scores(), wanted)
print(kills, finished)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_120_kills_at_random_moments_lose_no_complete_checkpoint(tmp_path):
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), "120", "0"],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    kills, finished = map(int, result.stdout.split())
    assert kills == 120
    print(f"{kills} kills, {finished} runs completed in between")


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    return t.expected(tmp_path_factory.mktemp("archive"))


@settings(max_examples=25, deadline=None)
@given(chance=st.randoms(use_true_random=False), data=st.data())
def test_a_loss_of_power_at_any_moment_loses_no_complete_checkpoint(wanted, chance, data):
    """Unsynced writes are dropped, kept or torn, sector by sector; names that were not synced are old or new."""
    power = PowerCut()
    complete: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_system, "SYSTEM", power)
        patch.setattr(os, "fsync", lambda descriptor: None)  # noted all the same
        with t.scorer(Path(folder) / "live") as live:
            begun = len(power.steps)
            for k in range(5):
                t.add(live, k, batch=9)
                complete.append((len(power.steps), len(live.checkpoints)))
        count = data.draw(st.integers(begun, len(power.steps)))
        left = power.state(count, chance, data.draw(st.sampled_from([0.0, 0.5, 1.0])))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        path = Path(folder) / "live"
        path.mkdir()
        for name, content in left.items():
            (path / name).write_bytes(content)
        known = max((number for steps, number in complete if steps <= count), default=0)
        with t.scorer(path) as live:
            assert len(live.checkpoints) >= known
        t.run(path)
        with LiveScorer.open(path) as live:
            t.check_same(live.scores(), wanted)


def test_a_loss_of_power_never_leaves_a_checkpoint_that_counts_without_its_shards(tmp_path, monkeypatch):
    power = PowerCut()
    monkeypatch.setattr(_system, "SYSTEM", power)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    with t.scorer(tmp_path / "live") as live:
        for k in range(3):
            t.add(live, k)
    count = max(i for i, step in enumerate(power.steps) if step[:2] == ("replace", "checkpoints.h5")) + 1
    for seed in range(20):
        path = tmp_path / str(seed)
        path.mkdir()
        for name, content in power.state(count, random.Random(seed)).items():
            (path / name).write_bytes(content)
        with LiveScorer.open(path) as live:
            assert len(live.checkpoints) == 3  # all shards have it, whether the list was renamed or not
            live.scores()


class FullDisk(_system.System):
    """Refuses to write, sync or rename at one of its calls, and from then on until there is room again."""

    def __init__(self, refuse_at: int) -> None:
        self.left = refuse_at
        self.room = False

    def _maybe(self) -> None:
        self.left -= 1
        if self.left < 0 and not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, descriptor, data, offset):
        self._maybe()
        super().write(descriptor, data, offset)

    def sync(self, descriptor):
        self._maybe()
        super().sync(descriptor)

    def replace(self, source, target):
        self._maybe()
        super().replace(source, target)


@pytest.mark.parametrize("refuse_at", range(0, 45, 2))
def test_a_full_disk_loses_no_complete_checkpoint(tmp_path, monkeypatch, wanted, refuse_at):
    with t.scorer(tmp_path / "live") as live:
        for k in range(2):
            t.add(live, k)
        disk = FullDisk(refuse_at)
        monkeypatch.setattr(_system, "SYSTEM", disk)
        with pytest.raises(StoreError, match="the disk is full; what was added before is kept"):
            t.add_all(live, 2)
        assert not list((tmp_path / "live").glob("*.new"))
        reached = len(live.checkpoints)
        assert reached >= 2
        disk.room = True
        t.add_all(live, reached)  # the same object goes on
        t.check_same(live.scores(), wanted)


def test_too_small_a_disk_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    with t.scorer(tmp_path / "live") as live:
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
        with pytest.raises(StoreError, match=r"need 0\.00 GB in .* free some space"):
            live.checkpoint("a")
        assert live.interrupted is None


def test_a_checkpoint_reads_and_writes_the_moments_once(tmp_path, monkeypatch):
    written = []

    class Counting(_system.System):
        def write(self, descriptor, data, offset):
            written.append(len(data))
            super().write(descriptor, data, offset)

    with t.scorer(tmp_path / "live") as live:
        monkeypatch.setattr(_system, "SYSTEM", Counting())
        sizes = []
        for k in range(t.K):
            written.clear()
            live.add(t.name(k), [(0, t.gradients(k))])
            sizes.append(sum(written))
            files = sorted(path.name for path in (tmp_path / "live").glob("shard*"))
            assert files == [f"shard-{shard:05d}.00000-{k + 1:05d}.h5" for shard in range(4)]
    moments = t.N * 16 * 16
    tables = 5 * 16384  # HDF5's own, of four shards and the list
    assert all(moments < size < moments + tables for size in sizes)
    assert sizes[-1] - sizes[0] < t.K * (t.N * 8 + 5 * 200)  # 8 bytes for each example, and the names
