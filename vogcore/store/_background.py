"""Work done in order by a thread of its own, while whoever gives it goes on; bounded, so that memory is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Background"]

Result = TypeVar("Result")


class Background:
    """One thread that runs what it is given, in order.

    After a task has raised, the tasks behind it are dropped and :attr:`error` holds the exception.

    Args:
        capacity: bytes of tasks that may wait; whoever gives more waits until there is room. One task is always
            taken, whatever its size.
        name: of the thread.
    """

    def __init__(self, capacity: int, name: str) -> None:
        self._capacity, self._name = capacity, name
        self._tasks: deque[tuple[Callable[[], object], int]] = deque()
        self._changed = threading.Condition()
        self._waiting_bytes = 0
        self._busy = self._ending = False
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def submit(self, task: Callable[[], object], n_bytes: int) -> None:
        """Give a task; waits while too many bytes are waiting."""
        with self._changed:
            if self._thread is None:
                # A daemon: a process that ends without close() has lost what is waiting, as after a kill.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            while self._tasks and self._waiting_bytes + n_bytes > self._capacity and self.error is None:
                self._changed.wait()
            if self.error is not None:
                return
            self._tasks.append((task, n_bytes))
            self._waiting_bytes += n_bytes
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when everything given so far has been done, or a task has raised."""
        with self._changed:
            while (self._tasks or self._busy) and self.error is None:
                self._changed.wait()
            # A task that was under way when another one failed is none: there is one thread.
            while self._busy:
                self._changed.wait()

    def run(self, task: Callable[[], Result]) -> Result | None:
        """Do everything given so far, then ``task`` in the calling thread; None where something raised before.

        Raises:
            BaseException: whatever ``task`` raises.
        """
        self.wait()
        return None if self.error is not None else task()

    def close(self) -> None:
        """Do what is waiting and end the thread."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._tasks and not self._ending:
                    self._changed.wait()
                if not self._tasks:
                    return
                task, n_bytes = self._tasks.popleft()
                self._busy = True
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that gave the task
                with self._changed:
                    self.error = error
                    self._tasks.clear()
            finally:
                del task  # and the rows it holds
                with self._changed:
                    self._busy = False
                    self._waiting_bytes = 0 if self.error is not None else self._waiting_bytes - n_bytes
                    self._changed.notify_all()
