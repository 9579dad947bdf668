"""Runs whose gradients stay where they are computed: through ONNX Runtime's binding, and in the CUDA simulator."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import vogcore
from vogcore.kernels import devices
from vogcore.runtime import GradientSession
from vogcore.runtime.device_output import DeviceOutput
from vogcore.scoring import run, sessions
from vogcore.store import open_gradients

from .models import CNN_SHAPES, IMAGE, cnn, examples, mlps, walk


@pytest.fixture
def bound(monkeypatch):
    """The path of gradients that stay on a device, with memory of the host for the device's."""
    host = SimpleNamespace(empty=np.empty, to_host=np.asarray)
    monkeypatch.setattr(sessions, "keeps_gradients", lambda provider: True)
    monkeypatch.setattr(devices, "_module", lambda kind: {"cuda": host}[kind])
    run_on_device, seen = GradientSession.run_on_device, []

    def note(self, x, target):
        logits, gradients = run_on_device(self, x, target)
        assert isinstance(gradients, DeviceOutput)
        seen.append(len(x))
        return logits, gradients

    monkeypatch.setattr(GradientSession, "run_on_device", note)
    return seen


def same_scores(first, second):
    assert list(first.stages) == list(second.stages)
    for name, stage in first.stages.items():
        np.testing.assert_array_equal(stage.vog_raw, second.stages[name].vog_raw)
        np.testing.assert_array_equal(stage.vog, second.stages[name].vog)


def test_bound_outputs_give_the_same_bits(bound, monkeypatch):
    models = [cnn(w) for w in walk(CNN_SHAPES, 6)]
    x, y = examples(30, IMAGE)
    there = vogcore.score(models, x, y, batch_size=8, threads=1)
    assert sorted(bound) == [6] * 6 + [8] * 18
    monkeypatch.undo()
    same_scores(there, vogcore.score(models, x, y, batch_size=8, threads=1))


def test_a_fixed_batch_runs_batch_by_batch(bound, monkeypatch):
    monkeypatch.setattr(sessions, "make_batch_dynamic", lambda model, *args, **kwargs: (model, False))
    models = mlps(2, batch=4)
    x, y = examples(10)
    there = vogcore.score(models, x, y, batch_size=8, threads=1)
    assert sorted(bound) == [2] * 2 + [4] * 4
    monkeypatch.undo()
    monkeypatch.setattr(sessions, "make_batch_dynamic", lambda model, *args, **kwargs: (model, False))
    same_scores(there, vogcore.score(models, x, y, batch_size=8, threads=1))


def test_the_archive_holds_them(bound, tmp_path):
    x, y = examples(9)
    scores = vogcore.score(mlps(2), x, y, keep_gradients=tmp_path / "g.h5", threads=1)
    same = vogcore.score_gradients(tmp_path / "g.h5")
    np.testing.assert_allclose(same.stage("all").vog_raw, scores.stage("all").vog_raw, rtol=1e-12)
    with open_gradients(tmp_path / "g.h5") as archive:
        assert archive.n_checkpoints == 2


def test_moments_lie_where_the_gradients_do(bound, monkeypatch):
    asked = []
    monkeypatch.setattr(
        run.kernels, "empty", lambda shape, dtype, device: asked.append(device) or np.empty(shape, dtype)
    )
    vogcore.score(mlps(2), *examples(6), threads=1)
    assert asked == ["cuda", "cuda"]
    asked.clear()
    vogcore.score_gradients(np.random.default_rng(0).random((3, 6, 4)))
    assert asked == ["cpu", "cpu"]


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="the package numba-cuda is not installed")
def test_whole_runs_in_the_simulator():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/scoring/device_scores.py"]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(root)}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
