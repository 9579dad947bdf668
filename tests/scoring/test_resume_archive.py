"""A run that keeps its gradients goes on: archive and journal agree, whatever is missing from either.

The archive's writer stands in here by a small one that keeps rows in memory and loses what was not synced.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import vogcore
from vogcore.errors import OutputExistsError
from vogcore.scoring import api
from vogcore.store.journal import Journal, complement, journal_path

from .models import FEATURES, examples, mlps

N, K, BATCH = 30, 3, 5
X, Y = examples(N)


class Disk:
    """Archives by path: gradients (K, N, ...) and which rows of them are there."""

    def __init__(self) -> None:
        self.rows: dict[str, np.ndarray] = {}
        self.there: dict[str, np.ndarray] = {}
        self.events: list[tuple] = []

    def writer(self, path, n, shape, dtype, *, checkpoints, n_logits, resume=False, overwrite=False, **described):
        assert (len(checkpoints), n_logits) == (K, 3)
        return Writer(self, Path(path), n, shape, resume)


class Writer:
    def __init__(self, disk: Disk, path: Path, n: int, shape, resume: bool) -> None:
        self.disk, self.path, self.resumed = disk, path, resume
        self.partial = f"{path}.partial"
        if not resume or self.partial not in disk.rows:
            disk.rows[self.partial] = np.full((K, n, *shape), np.nan, np.float32)
            disk.there[self.partial] = np.zeros((K, n), bool)
        self.there = disk.there[self.partial].copy()
        self.rows = disk.rows[self.partial].copy()

    def missing(self, checkpoint):
        present = np.flatnonzero(self.there[checkpoint])
        return complement([(int(at), int(at) + 1) for at in present], len(self.there[checkpoint]))

    def write(self, checkpoint, start, block, *, copy=True):
        rows = slice(start, start + len(block))
        new = ~self.there[checkpoint, rows]
        assert self.resumed or new.all()
        np.testing.assert_array_equal(self.rows[checkpoint, rows][~new], block[~new])
        self.rows[checkpoint, rows][new] = block[new]
        self.there[checkpoint, rows] = True

    def write_logits(self, checkpoint, start, logits, *, copy=True):
        assert logits.shape[1] == 3

    def sync(self):
        self.disk.rows[self.partial], self.disk.there[self.partial] = self.rows.copy(), self.there.copy()
        self.disk.events.append(("sync", int(self.there.all(axis=0).sum())))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            assert self.there.all()
            self.disk.rows[str(self.path)] = self.disk.rows.pop(self.partial)
            self.path.write_text("archive")
            self.disk.events.append(("published",))


@pytest.fixture
def disk(monkeypatch):
    made = Disk()
    monkeypatch.setattr(api, "GradientWriter", made.writer)
    append = Journal.append
    monkeypatch.setattr(
        Journal, "append", lambda self, a, b: (made.events.append(("journal", a, b)), append(self, a, b))
    )  # fmt: skip
    return made


class Stop(KeyboardInterrupt):
    pass


class Watch:
    def __init__(self, after: int = 10**9) -> None:
        self.after, self.done = after, 0

    def start(self, total, text):
        pass

    def go_on(self, count, text):
        pass

    def advance(self, count):
        self.done += count
        if self.done > self.after:
            raise Stop

    def close(self):
        pass


def score(folder: Path, progress=None, **options):
    return vogcore.score(
        mlps(K), X, Y, out=folder / "s.h5", keep_gradients=folder / "g.h5", batch_size=BATCH, provider="cpu",
        threads=1, progress=progress or Watch(), **{"memory": BATCH * FEATURES * (4 + 2 * 8)} | options,
    )  # fmt: skip


@pytest.fixture
def undisturbed(tmp_path, disk):
    folder = tmp_path / "whole"
    folder.mkdir()
    scores = score(folder)
    gradients = disk.rows[str(folder / "g.h5")]
    disk.events.clear()
    return scores, gradients


def check(folder: Path, disk: Disk, undisturbed) -> None:
    scores, gradients = undisturbed
    np.testing.assert_array_equal(vogcore.open_scores(folder / "s.h5").vog, scores.vog)
    np.testing.assert_array_equal(disk.rows[str(folder / "g.h5")], gradients)
    assert not journal_path(folder / "s.h5").exists()


def test_the_archive_is_on_disk_before_the_journal_says_so(tmp_path, disk, undisturbed):
    score(tmp_path)
    blocks = [(start, start + BATCH) for start in range(0, N, BATCH)]
    expected = [event for a, b in blocks for event in (("sync", b), ("journal", a, b))]
    assert disk.events == [*expected, ("journal", N, N), ("published",)]


def test_finished_blocks_are_not_computed_again(tmp_path, disk, undisturbed):
    with pytest.raises(Stop):
        score(tmp_path, Watch(40))
    watch = Watch()
    score(tmp_path, watch)
    assert watch.done == (N - 2 * BATCH) * K
    check(tmp_path, disk, undisturbed)


def test_a_run_that_finished_no_block_takes_its_archive_up_again(tmp_path, disk, undisturbed):
    with pytest.raises(Stop):
        score(tmp_path, Watch(7))
    assert journal_path(tmp_path / "s.h5").exists()
    score(tmp_path)
    check(tmp_path, disk, undisturbed)


def test_gradients_that_the_archive_lost_are_computed_again(tmp_path, disk, undisturbed):
    with pytest.raises(Stop):
        score(tmp_path, Watch(70))  # four blocks
    partial = str(tmp_path / "g.h5.partial")
    disk.there[partial][1, 7:9] = False
    disk.rows[partial][1, 7:9] = np.nan
    watch = Watch()
    score(tmp_path, watch)
    assert watch.done == (N - 3 * BATCH) * K
    check(tmp_path, disk, undisturbed)


def test_an_archive_that_was_deleted_is_computed_again(tmp_path, disk, undisturbed):
    with pytest.raises(Stop):
        score(tmp_path, Watch(70))
    del disk.rows[str(tmp_path / "g.h5.partial")]
    watch = Watch()
    score(tmp_path, watch)
    assert watch.done == N * K
    check(tmp_path, disk, undisturbed)


def test_a_kill_between_the_archive_and_the_scores(tmp_path, disk, undisturbed, monkeypatch):
    def killed(*arguments):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(api, "finish", killed)
        with pytest.raises(Stop):
            score(tmp_path)
    assert (tmp_path / "g.h5").exists()
    watch = Watch()
    score(tmp_path, watch)
    assert watch.done == 0
    check(tmp_path, disk, undisturbed)


@pytest.mark.parametrize("memory", [BATCH * FEATURES * (4 + 2 * 8), 1 << 30])
@pytest.mark.parametrize("after", [[0], [14], [40], [70], [89], [20, 3, 60, 1]])
def test_with_a_real_archive(after, memory, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    score(whole)
    for gradients in after:
        with pytest.raises(Stop):
            score(tmp_path, Watch(gradients), memory=memory)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["g.h5.partial", "s.h5.partial", "whole"]
    score(tmp_path, memory=memory)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.h5", "s.h5", "whole"]
    np.testing.assert_array_equal(
        vogcore.open_scores(tmp_path / "s.h5").vog, vogcore.open_scores(whole / "s.h5").vog
    )  # fmt: skip
    with h5py.File(tmp_path / "g.h5") as file, h5py.File(whole / "g.h5") as expected:
        for name in ("gradients", "logits", "digest", "done", "checkpoints/sha256"):
            np.testing.assert_array_equal(file[name][()], expected[name][()])
        assert file["done"][()].all()


def test_an_archive_of_somebody_else_is_refused_though_there_is_a_journal(tmp_path, disk):
    with pytest.raises(Stop):
        score(tmp_path, Watch(40))
    (tmp_path / "g.h5").write_text("mine")
    before = journal_path(tmp_path / "s.h5").read_bytes()
    with pytest.raises(OutputExistsError, match=r"g\.h5 exists already"):
        score(tmp_path)
    assert (tmp_path / "g.h5").read_text() == "mine"
    assert journal_path(tmp_path / "s.h5").read_bytes() == before
