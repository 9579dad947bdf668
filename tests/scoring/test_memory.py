"""The peak of memory is that of one block: it grows neither with the examples nor with the checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vogcore
from vogcore.scoring.sources import ArrayGradients

from .models import mlp, save, walk

PROGRAM = """
import sys, tracemalloc
import numpy as np
import vogcore

from vogcore.scoring import sources
from vogcore.store import _blocks, _dataset, _writer

# As in real runs: much less than all gradients.
sources._BATCH_BYTES = _blocks._TARGET_BYTES = 1 << 20
what, n, k, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
PIXELS = 256


class Generated:
    "Examples made as they are read, so that the data set itself takes no memory."
    name, shape, dtype, ids, class_names = "generated", (PIXELS,), np.dtype(np.float32), None, None

    def __init__(self, n):
        self.n, self.labels = n, np.arange(n) % 3

    def __len__(self):
        return self.n

    def read(self, start, stop):
        rng = np.random.default_rng(start)
        return rng.standard_normal((stop - start, PIXELS), dtype=np.float32)

    def fingerprint(self):
        return "generated"


def run(n, k):
    if what == "score":
        paths = [f"{folder}/ckpt-{i + 1}.onnx" for i in range(k)]
        return vogcore.score(paths, Generated(n), memory=4 << 20, batch_size=64, threads=1)
    rng = np.random.default_rng(0)
    if what == "stream":
        stream = (
            (c, start, rng.standard_normal((100, PIXELS), dtype=np.float32))
            for start in range(0, n, 100) for c in range(k)
        )
        return vogcore.score_gradients(stream, np.arange(n) % 3, memory=4 << 20, spool_folder=folder)
    path = f"{folder}/{n}-{k}.h5"
    with vogcore.GradientWriter(path, n, (PIXELS,), labels=np.arange(n) % 3, block_size=100, overwrite=True) as writer:
        for c in range(k):
            for start in range(0, n, 100):
                writer.write(c, start, rng.standard_normal((100, PIXELS), dtype=np.float32))
    tracemalloc.reset_peak()
    return vogcore.score_gradients(path, memory=4 << 20)


# What an archive holds back on its way to the disk is bounded as well, by more than these runs would fill.
_writer._QUEUE_BYTES = 1 << 20
run(200, 2)  # compiles, imports
tracemalloc.start()
before = tracemalloc.get_traced_memory()[0]
scores = run(n, k)
print(tracemalloc.get_traced_memory()[1] - before)
"""


def peak(what: str, n: int, k: int, folder: Path) -> int:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, what, str(n), str(k), str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.parametrize("what", ["score", "archive", "stream"])
def test_memory_is_that_of_one_block(what, tmp_path):
    shapes = {"w1": (256, 16), "b1": (16,), "w2": (16, 3), "b2": (3,)}
    save([mlp(w) for w in walk(shapes, 12)], tmp_path)
    small = peak(what, 4000, 3, tmp_path)
    # Beside the block: some thirty float64 of each example in the result, and 8 bytes for each prediction.
    assert peak(what, 16_000, 3, tmp_path) < small + 12_000 * (30 * 8 + 3 * 8)
    assert peak(what, 4000, 12, tmp_path) < small + 4000 * (9 * 8 + 30 * 8) + (1 << 20)
    assert small < 40 << 20


def test_a_block_is_sized_by_its_pixels_and_not_by_its_channels(monkeypatch):
    # Moments of one pixel: mean and M2 in float64. The memory is just enough for all ten examples after the channels
    # have been averaged; counted with the channels, it would be three blocks.
    rng = np.random.default_rng(0)
    gradients, pixels = rng.normal(size=(2, 10, 3, 4, 4)).astype(np.float32), 16
    blocks = []
    begin = ArrayGradients.begin
    monkeypatch.setattr(ArrayGradients, "begin", lambda self, a, b: (blocks.append((a, b)), begin(self, a, b)))
    whole = vogcore.score_gradients(gradients, np.arange(10) % 2, memory=10 * pixels * 2 * 8)
    assert blocks == [(0, 10)]
    blocks.clear()
    cut = vogcore.score_gradients(gradients, np.arange(10) % 2, memory=5 * pixels * 2 * 8)
    assert blocks == [(0, 5), (5, 10)]
    np.testing.assert_array_equal(cut.vog, whole.vog)
