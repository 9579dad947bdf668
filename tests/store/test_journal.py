"""The journal of a run: killed, cut short, damaged, out of power, on a full disk."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import OutputExistsError, StoreError
from vogcore.store import _system, journal
from vogcore.store.journal import Journal, complement, journal_path

from .power import PowerCut

N, K = 23, 3
RUN = {"of": "logit", "stages": {"all": [0, 1, 2]}, "name": "猫"}
BLOCKS = [(0, 5), (5, 6), (6, 14), (14, 23)]


@pytest.fixture(autouse=True, scope="module")
def no_waiting():
    """Nothing here asks the disk itself to keep anything, and thousands of syncs take half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_system.System, "sync", lambda self, descriptor: None)
        patch.setattr(_system.System, "sync_folder", lambda self, folder: None)
        yield


def results(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "vog": rng.standard_normal(N),
        "predicted": rng.integers(0, 9, (K, N)).astype(np.int32),
        "probability": rng.random((K, 2, N)).astype(np.float32),
    }


def empty() -> dict[str, np.ndarray]:
    return {name: np.zeros_like(values) for name, values in results().items()}


def write(path: Path, blocks=BLOCKS, end: bool = False, written: list | None = None) -> None:
    with Journal(path) as file:
        file.begin(RUN, results())
        for start, stop in blocks:
            file.append(start, stop)
            if written is not None:
                written.append((start, stop))
        if end:
            file.end()


def go_on(path: Path) -> tuple[Journal, dict[str, np.ndarray]]:
    """A journal that is read as a run reads it, checked against what was written; the caller closes it."""
    file = Journal(path)
    values = empty()
    if file.run is None:
        assert not file.finished
        if file.problem is None:
            file.begin(RUN, values)
        return file, values
    assert file.run == RUN
    file.resume(values)
    for name, whole in results().items():
        inside = np.zeros(N, bool)
        for start, stop in file.finished:
            inside[start:stop] = True
        np.testing.assert_array_equal(values[name][..., inside], whole[..., inside])
        assert not values[name][..., ~inside].any()
    return file, values


def finish(file: Journal, values: dict[str, np.ndarray]) -> None:
    """What a run does then: the rest, in small blocks."""
    whole = results()
    for first, last in complement(file.finished, N):
        for start in range(first, last, 4):
            stop = min(start + 4, last)
            for name, array in values.items():
                array[..., start:stop] = whole[name][..., start:stop]
            file.append(start, stop)
    assert file.finished == [(0, N)]


def test_what_was_finished_comes_back(tmp_path):
    path = journal_path(tmp_path / "s.h5")
    assert path.name == "s.h5.partial"
    write(path, BLOCKS[:3])
    file, values = go_on(path)
    with file:
        assert (file.finished, file.damaged, file.closed, file.is_worthless) == ([(0, 14)], [], False, False)
        finish(file, values)
        file.end()
    file, _ = go_on(path)
    with file:
        assert (file.finished, file.closed) == ([(0, N)], True)
        file.remove()
    assert not list(tmp_path.iterdir())


def test_a_new_journal_is_worthless_until_a_block_is_finished(tmp_path):
    path = tmp_path / "j"
    with Journal(path) as file:
        assert file.is_worthless
        assert file.run is None
        file.begin(RUN, results())
        assert file.is_worthless
        file.append(0, 3)
        assert not file.is_worthless


def test_beginning_anew_forgets_what_there_was(tmp_path):
    path = tmp_path / "j"
    write(path)
    with Journal(path) as file:
        file.begin({"another": 1}, results(1))
    with Journal(path) as file:
        assert (file.run, file.finished) == ({"another": 1}, [])


def test_other_arrays_than_those_in_the_journal_are_refused(tmp_path):
    path = tmp_path / "j"
    write(path)
    others = [
        {"vog": np.zeros(N)},
        {**empty(), "vog": np.zeros(N, np.float32)},
        {**empty(), "predicted": np.zeros((K + 1, N), np.int32)},
        {name: values[..., 1:] for name, values in empty().items()},
    ]
    for arrays in others:
        with Journal(path) as file, pytest.raises(StoreError, match="holds other values"):
            file.resume(arrays)


def test_two_journals_of_one_output(tmp_path):
    with Journal(tmp_path / "j") as file:
        file.begin(RUN, results())
        with pytest.raises(OutputExistsError, match="is being written by"):
            Journal(tmp_path / "j")
        file.append(0, 5)
    with Journal(tmp_path / "j") as file:
        assert file.finished == [(0, 5)]


