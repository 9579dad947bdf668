"""``vogcore demo``: the whole job on data that travels in the package."""

from __future__ import annotations

import argparse
import glob
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vogcore.cli._parser import integer

if TYPE_CHECKING:
    from vogcore.store import Scores

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="train a small network on handwritten digits, score it and show what came out",
        description="Trains a small convolutional network on scikit-learn's digits (1,347 images, 5% of whose labels "
        "are made wrong), exports a checkpoint per epoch to ONNX, scores them and prints what it found. Needs no "
        "network connection and no training framework.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--output", default="vogcore-demo", metavar="DIR", help="folder for its files (vogcore-demo)")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier demo")
    parser.add_argument("--epochs", type=integer(2), default=12, metavar="N", help="epochs, and checkpoints (12)")
    parser.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        metavar="N",
        help="of everything random: weights, batches, wrong labels (0)",
    )


def run(options: argparse.Namespace) -> int:
    """Train, score, show."""
    import vogcore
    from vogcore.cli._text import printable, quoted
    from vogcore.cli.score import summary
    from vogcore.cli.show import report
    from vogcore.data import Preprocess
    from vogcore.demo import train
    from vogcore.scoring.progress import ProgressBar
    from vogcore.store import check_output

    folder = Path(options.output)
    out = folder / "scores.h5"
    if folder.is_dir():
        check_output(out, options.overwrite)
    begun = time.perf_counter()
    print(
        "Training a small convolutional network on 1,347 handwritten digits; 5% of their labels are wrong on purpose."
    )
    trained = train(
        folder,
        epochs=options.epochs,
        seed=options.seed,
        overwrite=options.overwrite,
        on_epoch=lambda e: print(
            f"  epoch {e.epoch:2}: loss {e.loss:.3f}, accuracy on the held-out digits {100 * e.test_accuracy:.1f}%"
        ),
    )
    seconds = time.perf_counter() - begun
    print(f"Trained in {seconds:.1f} s; one ONNX checkpoint per epoch is in {printable(str(folder))}.\n")
    checkpoints = f"{glob.escape(str(folder))}/ckpt-*.onnx"
    command = (
        f"vogcore score --checkpoints {quoted(checkpoints)} --data {quoted(str(trained.train_path))} "
        f"--layout 'nhw->nchw' --scale 1/16 -o {quoted(str(out))}"
    )
    print(f"Scoring, the same as:\n  {command}\n")
    scores = vogcore.score(
        checkpoints,
        trained.train_path,
        preprocess=Preprocess(scale=1 / 16, layout="nhw->nchw"),
        out=out,
        overwrite=options.overwrite,
        progress=ProgressBar(),
    )
    print(f"{summary(scores, out)}\n")
    print(report(scores, 3, overall=True))
    print(f"\n{_wrong_labels(scores, trained.flipped)}")
    return 0


def _wrong_labels(scores: Scores, flipped: np.ndarray) -> str:
    """How well each score, read at its measured hard end, finds the labels that were made wrong."""
    from vogcore.cli._text import table
    from vogcore.scoring.direction import auroc

    wrong = np.zeros(len(scores), bool)
    wrong[flipped] = True
    rows = []
    for stage in scores.stages.values():
        for name in ("vog", "vog_relative"):
            direction = stage.direction(name)
            area = auroc(getattr(stage, name), wrong)
            as_read = area if direction.hard_is_high else 1 - area
            rows.append([stage.name, name, direction.measured, f"{area:.2f}", f"{as_read:.2f}"])
    loss = auroc(scores.companions["loss"].values, wrong)
    rows.append(["last", "loss", "higher is harder", f"{loss:.2f}", f"{loss:.2f}"])
    found = set(scores.hardest(len(flipped)).tolist()) & set(flipped.tolist())
    return (
        f"Does the score find the {len(flipped)} wrong labels? Among the {len(flipped)} hardest examples {len(found)} "
        f"have a wrong label\n(chance: {len(flipped) ** 2 / len(scores):.1f}). AUROC for wrong labels, as it is and "
        "read at the measured hard end:\n"
        + table(["stage", "score", "measured", "AUROC", "read as measured"], rows, left=3)
    )
