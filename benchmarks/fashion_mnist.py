"""Fashion-MNIST, whole: train, export, score from the command line, and see what the score ranks.

    python -m benchmarks.fashion_mnist --data-dir DIR

trains a small convolutional network on the 60,000 training images, writes a checkpoint after every epoch, runs
``vogcore score`` on the training and on the test set, and reports what both commands cost, the test error in every
decile of the score, and the direction that was measured. The training is reused by later runs with the same settings.
Results go to ``benchmarks/results/fashion_mnist.json`` and ``.md``; with ``--quick`` into the work folder.

Without the data (the four gzip files of https://github.com/zalandoresearch/fashion-mnist, MIT licence) the benchmark
says so and exits with status 0.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._environment import machine, run_timed, versions
from benchmarks._fashion_report import markdown_report
from benchmarks._idx import FASHION_CLASSES, FILES, MEAN, STD, ImageSet, find_fashion_mnist, load_fashion_mnist
from benchmarks._tables import json_ready, stage_results

__all__ = ["main"]

DATA_VARIABLE = "VOGCORE_DATA_DIR"
HERE = Path(__file__).parent
MINIMUM_CHECKPOINTS = 10
QUICK = {"train": 6000, "test": 2000, "epochs": 6}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _parse(arguments)
    folder = find_fashion_mnist(options.data_dir) if options.data_dir else None
    if folder is None:
        names = ", ".join(name for pair in FILES.values() for name in pair)
        where = (
            f"not in {options.data_dir}" if options.data_dir else f"name its folder with --data-dir or {DATA_VARIABLE}"
        )
        print(f"Skipped: the Fashion-MNIST benchmark needs {names}; {where}.")
        return 0
    sets = load_fashion_mnist(folder)
    if options.quick:
        sets = {part: images.head(QUICK[part]) for part, images in sets.items()}
    work = options.work_dir
    work.mkdir(parents=True, exist_ok=True)
    training, reused = _train(work, sets, options)
    for part, images in sets.items():
        _write_data(work / f"{part}.npz", images)
    if options.train_only:
        print(f"{len(training['epochs'])} checkpoints are in {work / 'ckpts'}.")
        return 0

    program = _program()
    if program is None:
        print("The command vogcore is not installed beside this Python; run: pip install -e .", file=sys.stderr)
        return 2
    commands = []
    for part in sets:
        command, status = _score(program, work, part)
        if status:
            print(f"Stopped: {command['command']} ended with status {status}.", file=sys.stderr)
            return status
        commands.append(command)
    results = _collect(work, training, reused, commands)
    _write_results(results, work / "results" if options.quick else HERE / "results")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fashion_mnist", description=__doc__.partition("\n")[0])
    default = os.environ.get(DATA_VARIABLE)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(default) if default else None,
        help=f"folder that contains fashion-mnist/, or that folder itself (default: ${DATA_VARIABLE})",
    )
    parser.add_argument("--work-dir", type=Path, help="folder for checkpoints, data and score files")
    parser.add_argument("--epochs", type=int, help="epochs, and checkpoints (default 12; 6 with --quick)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="threads of the training (default 2)")
    parser.add_argument("--retrain", action="store_true", help="train even if the checkpoints are there")
    parser.add_argument("--train-only", action="store_true", help="stop after the checkpoints and data files")
    parser.add_argument("--quick", action="store_true", help="6,000 and 2,000 images, 6 epochs: a check, not a result")
    options = parser.parse_args(arguments)
    if options.epochs is None:
        options.epochs = QUICK["epochs"] if options.quick else 12
    least = 2 if options.quick else MINIMUM_CHECKPOINTS
    if options.epochs < least:
        parser.error(f"--epochs must be at least {least}")
    if options.threads < 1:
        parser.error("--threads must be at least 1")
    if options.work_dir is None:
        options.work_dir = HERE / "work" / ("fashion-mnist-quick" if options.quick else "fashion-mnist")
    return options


def _train(work: Path, sets: dict[str, ImageSet], options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    # torch is imported here so that a missing data folder is reported at once, and without torch.
    import torch

    from benchmarks._fashion_training import reusable_record, train_checkpoints, training_settings

    torch.set_num_threads(options.threads)
    settings = training_settings(options.epochs, options.seed, len(sets["train"].y), len(sets["test"].y))
    record = None if options.retrain else reusable_record(work, settings)
    if record is not None:
        print(f"Reusing the {len(record['epochs'])} checkpoints in {work} (--retrain trains again).")
        return record, True
    return train_checkpoints(work, sets, settings), False


def _write_data(path: Path, images: ImageSet) -> None:
    from vogcore._paths import write_whole

    buffer = io.BytesIO()
    np.savez(buffer, x=images.x, y=images.y, class_names=np.array(FASHION_CLASSES))
    write_whole(path, buffer.getvalue(), overwrite=True)


def _program() -> str | None:
    beside = str(Path(sys.executable).parent)
    return shutil.which("vogcore", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))


def _score(program: str, work: Path, part: str) -> tuple[dict[str, Any], int]:
    arguments = ["score", "--checkpoints", "ckpts/*.onnx", "--data", f"{part}.npz", "--layout", "nhw->nchw"]
    arguments += ["--scale", "1/255", "--mean", f"{MEAN:.4f}", "--std", f"{STD:.4f}"]
    arguments += ["-o", f"{part}-scores.h5", "--overwrite"]
    # Paths are relative to the work folder: the recorded command holds nothing of this machine.
    shown = shlex.join(["vogcore", *arguments])
    print(shown, flush=True)
    timed = run_timed([program, *arguments], work)
    command = {
        "data": part,
        "command": shown,
        "seconds": timed.seconds,
        "peak_memory_mib": timed.peak_memory_mib,
    }
    return command, timed.status


def _collect(work: Path, training: dict[str, Any], reused: bool, commands: list[dict[str, Any]]) -> dict[str, Any]:
    import vogcore

    results: dict[str, Any] = {
        "benchmark": "fashion_mnist",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "training": training,
        "training_reused": reused,
        "commands": commands,
    }
    for command in commands:
        part = command["data"]
        scores = vogcore.open_scores(work / f"{part}-scores.h5")
        # A file cannot hold what writing it cost: the same file is written once more, under another name.
        begun = time.perf_counter()
        scores.save(work / f"{part}-scores-again.h5", overwrite=True)
        command["timings"] = {**scores.timings, "storage": time.perf_counter() - begun}
        command["examples"] = len(scores)
        results[part] = {"stages": stage_results(scores, with_errors=part == "test"), "warnings": scores.warnings}
    return json_ready(results)


def _write_results(results: dict[str, Any], folder: Path) -> None:
    from vogcore._paths import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    report = markdown_report(results)
    write_whole(
        folder / "fashion_mnist.json", (json.dumps(results, indent=1, allow_nan=False) + "\n").encode(), overwrite=True
    )
    write_whole(folder / "fashion_mnist.md", report.encode(), overwrite=True)
    print(report)
    print(f"Written to {folder}.")


if __name__ == "__main__":
    sys.exit(main())
