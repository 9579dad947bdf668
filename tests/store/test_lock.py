"""Two writers of one file."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vogcore.errors import OutputExistsError
from vogcore.store import _lock
from vogcore.store._lock import lock_writer

ROOT = Path(__file__).parents[2]
HOLDER = """
import os, sys, time
from vogcore.store import _lock
from vogcore.store._lock import lock_writer
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
lock_writer(descriptor, sys.argv[1])
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    """A file that another process has locked, and that process."""
    path = tmp_path / "out.h5"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield path, process
        process.kill()


def test_the_second_is_refused_until_the_first_is_gone(held):
    path, process = held
    descriptor = os.open(path, os.O_RDWR)
    with pytest.raises(OutputExistsError) as caught:
        lock_writer(descriptor, path)
    message = str(caught.value)
    assert str(path) in message
    if sys.platform == "linux":
        assert f"is being written by process {process.pid}; wait for it" in message
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lock_writer(descriptor, path)
    os.close(descriptor)


def test_reading_and_closing_another_descriptor_keeps_the_lock(tmp_path):
    path = tmp_path / "out.h5"
    first = os.open(path, os.O_RDWR | os.O_CREAT)
    lock_writer(first, path)
    path.read_bytes()
    second = os.open(path, os.O_RDWR)
    with pytest.raises(OutputExistsError, match="is being written"):
        lock_writer(second, path)
    os.close(first)
    lock_writer(second, path)
    os.close(second)


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_got_its_final_name_meanwhile_is_not_locked(tmp_path, replaced):
    path = tmp_path / "out.h5"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    path.rename(tmp_path / "done.h5")
    if replaced:
        path.touch()
    with pytest.raises(OutputExistsError, match="just been completed by another run"):
        lock_writer(descriptor, path)
    os.close(descriptor)


def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(_lock, "_lock", refuse)
    path = tmp_path / "out.h5"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    lock_writer(descriptor, path)
    path.unlink()
    with pytest.raises(OutputExistsError, match="just been completed"):  # which is found out without a lock
        lock_writer(descriptor, path)
    os.close(descriptor)
