"""A small live run and what it must come to, shared by the tests of LiveScorer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import vogcore
from vogcore.scoring.live import LiveScorer

K, N, SHAPE, CLASSES, SHARD = 7, 23, (3, 4, 4), 3, 6
LABELS = np.arange(N) % CLASSES
STAGES = [("early",)] * 3 + [()] + [("late",)] * 3
SCORES = ("vog", "vog_raw", "vog_relative", "mean_abs_gradient", "class_mean", "class_std")


def gradients(k: int) -> np.ndarray:
    return np.random.default_rng(k).normal(1, 1, size=(N, *SHAPE)).astype(np.float32)


def logits(k: int) -> np.ndarray:
    return np.random.default_rng(100 + k).normal(size=(N, CLASSES)).astype(np.float32)


def name(k: int) -> str:
    return f"step {100 * k}"


def scorer(path: Path, **options: object) -> LiveScorer:
    return LiveScorer(path, N, SHAPE, **({"labels": LABELS, "shard_size": SHARD} | options))


def add(live: LiveScorer, k: int, batch: int = 4, *, after: int | None = None) -> None:
    """Add what is missing of checkpoint k, batch by batch; give up after some batches."""
    done = 0
    with live.checkpoint(name(k), 100 * k, stages=STAGES[k]) as checkpoint:
        for first, last in checkpoint.missing():
            for start in range(first, last, batch):
                if done == after:
                    raise KeyboardInterrupt
                rows = slice(start, min(start + batch, last))
                checkpoint.add(start, gradients(k)[rows], logits(k)[rows])
                done += 1


def add_all(live: LiveScorer, first: int) -> None:
    """Add checkpoint ``first`` and those after it."""
    for k in range(first, K):
        add(live, k)


def run(path: Path, batch: int = 4, checkpoints: int = K) -> None:
    with scorer(path) as live:
        for k in range(checkpoints):
            add(live, k, batch)


def expected(folder: Path, checkpoints: int = K) -> vogcore.Scores:
    """The scores of an archive with the same gradients."""
    with vogcore.GradientWriter(folder / "g.h5", N, SHAPE, labels=LABELS, channel_axis=1) as writer:
        for k in range(checkpoints):
            writer.write(name(k), 0, gradients(k))
            writer.write_logits(name(k), 0, logits(k))
    windows = {}
    for stage in ("early", "late"):
        indices = [k for k in range(checkpoints) if stage in STAGES[k]]
        if len(indices) > 1:
            windows[stage] = indices
    return vogcore.score_gradients(folder / "g.h5", stages=windows)


def check_same(found: vogcore.Scores, wanted: vogcore.Scores, rtol: float = 0) -> None:
    """The same bits (or scores within ``rtol``) in every stage, prediction and companion, and the same directions."""
    assert list(found.stages) == list(wanted.stages)
    for stage, values in wanted.stages.items():
        for score in SCORES:
            left, right = getattr(found.stages[stage], score), getattr(values, score)
            assert rtol or left.tobytes() == right.tobytes(), (stage, score)
            np.testing.assert_allclose(left, right, rtol=rtol)
        assert repr(found.stages[stage].directions) == repr(values.directions)
        np.testing.assert_array_equal(found.stages[stage].checkpoints, values.checkpoints)
    np.testing.assert_array_equal(found.predictions_class, wanted.predictions_class)
    np.testing.assert_array_equal(found.predictions_label_probability, wanted.predictions_label_probability)
    assert list(found.companions) == list(wanted.companions)
    for key, companion in wanted.companions.items():
        np.testing.assert_array_equal(found.companions[key].values, companion.values)
    assert [c.name for c in found.checkpoints] == [c.name for c in wanted.checkpoints]
