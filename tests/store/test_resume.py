"""Archives that are gone on with after a kill, a loss of power, a full disk, a cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.power import PowerCut
from vogcore.errors import GradientError, OutputExistsError, StoreError, VogcoreWarning
from vogcore.store import CheckpointInfo, GradientWriter, _system, _writer, open_gradients

ROOT = Path(__file__).parents[2]
K, N, SHAPE, BLOCK = 3, 22, (3, 5), 4
CHECKPOINTS = [CheckpointInfo(f"c{k}", k, None, "ab" * 32) for k in range(K)]


def gradients(k: int, start: int, stop: int) -> np.ndarray:
    """What an undisturbed run writes."""
    return np.random.default_rng(k).normal(size=(N, *SHAPE)).astype(np.float32)[start:stop]


def logits(k: int, start: int, stop: int) -> np.ndarray:
    return np.random.default_rng(100 + k).normal(size=(N, 2)).astype(np.float32)[start:stop]


def writer(path: Path, **options: object) -> GradientWriter:
    defaults: dict = {"block_size": BLOCK, "resume": True, "labels": np.arange(N) % 3, "settings": {"of": "logit"}}
    return GradientWriter(path, N, SHAPE, **(defaults | options))


def run(path: Path, *, batch: int = 3, stop_after: int | None = None, **options: object) -> list[tuple[int, int, int]]:
    """Write what is missing, batch by batch, and finish; returns what had to be computed."""
    computed = []
    with writer(path, **({"n_logits": 2} | options)) as archive:
        archive.set_checkpoints(CHECKPOINTS)
        for k in range(K):
            for first, last in archive.missing(k):
                for start in range(first, last, batch):
                    stop = min(start + batch, last)
                    if len(computed) == stop_after:
                        raise KeyboardInterrupt
                    computed.append((k, start, stop))
                    archive.write(k, start, gradients(k, start, stop))
                    archive.write_logits(k, start, logits(k, start, stop))
    return computed


def check(path: Path) -> None:
    with open_gradients(path) as archive:
        for k in range(K):
            assert archive.read(k, 0, N).tobytes() == gradients(k, 0, N).tobytes()
            assert archive.read_logits(k, 0, N).tobytes() == logits(k, 0, N).tobytes()
        assert archive.checkpoints == CHECKPOINTS


@pytest.mark.parametrize("compression", [None, "lz4"])
@pytest.mark.parametrize("stop_after", [0, 1, 5, 13, 20])
def test_an_interrupted_archive_goes_on_from_its_last_complete_block(tmp_path, stop_after, compression):
    if compression is not None:
        pytest.importorskip("hdf5plugin", reason="compression needs hdf5plugin")
    path = tmp_path / "g.h5"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop_after=stop_after, compression=compression)
    assert os.listdir(tmp_path) == ["g.h5.partial"]
    computed = run(path, compression=compression)
    whole = sum(-(-(b - a) // 3) for a, b in [(0, N)] * K)
    assert len(computed) <= whole - stop_after + 2  # of a block that was begun, the rows are computed again
    check(path)
    assert os.listdir(tmp_path) == ["g.h5"]


def test_an_archive_without_announced_checkpoints_goes_on(tmp_path):
    archive = writer(tmp_path / "g.h5")
    archive.write("one", 0, gradients(0, 0, N))
    archive.write("two", 0, gradients(1, 0, 9))
    with pytest.raises(GradientError, match="not complete"):
        archive.close()
    with writer(tmp_path / "g.h5") as archive:
        assert archive.n_checkpoints == 2
        assert archive.missing(0) == []
        assert archive.missing(1) == [(8, N)]
        archive.write("one", 0, gradients(0, 0, N))  # skipped: it is complete
        archive.write("two", 8, gradients(1, 8, N))
        with pytest.raises(GradientError, match="gradients of example 12 at checkpoint 'two' have been written"):
            archive.write("two", 12, gradients(1, 12, 13))
        archive.write("three", 0, gradients(2, 0, N))
    with open_gradients(tmp_path / "g.h5") as archive:
        assert [info.name for info in archive.checkpoints] == ["one", "two", "three"]
        for k in range(K):
            assert archive.read(k, 0, N).tobytes() == gradients(k, 0, N).tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": np.zeros(N, int)}, "the labels"),
        ({"ids": np.arange(N) + 1}, "the ids of the examples"),
        ({"settings": {"of": "loss", "data": {"sha256": "ff"}}}, 'of: "logit" then, "loss" now; data: null then'),
        ({"block_size": 5}, "block_size: 4 then, 5 now"),
        ({"dtype": "float16"}, "dtype: float32 then, float16 now"),
        ({"channel_axis": 1}, "channel axis: None then, 1 now"),
        ({"classes": ["a", "b", "c"]}, "class names"),
    ],
)
def test_another_run_is_refused_and_what_changed_is_named(tmp_path, options, message):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "g.h5", stop_after=5)
    before = (tmp_path / "g.h5.partial").read_bytes()
    with pytest.raises(OutputExistsError) as caught:
        writer(tmp_path / "g.h5", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "g.h5.partial").read_bytes() == before
    with pytest.raises(GradientError, match="Checkpoint 0 is 'c0' already"), writer(tmp_path / "g.h5") as archive:
        archive.set_checkpoints([CheckpointInfo("x"), CheckpointInfo("y"), CheckpointInfo("z")])
    run(tmp_path / "g.h5")
    check(tmp_path / "g.h5")


def test_checkpoints_that_changed_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "g.h5", stop_after=5)
    changed = [CHECKPOINTS[0], CheckpointInfo("c1", 1, None, "cd" * 32), CHECKPOINTS[2]]
    with pytest.raises(OutputExistsError, match="checkpoint 'c1' has changed"), writer(tmp_path / "g.h5") as archive:
        archive.set_checkpoints(changed)


def test_what_does_not_match_is_replaced_when_asked_for(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "g.h5", stop_after=5, settings={"of": "loss"})
    assert len(run(tmp_path / "g.h5", overwrite=True)) == 24
    check(tmp_path / "g.h5")


def test_overwrite_goes_on_with_what_matches(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "g.h5", stop_after=13)
    assert len(run(tmp_path / "g.h5", overwrite=True)) < 24
    check(tmp_path / "g.h5")


def test_a_second_writer_is_refused(tmp_path):
    with writer(tmp_path / "g.h5") as first:
        first.write("a", 0, gradients(0, 0, N))
        for options in ({}, {"overwrite": True}):
            with pytest.raises(OutputExistsError, match="is being written"):
                writer(tmp_path / "g.h5", **options)


def test_the_journal_of_a_deleted_file_is_not_applied(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "old.h5", stop_after=5)
    power = PowerCut()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_system, "SYSTEM", power)
        run(tmp_path / "g.h5")
    journal = next(step[3] for step in power.steps if step[:2] == ("write", "g.h5.partial.journal"))
    (tmp_path / "g.h5").unlink()
    (tmp_path / "g.h5.partial.journal").write_bytes(journal)
    run(tmp_path / "g.h5")
    check(tmp_path / "g.h5")


def test_a_cut_file_loses_only_what_was_cut_off(tmp_path):
    path, partial = tmp_path / "g.h5", tmp_path / "g.h5.partial"
    announced = {"checkpoints": CHECKPOINTS}
    with pytest.raises(KeyboardInterrupt):
        run(path, stop_after=20, **announced)
    content = partial.read_bytes()
    named, messages = 0, set()
    for size in [*range(0, len(content), 1499), *range(len(content) - 2000, len(content), 251)]:
        partial.write_bytes(content[:size])
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", VogcoreWarning)
                run(path, **announced)
        except StoreError as error:
            messages.add(str(error))
            assert partial.read_bytes()[:size] == content[:size]
            partial.unlink()
            continue
        check(path)
        path.unlink()
        named += any("was cut short" in str(w.message) for w in caught)
    assert named
    assert messages
    assert not any("\n" in message for message in messages)


def test_a_cut_is_still_known_after_a_run_that_was_refused(tmp_path):
    path, partial = tmp_path / "g.h5", tmp_path / "g.h5.partial"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop_after=20, checkpoints=CHECKPOINTS)
    whole = partial.read_bytes()
    partial.write_bytes(whole[:-3000])
    with pytest.raises(OutputExistsError, match="cannot be gone on with"):
        writer(path, settings={"of": "loss"})
    assert partial.read_bytes() == whole[:-3000]
    with pytest.warns(VogcoreWarning, match="was cut short"):
        run(path, checkpoints=CHECKPOINTS)
    check(path)


@pytest.mark.parametrize("content", [b"mine", b"\x88HDF\r\n\x1a\n"])
def test_a_file_that_is_no_hdf5_is_not_taken_for_a_new_one(tmp_path, content):
    path, partial = tmp_path / "g.h5", tmp_path / "g.h5.partial"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop_after=20)
    damaged = content + partial.read_bytes()[len(content) :]
    partial.write_bytes(damaged)
    with pytest.raises(StoreError, match="is not an HDF5 file"):
        writer(path)
    assert partial.read_bytes() == damaged
    run(path, overwrite=True)
    check(path)


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_left(tmp_path, monkeypatch):
    path = tmp_path / "g.h5"
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2000))
    with pytest.raises(StoreError, match=r"need 0\.0 GB for .* and the disk has 0\.0 GB left"):
        writer(path, checkpoints=CHECKPOINTS)
    assert os.listdir(tmp_path) == []
    archive = writer(path)
    with pytest.raises(StoreError, match="the disk has"):
        archive.set_checkpoints(CHECKPOINTS)
    archive.set_checkpoints(CHECKPOINTS[:1])  # a smaller one goes on
    assert archive.n_checkpoints == 1
    with pytest.raises(GradientError, match="from example 0 on"):
        archive.close()


def test_a_failure_gives_the_file_back(tmp_path, monkeypatch):
    class Full(_system.System):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
            raise OSError(28, "no space")

    archive = writer(tmp_path / "g.h5")
    archive.set_checkpoints(CHECKPOINTS)
    archive.write(0, 0, gradients(0, 0, N))
    with monkeypatch.context() as patch:
        patch.setattr(_system, "SYSTEM", Full())
        with pytest.raises(StoreError, match="the disk is full"):
            archive.close()
    run(tmp_path / "g.h5")
    check(tmp_path / "g.h5")


def test_numbered_checkpoints_can_be_described_after_going_on(tmp_path):
    archive = writer(tmp_path / "g.h5")
    archive.write(0, 0, gradients(0, 0, 9))
    with pytest.raises(GradientError, match="not complete"):
        archive.close()
    run(tmp_path / "g.h5")
    check(tmp_path / "g.h5")


@settings(max_examples=60, deadline=None)
@given(chance=st.randoms(use_true_random=False), data=st.data(), sync_bytes=st.sampled_from([1, 300, 10**9]))
def test_a_loss_of_power_at_any_moment_loses_nothing_that_was_synced(chance, data, sync_bytes):
    """Unsynced writes are dropped, kept or torn, sector by sector."""
    power = PowerCut()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_system, "SYSTEM", power)
        patch.setattr(_writer, "_SYNC_BYTES", sync_bytes)
        path = Path(folder) / "g.h5"
        synced: list[tuple[int, list]] = []
        with writer(path) as archive:
            archive.set_checkpoints(CHECKPOINTS)
            for k in range(K):
                for start in range(0, N, 3):
                    stop = min(start + 3, N)
                    archive.write(k, start, gradients(k, start, stop))
                    archive.write_logits(k, start, logits(k, start, stop))
                    if chance.random() < 0.1:
                        archive.sync()
                        synced.append((len(power.steps), [archive.missing(j) for j in range(K)]))
        count = data.draw(st.integers(1, len(power.steps)))
        left = power.state(count, chance, data.draw(st.sampled_from([0.0, 0.5, 1.0])))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in left.items():
            (Path(folder) / name).write_bytes(content)
        path = Path(folder) / "g.h5"
        known = [missing for steps, missing in synced if steps <= count]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VogcoreWarning)
            archive = writer(path)
        if archive.n_checkpoints:
            for k in range(archive.n_checkpoints):
                now = {row for first, last in archive.missing(k) for row in range(first, last)}
                if known:
                    assert now <= {row for first, last in known[-1][k] for row in range(first, last)}
        else:
            assert not known
        archive._end()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VogcoreWarning)
            run(path)
        check(path)  # with every digest: nothing that was marked is wrong


KILLED = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, os.getcwd())
from tests.store import test_resume as t
from vogcore.store import _writer
import numpy as np, h5py

_writer._SYNC_BYTES = 200
path, seed = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(seed)
kills = finished = 0
while kills < int(sys.argv[3]):
    child = os.fork()
    if child == 0:
        try:
            t.run(path, batch=int(rng.integers(1, 9)))
            os._exit(0)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
            os._exit(1)
    time.sleep(float(rng.exponential(0.01)))
    try:
        os.kill(child, 9)
    except ProcessLookupError:
        pass
    status = os.waitpid(child, 0)[1]
    rng.integers(1, 9)
    if os.WIFSIGNALED(status):
        kills += 1
        if path.exists():  # killed when everything was done
            t.check(path)
            path.unlink()
            finished += 1
    elif os.WEXITSTATUS(status) == 0:
        t.check(path)
        path.unlink()
        finished += 1
    else:
        sys.exit(f"a run failed after {kills} kills")
if not path.exists():
    t.run(path)
t.check(path)
print(kills, finished)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_200_kills_at_random_moments_lose_nothing(tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "g.h5"), "0", "200"],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    kills, finished = map(int, result.stdout.split())
    assert kills == 200
    print(f"{kills} kills, {finished} archives completed in between")


def test_a_kill_between_the_two_names_leaves_one_file(tmp_path, monkeypatch):
    unlink = os.unlink

    def killed(path: object, **options: object) -> None:
        if str(path).endswith(".partial"):
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "g.h5")
    assert sorted(os.listdir(tmp_path)) == ["g.h5", "g.h5.partial"]
    with pytest.raises(OutputExistsError, match=r"g\.h5 exists already"):
        writer(tmp_path / "g.h5")
    assert os.listdir(tmp_path) == ["g.h5"]
    check(tmp_path / "g.h5")


def test_a_kill_loses_no_checkpoint_that_was_synced(tmp_path):
    program = (
        "import sys, numpy as np\nfrom vogcore.store import GradientWriter\n"
        "with GradientWriter(sys.argv[1], 100, (500,), block_size=10) as writer:\n"
        "    for k in range(1000):\n"
        "        writer.write(k, 0, np.full((100, 500), k + 1.0))\n"
        "        writer.sync()\n"
        "        print(k, flush=True)\n"
    )
    path = tmp_path / "g.h5"
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    with process:
        for _ in range(4):
            process.stdout.readline()
        time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    archive = GradientWriter(path, 100, (500,), block_size=10, resume=True)
    assert all(archive.missing(k) == [] for k in range(4))
    with h5py.File(tmp_path / "g.h5.partial", locking=False) as file:
        for k in range(4):
            assert (file["gradients"][k] == k + 1).all()
    archive.write(archive.n_checkpoints, 0, np.zeros((3, 500)))
    with pytest.raises(GradientError, match="is not complete"):
        archive.close()
