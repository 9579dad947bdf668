"""Threads of this process that share the work of one kernel call.

Kernels are serial machine code that releases the GIL, and ranges of tiles go to a small pool of Python threads, not to
Numba's own threading layers. Those cost seconds of compilation, spin at barriers (a busy neighbour process made the
OpenMP layer 13 times slower), abort after a fork (OpenMP) or when two threads call kernels at once (workqueue).
Threads that take the next range when they are done have none of these faults.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numba

from vogcore.errors import SettingsError

__all__ = ["get_threads", "run_ranges", "set_threads"]

# Below this many bytes a call takes about as long as waking a thread.
_SERIAL_BYTES = 512 * 1024

# Ranges for each thread: more even out threads that are interrupted, fewer cost less dispatch.
_RANGES_PER_THREAD = 4

# A range should last well beyond the dispatch of a kernel, about 10 microseconds.
_RANGE_BYTES = 1024 * 1024

_state_lock = threading.Lock()
_n_threads: int | None = None
_pool: ThreadPoolExecutor | None = None


def get_threads() -> int:
    """Threads that a kernel call may use, the calling one included.

    Returns:
        What :func:`set_threads` chose, else ``NUMBA_NUM_THREADS``, else the number of cores this process may run on.
    """
    return _n_threads if _n_threads is not None else int(numba.config.NUMBA_NUM_THREADS)


def set_threads(n: int | None) -> None:
    """Choose how many threads a kernel call may use; results do not depend on it.

    Args:
        n: at least 1, or None for the default.

    Raises:
        SettingsError: if ``n`` is less than 1.
    """
    global _n_threads, _pool
    if n is not None and n < 1:
        raise SettingsError(f"The number of kernel threads must be at least 1, not {n}.")
    with _state_lock:
        _n_threads = n
        old, _pool = _pool, None
    if old is not None:
        old.shutdown(wait=False)


def _forget_pool() -> None:
    """A forked child has the pool object but none of its threads; work given to it would wait for ever."""
    global _pool, _state_lock
    _state_lock = threading.Lock()
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _submit(work: Callable[[], None], n: int) -> list[Future[None]]:
    global _pool
    with _state_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, get_threads() - 1), thread_name_prefix="vogcore-kernel")
        futures: list[Future[None]] = []
        # RuntimeError: no thread can be started (a limit, or the interpreter is exiting). The caller then does it all.
        with contextlib.suppress(RuntimeError):
            futures.extend(_pool.submit(work) for _ in range(n))
        return futures


def run_ranges(kernel: Callable[[int, int], None], n_items: int, n_bytes: int, *, granule: int = 1) -> None:
    """Call ``kernel(first, last)`` on ranges that cover 0 to ``n_items``, on several threads.

    Args:
        kernel: must write only to what belongs to its range.
        n_items: number of items.
        n_bytes: memory that all items together read and write, which decides how many threads are worth waking.
        granule: ranges begin at multiples of this.

    Raises:
        Exception: the first one that ``kernel`` raised, after every thread has stopped.
    """
    if n_items == 0:
        return
    threads = get_threads()
    if threads == 1 or n_bytes < _SERIAL_BYTES:
        kernel(0, n_items)
        return
    n_ranges = max(threads, min(threads * _RANGES_PER_THREAD, n_bytes // _RANGE_BYTES))
    length = -(-n_items // n_ranges)
    length = -(-length // granule) * granule
    starts = itertools.count(0, length)

    def work() -> None:
        # next() on a count is one step of the interpreter: two threads never get the same range.
        while (first := next(starts)) < n_items:
            kernel(first, min(first + length, n_items))

    futures = _submit(work, min(threads, -(-n_items // length)) - 1)
    try:
        work()
    finally:
        # A helper that never started has nothing left to do; one that runs writes to the caller's arrays: wait.
        started = [future for future in futures if not future.cancel()]
        errors = [error for future in started if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
