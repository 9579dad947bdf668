"""Scores of gradients that stay on a device against scores of the same gradients on the host.

Not collected by itself: `test_device_gradients.py` runs it in a process of its own with Numba's simulator.
"""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda
from onnx import numpy_helper

import vogcore
from vogcore.errors import GradientError
from vogcore.runtime import GradientSession
from vogcore.scoring import sessions
from vogcore.store import open_gradients

from .models import CNN_SHAPES, IMAGE, cnn, examples, mlps, walk


@pytest.fixture
def on_device(monkeypatch):
    """ONNX Runtime computes on the CPU, and its outputs are moved to the simulated device."""
    monkeypatch.setattr(sessions, "keeps_gradients", lambda provider: True)
    run, seen = GradientSession.run_on_device, []

    def run_on_device(self, x, target):
        logits, gradients = run(self, x, target)
        seen.append(len(x))
        return logits, cuda.to_device(np.array(gradients))

    monkeypatch.setattr(GradientSession, "run_on_device", run_on_device)
    return seen


def test_scores_of_every_stage(on_device, monkeypatch):
    models = [cnn(w) for w in walk(CNN_SHAPES, 6)]
    x, y = examples(7, IMAGE)
    there = vogcore.score(models, x, y, batch_size=4, memory=40_000)
    assert on_device
    monkeypatch.undo()
    here = vogcore.score(models, x, y, batch_size=4, memory=40_000)
    assert list(there.stages) == ["all", "early", "middle", "late"]
    for name, stage in here.stages.items():
        np.testing.assert_allclose(there.stages[name].vog_raw, stage.vog_raw, rtol=1e-11)
        np.testing.assert_allclose(there.stages[name].vog, stage.vog, rtol=1e-8, atol=1e-8)


def test_the_archive_gets_a_copy(on_device, tmp_path):
    x, y = examples(7)
    vogcore.score(mlps(2), x, y, keep_gradients=tmp_path / "g.h5", channels="none")
    stored = vogcore.score_gradients(tmp_path / "g.h5", channels="none")
    assert on_device
    there = vogcore.score(mlps(2), x, y, channels="none")
    np.testing.assert_allclose(stored.stage("all").vog_raw, there.stage("all").vog_raw, rtol=1e-11)
    with open_gradients(tmp_path / "g.h5") as archive:
        assert archive.n_examples == 7


def test_a_gradient_that_is_not_finite_is_named(on_device):
    models = mlps(2)
    for tensor in models[1].graph.initializer:  # their product is the gradient, and the logits stay finite
        if tensor.name in ("w1", "w2"):
            tensor.raw_data = (numpy_helper.to_array(tensor) * np.float32(1e20)).tobytes()
    x, y = examples(6)
    with pytest.raises(GradientError, match=r"gradient of example 0 \(id 0\) at checkpoint .* is not finite"):
        vogcore.score(models, 0 * x, y)
