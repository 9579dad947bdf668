"""Score files of runs that nobody has trained: made of random numbers that hang together as those of a run do."""

from __future__ import annotations

from typing import Any

import numpy as np

from vogcore.scoring.companions import LogitNotes
from vogcore.scoring.direction import measure_direction
from vogcore.store import CheckpointInfo, Companion, Maps, Scores, StageScores

HOSTILE = '</script><script>document.title="taken"</script>'
"""What a class, a checkpoint or an example may be called."""


def stage(name: str, window: np.ndarray, raw: np.ndarray, labels: np.ndarray, classes: int) -> StageScores:
    """Scores of a stage from raw VoG, normalised by class, with directions that were not measured."""
    members = [labels == c for c in range(classes)]
    mean = np.array([raw[m].mean() if m.any() else np.nan for m in members])
    std = np.array([raw[m].std() if m.any() else np.nan for m in members])
    vog = np.full(len(raw), np.nan)
    there = labels >= 0
    with np.errstate(invalid="ignore"):  # a class of one example has no spread
        vog[there] = (raw[there] - mean[labels[there]]) / std[labels[there]]
    return StageScores(name, window, raw, vog, raw / (1 + raw), 1 + raw, mean, std, "class")


def run(n: int = 400, classes: int = 5, k: int = 6, *, seed: int = 0, maps: Any = None, **changes: Any) -> Scores:
    """A run of K checkpoints in which harder examples have higher VoG, with all that a run from checkpoints records.

    Args:
        n, classes, k: sizes; from six checkpoints on there are early, middle and late.
        seed: of everything random.
        maps: shape of one map, for the 12 examples with the highest VoG.
        changes: fields of :class:`Scores` to be replaced.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    hardness = rng.standard_normal(n)
    notes = LogitNotes(k, n, labels)
    for checkpoint in range(k):
        logits = rng.standard_normal((n, classes))
        logits[np.arange(n), labels] += 0.6 * (checkpoint + 1) - 1.2 * hardness
        notes.note(checkpoint, 0, logits)
    windows = {"all": np.arange(k)}
    if k >= 6:
        windows |= dict(zip(("early", "middle", "late"), np.array_split(np.arange(k), 3), strict=True))
    raw = {name: np.exp(0.3 * hardness + 0.4 * rng.standard_normal(n)) * (1 + labels / classes) for name in windows}
    stages = {name: stage(name, window, raw[name], labels, classes) for name, window in windows.items()}
    companions = notes.companions()
    for one in stages.values():
        for name in ("vog", "vog_raw", "vog_relative"):
            one.directions[name] = measure_direction(
                getattr(one, name), companions["loss"].values, companions["correct"].values
            )
    values: dict[str, Any] = {
        "stages": stages,
        "labels": labels,
        "ids": np.arange(n) + 1000,
        "classes": [f"kind {c}" for c in range(classes)],
        "class_count": np.bincount(labels, minlength=classes),
        "checkpoints": [CheckpointInfo(f"ckpt-{c}.onnx", step=100 * c, epoch=c, sha256="ab" * 32) for c in range(k)],
        "settings": {"of": "logit", "target": "label", "channels": "mean", "data": {"name": "train.npz"}},
        "companions": companions,
        "predictions_class": notes.predicted,
        "predictions_label_probability": notes.probability,
        "timings": {"total": 12.0, "gradients": 10.0},
        "created": "2026-01-02T03:04:05+00:00",
        "vogcore_version": "0.1.0",
    }
    if maps is not None:
        hardest = np.argsort(-stages["all"].vog)[:12]
        values["maps"] = Maps(hardest, rng.random((len(hardest), *maps)).astype(np.float32))
    return Scores(**(values | changes))


def pictures(n: int = 400, side: int = 28, channels: int = 0, *, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Images (n, side, side[, channels]) uint8: a disc whose place and size go with the label, on a noisy ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    angle = 2 * np.pi * labels / (labels.max() + 1)
    x = side / 2 + side / 4 * np.cos(angle) + rng.normal(0, 1, n)
    y = side / 2 + side / 4 * np.sin(angle) + rng.normal(0, 1, n)
    radius = side / 6 + rng.random(n) * side / 12
    inside = (rows - y[:, None, None]) ** 2 + (columns - x[:, None, None]) ** 2 < radius[:, None, None] ** 2
    grey = np.clip(40 * rng.random((n, side, side)) + 200 * inside, 0, 255)
    if channels:
        tint = 0.4 + 0.6 * rng.random((n, 1, 1, channels))
        return (grey[..., None] * tint).astype(np.uint8)
    return grey.astype(np.uint8)


def large(n: int, classes: int, k: int, seed: int = 0) -> Scores:
    """A run of that size at the price of its random numbers alone; the figures hang together only loosely."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    hardness = rng.standard_normal(n, np.float32)
    windows = {"all": np.arange(k)}
    windows |= dict(zip(("early", "middle", "late"), np.array_split(np.arange(k), 3), strict=True))
    statistics = np.full(classes, 1.0)
    stages = {}
    for name, window in windows.items():
        vog = (0.4 * hardness + rng.standard_normal(n, np.float32)).astype(np.float64)
        stages[name] = StageScores(
            name, window, np.exp(0.3 * vog), vog, np.exp(-0.2 * vog), np.exp(0.1 * vog), statistics, statistics, "class"
        )
    correct = rng.random(n, np.float32) > 1 / (1 + np.exp(1.5 - hardness))
    loss = np.exp(hardness + 0.3 * rng.standard_normal(n, np.float32)).astype(np.float64)
    companions = {"loss": loss, "correct": correct, "entropy": np.sqrt(loss)}
    for name in ("confidence", "variability", "correctness", "el2n", "aum", "forgetting", "first_learned"):
        companions[name] = (0.5 * hardness + rng.standard_normal(n, np.float32)).astype(np.float64)
    for name in ("forgetting", "first_learned"):
        companions[name] = np.floor(np.abs(companions[name]) * 3)
    predicted = np.where(correct, labels, (labels + 1) % classes).astype(np.int32)
    return Scores(
        stages=stages,
        labels=labels,
        ids=np.arange(n),
        classes=[f"class number {c} with a name" for c in range(classes)],
        class_count=np.bincount(labels, minlength=classes),
        checkpoints=[CheckpointInfo(f"ckpt-{c}.onnx", epoch=c) for c in range(k)],
        settings={"of": "logit", "target": "label"},
        companions={name: Companion(values, "higher is harder", "", "made up") for name, values in companions.items()},
        predictions_class=np.stack([predicted] * k),
        predictions_label_probability=rng.random((k, n), np.float32),
    )
