"""Threads, processes and the compiler's cache: none of them may show in a result."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import vogcore.kernels
from vogcore.errors import SettingsError
from vogcore.kernels import get_threads, merge_moments, score_from_moments, set_threads, update_moments
from vogcore.kernels.threads import run_ranges

SOURCE_ROOT = Path(vogcore.kernels.__file__).parents[2]


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    set_threads(None)


def _everything(gradients: np.ndarray, channel_axis: int, channels: str) -> list[np.ndarray]:
    """All that the kernels give for gradients (K, B, ...), large enough to be shared among threads."""
    n_examples = gradients.shape[1]
    n_pixels = vogcore.kernels.pixel_count(gradients.shape[2:], channel_axis, channels)
    mean, m2 = np.empty((n_examples, n_pixels)), np.empty((n_examples, n_pixels))
    magnitudes = [
        update_moments(block, mean, m2, step=k, channel_axis=channel_axis, channels=channels)
        for k, block in enumerate(gradients, start=1)
    ]
    merged_mean, merged_m2 = mean.copy(), m2.copy()
    merge_moments(merged_mean, merged_m2, 3, m2, mean, 2)
    return [mean, m2, *magnitudes, score_from_moments(m2, len(gradients)), merged_mean, merged_m2]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("shape", "channel_axis"), [((24, 3, 70, 70), 1), ((1, 400, 400, 3), 3), ((200, 5, 28, 28), 1)]
)
@pytest.mark.parametrize("channels", ["mean", "l2"])
def test_any_number_of_threads_and_any_rerun_gives_the_same_bits(shape, channel_axis, channels, dtype):
    gradients = np.random.default_rng(3).normal(size=(3, *shape)).astype(dtype)
    set_threads(1)
    expected = _everything(gradients, channel_axis, channels)
    for n in (1, 2, 3, 8):
        set_threads(n)
        for _ in range(2):
            for found, one in zip(_everything(gradients, channel_axis, channels), expected):
                np.testing.assert_array_equal(found, one)


def test_many_python_threads_may_call_kernels_at_once():
    set_threads(3)
    blocks = [np.random.default_rng(i).normal(size=(2, 12, 3, 90, 90)).astype(np.float32) for i in range(4)]
    expected = [_everything(block, 1, "mean") for block in blocks]
    barrier = threading.Barrier(4)

    def work(i: int) -> list[list[np.ndarray]]:
        barrier.wait(timeout=60)
        return [_everything(blocks[i], 1, "mean") for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for results, one in zip(pool.map(work, range(4)), expected):
            for found in results:
                for a, b in zip(found, one):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_items", [0, 1, 7, 1000])
@pytest.mark.parametrize("n_bytes", [0, 10**9])
@pytest.mark.parametrize("granule", [1, 64])
def test_ranges_cover_every_item_once(n_items, n_bytes, granule):
    set_threads(4)
    seen = np.zeros(n_items, int)
    ranges = []

    def kernel(first: int, last: int) -> None:
        seen[first:last] += 1
        ranges.append((first, last))

    run_ranges(kernel, n_items, n_bytes, granule=granule)
    np.testing.assert_array_equal(seen, 1)
    assert all(first % granule == 0 and first < last for first, last in ranges)
    assert len(ranges) == (1 if n_items and not n_bytes else len(ranges))


def test_work_really_runs_on_several_threads():
    set_threads(2)
    barrier = threading.Barrier(2)
    # Each of two ranges waits for the other: one thread alone could not finish.
    run_ranges(lambda first, last: barrier.wait(timeout=60) and None, 2, 10**6)


@pytest.mark.parametrize("n_bytes", [0, 10**9])
def test_an_error_in_any_range_reaches_the_caller(n_bytes):
    set_threads(3)

    def kernel(first: int, last: int) -> None:
        if first <= 700 < last:
            raise ValueError("range of 700")

    with pytest.raises(ValueError, match="range of 700"):
        run_ranges(kernel, 1000, n_bytes)


def test_the_caller_does_all_work_where_no_thread_can_be_started(monkeypatch):
    set_threads(3)

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    seen = np.zeros(100, int)

    def kernel(first: int, last: int) -> None:
        seen[first:last] += 1

    run_ranges(kernel, 100, 10**9)
    np.testing.assert_array_equal(seen, 1)


def test_the_number_of_threads_is_checked():
    default = get_threads()
    assert default >= 1
    set_threads(5)
    assert get_threads() == 5
    set_threads(None)
    assert get_threads() == default
    with pytest.raises(SettingsError, match="at least 1, not 0"):
        set_threads(0)


def _python(code: str, **environment: str) -> str:
    """What ``code`` prints in a new interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE_ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_package_imports_without_numba():
    assert _python("import sys, vogcore.kernels; dir(vogcore.kernels); print('numba' in sys.modules)") == "False"
    with pytest.raises(AttributeError, match="has no attribute 'median'"):
        vogcore.kernels.median  # noqa: B018
    assert set(vogcore.kernels.__all__) <= set(dir(vogcore.kernels))
    for name in vogcore.kernels.__all__:
        assert callable(getattr(vogcore.kernels, name))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kernels_work_in_a_forked_child():
    code = """
import os, numpy as np
from vogcore.kernels import set_threads, class_statistics
from vogcore.kernels.threads import run_ranges
set_threads(3)
run_ranges(lambda first, last: None, 100, 10**9)
pid = os.fork()
done = []
run_ranges(lambda first, last: done.append((first, last)), 100, 10**9)
if pid == 0:
    os._exit(0 if sum(b - a for a, b in done) == 100 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert _python(code) == "0"


_SMALL_RUN = """
import numpy as np
from vogcore.kernels import class_statistics, _cpu
print(class_statistics([1.0, 3.0], [0, 0], 1).std[0], len(_cpu.class_moments.stats.cache_hits))
"""


def test_compiled_kernels_are_kept_on_disk_until_a_source_changes(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert _python(_SMALL_RUN, **cache) == "1.0 0"
    assert _python(_SMALL_RUN, **cache) == "1.0 1"
    changed = "from vogcore.kernels import _jit\n_jit._SOURCES = 'another formula'\n"
    assert _python(changed + _SMALL_RUN, **cache) == "1.0 0"
    for path in tmp_path.rglob("*.nb*"):
        path.write_bytes(path.read_bytes()[:20])
    assert _python(_SMALL_RUN, **cache) == "1.0 0"


@pytest.mark.parametrize(
    "failure",
    [
        # A locator that finds no folder is what a read-only installation without a home folder looks like to Numba.
        "caching.CacheImpl._locator_classes = []",
        # A disk that fills up after the folder was found.
        "caching.IndexDataCacheFile.save = lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device'))",
    ],
)
def test_where_nothing_can_be_kept_kernels_are_compiled_in_memory(tmp_path, failure):
    code = f"from numba.core import caching\n{failure}\n{_SMALL_RUN}"
    assert _python(code, NUMBA_CACHE_DIR=str(tmp_path)) == "1.0 0"
    assert not list(tmp_path.rglob("*.nbc"))


def test_kernels_also_run_uncompiled():
    code = """
import numpy as np
from vogcore.kernels import update_moments, score_from_moments
g = np.arange(48, dtype=np.float16).reshape(2, 2, 3, 4)
m, q = np.empty((2, 8)), np.empty((2, 8))
update_moments(g, m, q, step=1, channel_axis=2)
update_moments(-g, m, q, step=2, channel_axis=2)
print(m.max(), score_from_moments(q, 2).tolist())
"""
    expected = np.abs(np.arange(48.0).reshape(2, 2, 3, 4).mean(axis=2)).reshape(2, 8).mean(axis=1).tolist()
    assert _python(code, NUMBA_DISABLE_JIT="1") == f"0.0 {expected}"