@pytest.mark.parametrize("content", [b"mine", b"\x89HDF\r\n\x1a\n" + bytes(500), b"vogcore journey\n" + bytes(99)])
def test_a_file_of_somebody_else_is_left_alone(tmp_path, content):
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is not the journal of an unfinished run"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_later_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_VERSION", 2)
    write(tmp_path / "j")
    monkeypatch.undo()
    with pytest.raises(StoreError, match="is of version 2, and this vogcore knows version 1"):
        Journal(tmp_path / "j")


def test_a_folder_and_a_missing_folder(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "j"):
        with pytest.raises(StoreError, match="Cannot open"):
            Journal(path)


def test_cut_short_at_every_byte(tmp_path):
    write(tmp_path / "whole", end=True)
    content = (tmp_path / "whole").read_bytes()
    last: list[tuple[int, int]] = []
    for size in range(len(content) + 1):
        path = tmp_path / "cut"
        path.write_bytes(content[:size])
        file, values = go_on(path)
        with file:
            assert not file.damaged
            assert sum(b - a for a, b in file.finished) >= sum(b - a for a, b in last)
            last = file.finished
            finish(file, values)
        path.unlink()
    assert last == [(0, N)]


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_every_byte_flipped(tmp_path, flip):
    write(tmp_path / "whole")
    content = bytearray((tmp_path / "whole").read_bytes())
    path, refused, named = tmp_path / "flipped", 0, set()
    for at in range(len(content)):
        content[at] ^= flip
        path.write_bytes(content)
        content[at] ^= flip
        if at < 16:  # the first bytes, by which a file is known to be a journal
            with pytest.raises(StoreError, match=r"or its first bytes are damaged; move or delete it\.$"):
                Journal(path)
            refused += 1
            continue
        file, values = go_on(path)
        with file:
            if file.problem is not None:
                refused += 1
                assert not file.is_worthless
                continue
            # Damage costs one block. In the middle it is named; the last one cannot be told from one that was torn.
            lost = complement(file.finished, N)
            assert len(lost) == 1
            assert lost[0] in BLOCKS
            assert file.damaged == (lost if lost[0] != BLOCKS[-1] else [])
            named.update(file.damaged)
            finish(file, values)
        file, _ = go_on(path)
        with file:
            assert file.finished == [(0, N)]
    assert named == set(BLOCKS[:-1])
    assert refused == content.index(b"\xf5vgBLOCK")  # the start of the file, and nothing else


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_gives_right_values_or_an_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    write(folder / "j")
    content = bytearray((folder / "j").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        kind = data.draw(st.sampled_from(["zeros", "noise", "removed", "doubled"]))
        length = data.draw(st.integers(1, 300))
        piece = content[at : at + length]
        content[at : at + length] = {
            "zeros": bytes(len(piece)),
            "noise": random.Random(length).randbytes(len(piece)),
            "removed": b"",
            "doubled": piece + piece,
        }[kind]
    (folder / "j").write_bytes(content)
    try:
        file, values = go_on(folder / "j")
    except StoreError:
        return
    with file:
        if file.problem is None:
            finish(file, values)
    shutil.rmtree(folder)


def test_a_record_of_another_journal_does_not_count(tmp_path):
    # A disk may hold old content behind the end of a file whose length survived a loss of power and whose bytes not.
    write(tmp_path / "old")
    write(tmp_path / "new", BLOCKS[:1])
    old = (tmp_path / "old").read_bytes()
    records = old[old.index(b"\xf5vgBLOCK") :]
    with open(tmp_path / "new", "ab") as file:
        file.write(records)
    reopened, values = go_on(tmp_path / "new")
    with reopened:
        assert reopened.finished == BLOCKS[:1]
        finish(reopened, values)


def test_the_marker_inside_of_values_is_not_a_record(tmp_path, monkeypatch):
    values = {"a": np.frombuffer(b"\xf5vgBLOCK" * N, "<f8").copy()}
    monkeypatch.setattr(journal, "_PIECE", 16)  # a marker can lie across two pieces
    with Journal(tmp_path / "j") as file:
        file.begin(RUN, values)
        file.append(0, 10)
        file.append(10, 20)
    content = bytearray((tmp_path / "j").read_bytes())
    content[content.index(b"\xf5vgBLOCK") + 10] ^= 1  # the frame of the first block
    (tmp_path / "j").write_bytes(content)
    with Journal(tmp_path / "j") as file:
        assert file.finished == [(10, 20)]
        assert file.damaged == [(0, 10)]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), keep=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), data=st.data())
