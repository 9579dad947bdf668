"""``vogcore demo``: the whole job on data that travels in the package."""

from __future__ import annotations

import argparse
import glob
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command, integer
from vogcore.cli._style import say
from vogcore.store.schema import HARDER

if TYPE_CHECKING:
    from vogcore.store import Scores

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "demo",
        run,
        summary="train a small network on handwritten digits, score it and show what came out",
        description="Train a small convolutional network on scikit-learn's digits (1,347 images, 5% of whose labels\n"
        "are made wrong), export a checkpoint of every epoch to ONNX, score them and print what came out.\n"
        "Needs no network connection and no training framework.",
        examples=["vogcore demo", "vogcore demo --output demo-output --overwrite", "vogcore demo --epochs 6 --seed 1"],
    )
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
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Train, score, show."""
    import vogcore
    from vogcore.cli._text import printable, quoted
    from vogcore.cli.score import summary, summary_data
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
    tell: Callable[[str], None] = (lambda text: None) if options.json else print
    tell("Training a small convolutional network on 1,347 handwritten digits; 5% of their labels are wrong on purpose.")
    trained = train(
        folder,
        epochs=options.epochs,
        seed=options.seed,
        overwrite=options.overwrite,
        on_epoch=lambda e: tell(
            f"  epoch {e.epoch:2}: loss {e.loss:.3f}, accuracy on the held-out digits {100 * e.test_accuracy:.1f}%"
        ),
    )
    seconds = time.perf_counter() - begun
    tell(f"Trained in {seconds:.1f} s; one ONNX checkpoint per epoch is in {printable(str(folder))}.\n")
    checkpoints = f"{glob.escape(str(folder))}/ckpt-*.onnx"
    command = (
        f"vogcore score --checkpoints {quoted(checkpoints)} --data {quoted(str(trained.train_path))} "
        f"--layout 'nhw->nchw' --scale 1/16 -o {quoted(str(out))}"
    )
    tell(f"Scoring, the same as:\n  {command}\n")
    scores = vogcore.score(
        checkpoints,
        trained.train_path,
        preprocess=Preprocess(scale=1 / 16, layout="nhw->nchw"),
        out=out,
        overwrite=options.overwrite,
        progress=ProgressBar(),
    )
    found = _wrong_labels(scores, trained.flipped)
    if options.json:
        print_json("demo", {**summary_data(scores, out), "folder": folder, "score_command": command, **found})
        return 0
    say(f"{summary(scores, out)}\n")
    say(report(scores, 3, overall=True))
    say(f"\n{_in_words(scores, found)}")
    return 0


def _wrong_labels(scores: Scores, flipped: np.ndarray) -> dict[str, Any]:
    """How well each score, read at its measured hard end, finds the labels that were made wrong."""
    from vogcore.scoring.direction import auroc

    wrong = np.zeros(len(scores), bool)
    wrong[flipped] = True
    rows = []
    for stage in scores.stages.values():
        for name in ("vog", "vog_relative"):
            direction = stage.direction(name)
            area = auroc(getattr(stage, name), wrong)
            as_read = area if direction.hard_is_high else 1 - area
            rows.append(
                {
                    "stage": stage.name,
                    "score": name,
                    "measured": direction.measured,
                    "auroc": area,
                    "auroc_as_measured": as_read,
                }
            )
    loss = auroc(scores.companions["loss"].values, wrong)
    rows.append({"stage": "last", "score": "loss", "measured": HARDER, "auroc": loss, "auroc_as_measured": loss})
    found = set(scores.hardest(len(flipped)).tolist()) & set(flipped.tolist())
    return {"wrong_labels": len(flipped), "wrong_among_hardest": len(found), "detection": rows}


def _in_words(scores: Scores, found: dict[str, Any]) -> str:
    from vogcore.cli._text import table

    count = found["wrong_labels"]
    rows = [
        [row["stage"], row["score"], row["measured"], f"{row['auroc']:.2f}", f"{row['auroc_as_measured']:.2f}"]
        for row in found["detection"]
    ]
    return (
        f"Does the score find the {count} wrong labels? Among the {count} hardest examples "
        f"{found['wrong_among_hardest']} have a wrong label\n(chance: {count**2 / len(scores):.1f}). AUROC for wrong "
        "labels, as it is and read at the measured hard end:\n"
        + table(["stage", "score", "measured", "AUROC", "read as measured"], rows, left=3)
    )
