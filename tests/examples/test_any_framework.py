"""examples/any_framework.py runs, and its scores are those of gradients by finite differences."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

import vogcore

EXAMPLE = Path(__file__).parents[2] / "examples" / "any_framework.py"


def test_the_example_is_short_and_right(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    added = {}
    add = vogcore.LiveScorer.add

    def noting(self, name, blocks, **options):
        added[name] = blocks[0][1:]
        add(self, name, blocks, **options)

    monkeypatch.setattr(vogcore.LiveScorer, "add", noting)
    end = runpy.run_path(str(EXAMPLE))
    code = [line for line in EXAMPLE.read_text().splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 24

    # The same training without the gradients, and they by central differences of the logits.
    x, labels = end["x"], end["labels"]
    rng = np.random.default_rng(0)
    rng.integers(0, 3, 300), rng.normal(size=(300, 10))
    w1, w2 = rng.normal(size=(10, 16)) / 4, rng.normal(size=(16, 3)) / 4
    rows, step = np.arange(len(x)), 1e-6

    def forward(values):
        return np.tanh(values @ w1) @ w2

    for epoch in range(30):
        if epoch % 5 == 0:
            found, logits = added[f"epoch {epoch}"]
            np.testing.assert_allclose(logits, forward(x), rtol=1e-9)
            for column, unit in enumerate(np.eye(10)):
                slope = (forward(x + step * unit) - forward(x - step * unit))[rows, labels] / (2 * step)
                np.testing.assert_allclose(found[:, column], slope, rtol=1e-5, atol=1e-8)
        hidden, logits = np.tanh(x @ w1), forward(x)
        error = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels]) / len(x)
        w1, w2 = w1 - x.T @ (error @ w2.T * (1 - hidden**2)), w2 - hidden.T @ error

    stack = np.stack([gradients for gradients, _ in added.values()])
    scores = vogcore.open_scores("live-scores.h5")
    np.testing.assert_allclose(scores.vog_raw, stack.std(axis=0).mean(axis=1), rtol=1e-12)
    assert scores.direction.measured in capsys.readouterr().out
