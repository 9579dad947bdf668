"""Changes to a file that happen as a whole or not at all, whatever is lost when the power goes."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.power import PowerCut
from vogcore.errors import OutputExistsError
from vogcore.store import _system
from vogcore.store._disk import PAGE, DiskFile, Overlay

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 5 * PAGE), st.binary(min_size=1, max_size=3 * PAGE)),
        st.tuples(st.just("truncate"), st.integers(0, 5 * PAGE)),
        st.tuples(st.just("read"), st.integers(0, 6 * PAGE), st.integers(0, 3 * PAGE)),
    ),
    max_size=8,
)


@settings(max_examples=80, deadline=None)
@given(start=st.binary(max_size=3 * PAGE), operations=OPERATIONS)
def test_an_overlay_is_a_file(start, operations):
    with tempfile.TemporaryDirectory() as folder:
        path, twin_path = Path(folder) / "f", Path(folder) / "twin"
        path.write_bytes(start)
        twin_path.write_bytes(start)
        disk = DiskFile(path)
        overlay = Overlay(disk)
        with open(twin_path, "r+b") as twin:
            for name, *arguments in operations:
                if name == "truncate":
                    overlay.truncate(arguments[0])
                    twin.truncate(arguments[0])
                    continue
                for file in (overlay, twin):
                    file.seek(arguments[0])
                if name == "write":
                    overlay.write(arguments[1])
                    twin.write(arguments[1])
                else:
                    buffer = bytearray(arguments[1])
                    assert buffer[: overlay.readinto(memoryview(buffer))] == twin.read(arguments[1])
        assert path.read_bytes() == start  # nothing is written before it is applied
        overlay.seek(0)
        assert overlay.read() == twin_path.read_bytes()
        disk.apply(overlay)
        assert path.read_bytes() == twin_path.read_bytes()
        assert disk.size == len(twin_path.read_bytes())
        disk.close()
        assert sorted(os.listdir(folder)) == ["f", "twin"]


def with_change(content: bytes, change: bytes, offset: int) -> bytes:
    """What ``content`` is after a change."""
    return content[:offset].ljust(offset, b"\0") + change + content[offset + len(change) :]


@settings(max_examples=150, deadline=None)
@given(
    start=st.binary(min_size=1, max_size=3 * PAGE),
    changes=st.lists(
        st.tuples(st.integers(0, 3 * PAGE), st.binary(min_size=1, max_size=2 * PAGE)), min_size=1, max_size=3
    ),
    chance=st.randoms(use_true_random=False),
    data=st.data(),
)
def test_a_change_happens_as_a_whole_or_not_at_all_when_the_power_goes(start, changes, chance, data):
    power = PowerCut()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "f"
        path.write_bytes(start)
        power.steps += [("create", "f"), ("write", "f", 0, start), ("sync", "f"), ("sync folder",)]
        patch.setattr(_system, "SYSTEM", power)
        disk = DiskFile(path)
        versions, done = [start], [len(power.steps)]
        for offset, change in changes:
            overlay = Overlay(disk)
            overlay.seek(offset)
            overlay.write(change)
            disk.apply(overlay)
            versions.append(with_change(versions[-1], change, offset))
            done.append(len(power.steps))
        disk.close()
        assert path.read_bytes() == versions[-1]
        count = data.draw(st.integers(done[0], len(power.steps)))
        keep = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
        left = power.state(count, chance, keep)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in left.items():
            (Path(folder) / name).write_bytes(content)
        disk = DiskFile(Path(folder) / "f")
        disk.recover()
        disk.close()
        found = (Path(folder) / "f").read_bytes()
    # At least what was acknowledged; a change that was under way, or the next one, may be there as a whole. Beyond the
    # end of a version there may be what a lost change appended, which nothing refers to.
    certain = max(number for number, steps in enumerate(done) if steps <= count)
    possible = versions[certain : certain + 2]
    assert any(found[: len(version)] == version for version in possible)


def test_a_new_file_is_empty_or_whole(tmp_path):
    power = PowerCut()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_system, "SYSTEM", power)
        disk = DiskFile(tmp_path / "f")
        (tmp_path / "f.new").write_bytes(b"whole" * PAGE)
        disk.become(tmp_path / "f.new")
        with pytest.raises(OutputExistsError, match="is being written"):
            DiskFile(tmp_path / "f")
        disk.write(0, b"W")
        disk.close()
    whole = b"whole" * PAGE
    assert (tmp_path / "f").read_bytes() == b"W" + whole[1:]
    assert os.listdir(tmp_path) == ["f"]
    seen = {
        power.state(count, random.Random(seed)).get("f", b"")
        for count, seed in itertools.product(range(1, len(power.steps) + 1), range(20))
    }
    assert seen == {b"", whole, b"W" + whole[1:]}


def test_hdf5_grows_in_an_overlay(tmp_path):
    path = tmp_path / "f.h5"
    disk = DiskFile(path)
    with h5py.File(tmp_path / "new", "w", libver=("earliest", "v108")) as file:
        file.create_dataset("x", (0, 7), "f4", maxshape=(None, 7), chunks=(1, 7))
    disk.become(tmp_path / "new")
    for round_ in range(5):
        overlay = Overlay(disk)
        with h5py.File(overlay, "r+", libver=("earliest", "v108")) as file:
            file["x"].resize(round_ + 1, axis=0)
            file["x"][round_] = round_
        disk.apply(overlay)
        with h5py.File(path, locking=False) as file:
            np.testing.assert_array_equal(file["x"][:, 0], np.arange(round_ + 1))
    disk.close()
    assert os.listdir(tmp_path) == ["f.h5"]


def test_two_writers(tmp_path):
    disk = DiskFile(tmp_path / "f")
    with pytest.raises(OutputExistsError, match="is being written"):
        DiskFile(tmp_path / "f")
    disk.close()
    DiskFile(tmp_path / "f").close()
