"""Writes the golden files of the current format version that are not there yet; each once, and never again.

The files show that what an older vogcore wrote can still be read, so they must stay as they were written: this
script replaces none. Run from the project's root: ``python tests/data/make_golden.py``.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from vogcore.store import CheckpointInfo, Companion, Direction, GradientWriter, Maps, Scores, StageScores

HERE = Path(__file__).parent
CREATED = "2026-01-02T03:04:05+00:00"
N, K, C = 6, 3, 3


def checkpoints() -> list[CheckpointInfo]:
    """Three checkpoints; the first has no step, the last no epoch."""
    return [
        CheckpointInfo("epoch_01.onnx", None, 1, "a" * 64),
        CheckpointInfo("epoch_02.onnx", 200, 2, "b" * 64),
        CheckpointInfo("épreuve_03.onnx", 300, None, ""),
    ]


def full_scores() -> Scores:
    """Scores with everything that the format can hold."""
    raw = np.array([0.5, 0.25, 1.5, 0.125, 2.0, 0.75])
    vog = np.array([-1.0, 1.0, 0.0, -1.0, 1.0, math.nan])
    measured = Direction(
        measured="lower is harder",
        spearman_loss=-0.5,
        spearman_low=-0.75,
        spearman_high=-0.25,
        auroc_errors=0.125,
        n_errors=2,
        n_examples=6,
    )
    relative = Direction(measured="undetermined", n_examples=6)
    mean, std = np.array([0.5, 1.0, math.nan]), np.array([0.25, 0.0, math.nan])
    return Scores(
        stages={
            "all": StageScores(
                "all",
                np.arange(3),
                raw,
                vog,
                raw / 2,
                np.full(N, 2.0),
                mean,
                std,
                "class",
                {"vog": measured, "vog_raw": measured, "vog_relative": relative},
            ),
            "late": StageScores("late", np.array([1, 2]), raw * 2, vog * -1, None, None, mean * 2, std * 2, "class"),
        },
        labels=np.array([0, 1, 0, 1, 0, -1]),
        ids=np.array(["a", "bb", "ccc", "é", "", "图"]),
        classes=["cat", "dog", "vögel"],
        class_count=np.array([3, 2, 0]),
        checkpoints=checkpoints(),
        settings={"of": "logit", "reduction": "std", "nested": {"list": [1, 2.5, None, "ü"]}},
        companions={
            "loss": Companion(np.arange(N) / 4, "higher is harder", "[0, inf)", "cross-entropy"),
            "correct": Companion(np.arange(N) % 2 == 0, "lower is harder", "{0, 1}", "prediction equals label"),
        },
        predictions_class=np.arange(K * N, dtype=np.int32).reshape(K, N) % C,
        predictions_label_probability=(np.arange(K * N, dtype=np.float32) / 32).reshape(K, N),
        warnings=["Class vögel has no example."],
        timings={"total_s": 1.5},
        created=CREATED,
        vogcore_version="0.1.0",
    )


def minimal_scores() -> Scores:
    """Scores without labels, classes or anything optional."""
    raw = np.array([3.0, 1.0, 2.0])
    none = np.zeros(0)
    return Scores(
        stages={"all": StageScores("all", np.arange(3), raw, raw, None, None, none, none, "none")},
        labels=np.full(3, -1),
        ids=np.array([10, 20, -30]),
        classes=[],
        class_count=np.zeros(0, dtype=np.int64),
        checkpoints=checkpoints(),
        settings={},
        created=CREATED,
        vogcore_version="0.1.0",
    )


def mapped_scores() -> Scores:
    """The scores above, with maps (2, 2, 3) of the examples 4 and 1."""
    scores = full_scores()
    scores.maps = Maps(np.array([4, 1]), (np.arange(12, dtype=np.float32) / 8).reshape(2, 2, 3))
    return scores


def gradients(dtype: type) -> np.ndarray:
    """(3, 6, 2, 2, 3), small multiples of 1/8, with a NaN and an infinity: exact in every type."""
    values = ((np.arange(K * N * 12) % 61 - 30) / 8).reshape(K, N, 2, 2, 3).astype(dtype)
    values[1, 4, 0, 0, 0], values[2, 5, 1, 1, 2] = np.nan, -np.inf
    return values


def logits() -> np.ndarray:
    """(3, 6, 3) float32."""
    return (np.arange(K * N * C, dtype=np.float32) / 4 - 3).reshape(K, N, C)


def write_archive(path: Path, dtype: str) -> None:
    """One archive in blocks of 4 (so that the last one is short); logits with bfloat16 only."""
    labels = None if dtype == "float16" else np.array([0, 1, 0, 1, 0, -1])
    with GradientWriter(
        path,
        N,
        (2, 2, 3),
        dtype,
        labels=labels,
        classes=None if labels is None else ["cat", "dog"],
        ids=None if dtype == "float16" else ["a", "bb", "ccc", "é", "", "图"],
        channel_axis=3,
        block_size=4,
        settings={"of": "logit"},
    ) as writer:
        writer.set_checkpoints(checkpoints())
        for k, block in enumerate(gradients(np.float32)):
            writer.write(k, 0, block)
            if dtype == "bfloat16":
                writer.write_logits(k, 0, logits()[k])


def main() -> None:
    """Write the golden files that do not exist."""
    scores = {"full": full_scores(), "minimal": minimal_scores(), "maps": mapped_scores()}
    missing = 0
    for name, value in scores.items():
        path = HERE / f"scores/v1/{name}.h5"
        if not path.exists():
            missing += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            value.save(path)
    # The first three were written before archives had XXH3 digests.
    for name, dtype in {**{dtype: dtype for dtype in ("float32", "float16", "bfloat16")}, "xxh3": "bfloat16"}.items():
        path = HERE / f"archive/v1/{name}.h5"
        if not path.exists():
            missing += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            write_archive(path, dtype)
    if not missing:
        sys.exit("All golden files exist: they are never written again")


if __name__ == "__main__":
    main()
