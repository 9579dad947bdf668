"""The thread that writes archives."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.store._background import Background


class Gate:
    """A task that is under way until it is opened, and then may fail."""

    def __init__(self, background: Background, size: int, *, fails: bool = False) -> None:
        self._begun, self._open, self._fails = threading.Event(), threading.Event(), fails
        self.open = self._open.set
        background.submit(self._task, size)
        assert self._begun.wait(10)

    def _task(self) -> None:
        self._begun.set()
        self._open.wait(10)
        if self._fails:
            raise OSError("no")


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), max_size=30), capacity=st.integers(1, 40))
def test_everything_is_done_in_order_and_little_waits(sizes, capacity):
    background = Background(capacity, "test")
    done: list[int] = []
    largest = 0
    for number, size in enumerate(sizes):
        background.submit(lambda number=number: done.append(number), size)
        largest = max(largest, background._waiting_bytes)
    assert background.run(lambda: list(done)) == list(range(len(sizes)))
    background.close()
    assert largest <= capacity + 2 * max(sizes, default=0)


def test_whoever_gives_too_much_waits():
    background = Background(10, "test")
    gate = Gate(background, 6)
    background.submit(lambda: None, 6)  # one task is always taken
    given = []
    thread = threading.Thread(target=lambda: (background.submit(lambda: None, 6), given.append(True)))
    thread.start()
    time.sleep(0.05)
    assert not given
    gate.open()
    thread.join(10)
    assert given
    background.wait()
    assert background._waiting_bytes == 0
    background.close()


def test_an_error_ends_it_and_drops_what_waits():
    background = Background(100, "test")
    gate, done = Gate(background, 1, fails=True), []
    background.submit(lambda: done.append(1), 1)
    gate.open()
    background.wait()
    assert isinstance(background.error, OSError)
    background.submit(lambda: done.append(2), 1)
    assert background.run(lambda: done.append(3)) is None
    background.close()
    assert done == []


def test_whoever_waits_for_room_is_woken_by_an_error():
    background = Background(1, "test")
    gate = Gate(background, 1, fails=True)
    background.submit(lambda: None, 1)
    threading.Timer(0.05, gate.open).start()
    background.submit(lambda: None, 1)
    assert background.error is not None
    background.close()


@pytest.mark.parametrize("used", [False, True])
def test_closing_twice(used):
    background = Background(1, "test")
    if used:
        background.submit(lambda: None, 1)
    background.close()
    background.close()