def test_a_loss_of_power_costs_what_was_not_synced(tmp_path_factory, seed, keep, data):
    folder = tmp_path_factory.mktemp("power")
    machine, acknowledged = PowerCut(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_system, "SYSTEM", machine)
        old = data.draw(st.booleans())
        if old:  # an earlier run whose journal is replaced
            with Journal(folder / "j") as file:
                file.begin({"old": 1}, results(1))
                file.append(0, 9)
            begun_at = len(machine.steps)
        with Journal(folder / "j") as file:
            file.begin(RUN, results())
            ready = len(machine.steps)
            for block in BLOCKS[: data.draw(st.integers(0, 4))]:
                file.append(*block)
                acknowledged.append((len(machine.steps), block))
        cut = data.draw(st.integers(0, len(machine.steps)))
        patch.undo()
        left = machine.state(cut, random.Random(seed), keep)
        if cut >= ready:
            assert "j" in left
        (folder / "j").unlink()
        if "j" in left:
            (folder / "j").write_bytes(left["j"])
        if old and cut <= begun_at:
            return
        with Journal(folder / "j") as file:
            assert file.problem is None
            if file.run == {"old": 1}:
                assert cut < ready
                return
        file, values = go_on(folder / "j")
        with file:
            assert not file.damaged
            for at, (start, stop) in acknowledged:
                if at <= cut:
                    assert (start, stop) not in complement(file.finished, N)
                    assert file.finished[0][1] >= stop
            finish(file, values)
    shutil.rmtree(folder)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_power_is_lost_again_while_a_run_goes_on(tmp_path_factory, seed, data):
    folder = tmp_path_factory.mktemp("power")
    chance = random.Random(seed)
    sure = 0
    for _ in range(5):
        machine = PowerCut()
        before = (folder / "j").read_bytes() if (folder / "j").exists() else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_system, "SYSTEM", machine)
            file, values = go_on(folder / "j")
            with file:
                assert sum(b - a for a, b in file.finished) >= sure
                done = [(0, sure)]
                whole = results()
                for first, last in complement(file.finished, N):
                    for start in range(first, last, 3):
                        stop = min(start + 3, last)
                        for name, array in values.items():
                            array[..., start:stop] = whole[name][..., start:stop]
                        file.append(start, stop)
                        done.append((len(machine.steps), stop))
        # What was there at the start of this round is on the disk for certain: the first step is that it was found.
        cut = data.draw(st.integers(0, len(machine.steps)))
        left = machine.state(cut, chance) if before is None or cut >= 1 else {"j": before}
        sure = max([sure, *(stop for at, stop in done if at <= cut)])
        (folder / "j").unlink()
        if "j" in left:
            (folder / "j").write_bytes(left["j"])
    shutil.rmtree(folder)


class FullDisk(_system.System):
    """Takes so many bytes and then no more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor, data, offset):
        fits = min(self.room, len(data))
        super().write(descriptor, memoryview(data)[:fits], offset)
        self.room -= fits
        if fits < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_what_was_finished(tmp_path, monkeypatch):
    write(tmp_path / "whole")
    size = (tmp_path / "whole").stat().st_size
    for room in range(0, size, 7):
        path = tmp_path / f"j{room}"
        done: list[tuple[int, int]] = []
        with monkeypatch.context() as patch:
            patch.setattr(_system, "SYSTEM", FullDisk(room))
            with pytest.raises(StoreError, match=r"Cannot write .*: the disk is full\."):
                write(path, written=done)
        reopened, values = go_on(path)
        with reopened:
            assert reopened.finished == ([(0, done[-1][1])] if done else [])
            finish(reopened, values)


def test_a_disk_that_cannot_be_read_is_not_taken_for_damage(tmp_path, monkeypatch):
    write(tmp_path / "j")
    before = (tmp_path / "j").read_bytes()

    class Broken(_system.System):
        def read(self, descriptor, view, offset):
            if offset > len(before) // 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(descriptor, view, offset)

    monkeypatch.setattr(_system, "SYSTEM", Broken())
    with pytest.raises(StoreError, match="Cannot read"):
        Journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == before


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=6))
def test_complement(pairs):
    ranges = [(start, min(start + length, 30)) for start, length in pairs]
    inside = np.zeros(30, bool)
    for start, stop in ranges:
        inside[start:stop] = True
    outside = np.zeros(30, bool)
    gaps = complement(ranges, 30)
    for start, stop in gaps:
        assert start < stop
        outside[start:stop] = True
    np.testing.assert_array_equal(outside, ~inside)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(gaps))
