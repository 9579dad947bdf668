"""The benchmark of the CUDA kernels: without a GPU a sentence, and in the simulator what is timed is what is said."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cuda as benchmark
from vogcore.kernels import devices


def test_without_a_gpu_it_says_so_and_exits_with_2(monkeypatch, capsys):
    monkeypatch.setattr(devices, "problem", lambda kind: "the package numba-cuda is not installed")
    assert benchmark.main(["--quick"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "This benchmark needs a GPU, and there is none to compute on: the package numba-cuda is not installed.\n"
    )


def test_checkpoints_are_networks_that_differ(monkeypatch):
    from benchmarks import _speed_models

    def tiny():
        import torch

        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))

    monkeypatch.setitem(_speed_models.MODELS, "resnet50-224-b8", _speed_models.SpeedModel(tiny, 2, 2, 1.0))
    first, second = benchmark.resnet50_checkpoints(2)
    weights = [[np.frombuffer(t.raw_data, np.float32) for t in model.graph.initializer] for model in (first, second)]
    assert any(not np.array_equal(a, b) for a, b in zip(*weights))


PROGRAM = """
from numba import cuda
cuda.event.elapsed_time = lambda begin, end: 2.0  # the simulator's events take no time
from benchmarks import cuda as benchmark
benchmark.SHAPES = [("3x2x4", (3, 2, 4), 1), ("4 x 12", (4, 12), 2)]
benchmark.STEPS = (5,)
benchmark.PIXELS = 6
record = {
    "machine": {"gpu": {"name": "simulator", "compute_capability": "0.0"}},
    "kernels": benchmark.measure_kernels(2, 480),
    "resnet50": {"examples": 4, "checkpoints": 2, "device": {"per_second": 20.0}, "host": {"per_second": 10.0}},
}
bytes_of = {name: case["bytes"] for name, case in record["kernels"].items()}
assert bytes_of["moments, 3x2x4 float32, B = 5"] == 480 + 4 * 5 * 8 * 8, bytes_of
assert bytes_of["moments, 3x2x4 bfloat16, B = 10"] == 480 + 4 * 10 * 8 * 8, bytes_of
assert bytes_of["block score, 4 x 12 float32, K = 5, B = 1"] == 4 * 5 * 48, bytes_of
assert bytes_of["merge, 6 pixels"] == 6 * 480, bytes_of
for case in record["kernels"].values():
    assert case["copy_bytes"] == 960
    assert len(case["ms"]) == len(case["call_ms"]) == len(case["copy_ms"]) == 2
    assert case["copy_ms"] == [2.0, 2.0]
launches = {name.partition(",")[0]: case["ms"][0] / 2.0 for name, case in record["kernels"].items()}
assert launches == {"moments": 2, "block score": 3, "score from moments": 2, "merge": 1}, launches
print(benchmark.markdown(record))
"""


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="the package numba-cuda is not installed")
def test_what_is_timed_in_the_simulator():
    root = Path(__file__).parents[2]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(root)}
    result = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "# CUDA kernels on simulator" in result.stdout
    assert "| block score, 3x2x4 float32, K = 5, B = 1 |" in result.stdout
    assert "20 gradients a second scored on the device, 10 copied to the host" in result.stdout
