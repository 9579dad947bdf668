"""Whole runs on a real GPU: gradients of the CUDA provider that are scored where they are."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import vogcore
from vogcore.errors import VogcoreWarning
from vogcore.runtime import GradientSession, choose_provider, keeps_gradients
from vogcore.scoring import sessions
from vogcore.store import open_gradients

from .models import CNN_SHAPES, IMAGE, cnn, examples, mlps, walk

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def gpu():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VogcoreWarning)
        provider = choose_provider("auto")
        if not keeps_gradients(provider):
            pytest.skip(f"no GPU on which ONNX Runtime and Numba work; sessions run on {provider.device}")


@pytest.fixture
def shapes_on_device(monkeypatch):
    run, seen = GradientSession.run_on_device, []

    def note(self, x, target):
        logits, gradients = run(self, x, target)
        assert gradients.__cuda_array_interface__["data"][0] == gradients._value.data_ptr()
        seen.append(gradients.shape)
        return logits, gradients

    monkeypatch.setattr(GradientSession, "run_on_device", note)
    return seen


def test_scores_are_those_of_the_cpu(shapes_on_device):
    models = [cnn(w) for w in walk(CNN_SHAPES, 6)]
    x, y = examples(50, IMAGE)
    there = vogcore.score(models, x, y, batch_size=16, provider="cuda")
    assert len(shapes_on_device) == 6 * 4
    here = vogcore.score(models, x, y, batch_size=16, provider="cpu")
    for name, stage in here.stages.items():
        np.testing.assert_allclose(there.stages[name].vog_raw, stage.vog_raw, rtol=1e-4)
    again = vogcore.score(models, x, y, batch_size=16, provider="cuda")
    np.testing.assert_array_equal(again.stage("all").vog_raw, there.stage("all").vog_raw)


def test_scores_do_not_depend_on_where_the_moments_are(monkeypatch):
    models = [cnn(w) for w in walk(CNN_SHAPES, 4)]
    x, y = examples(20, IMAGE)
    there = vogcore.score(models, x, y, provider="cuda")
    monkeypatch.setattr(sessions, "keeps_gradients", lambda provider: False)
    here = vogcore.score(models, x, y, provider="cuda")
    np.testing.assert_allclose(there.stage("all").vog_raw, here.stage("all").vog_raw, rtol=1e-11)


def test_the_archive_gets_a_copy(tmp_path):
    x, y = examples(9)
    scores = vogcore.score(mlps(3), x, y, keep_gradients=tmp_path / "g.h5", provider="cuda")
    same = vogcore.score_gradients(tmp_path / "g.h5")
    np.testing.assert_allclose(same.stage("all").vog_raw, scores.stage("all").vog_raw, rtol=1e-11)
    with open_gradients(tmp_path / "g.h5") as archive:
        assert archive.n_checkpoints == 3
