"""A whole scoring run beside the gradients alone, and the memory that it takes.

    python -m benchmarks.pipeline [--parts time memory] [--rounds N] [--threads N] [--quick]

**Time.** In turn, round by round, each in a process of its own: ONNX Runtime alone on the gradient graphs of all
checkpoints and all examples (nothing else is timed, not even making the sessions); ``vogcore.score`` on the same files;
and the same with ``keep_gradients``. The table gives medians over the rounds and of their ratios, and the ratio of a
run to the time that it spent in ONNX Runtime itself, which a busy machine disturbs less.

**Memory.** The largest resident memory of a process that scores, as the number of examples and the number of
checkpoints grow tenfold. The examples are in HDF5: of a mapped ``.npy`` file all that has been read would count.

Results go to ``benchmarks/results/pipeline.md`` and ``.json``; with ``--quick`` they are printed only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._environment import machine, peak_memory_mib, versions
from benchmarks._tables import markdown_table

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
CLASSES = 10
BATCH = 64
CONTENDERS = ("gradients", "score", "score, archive")
TIMED = {"small CNN": (40_000, 6), "ResNet-18, CIFAR stem": (4096, 3)}
WEIGHED = {"small CNN": (10_000, 6), "ResNet-18, CIFAR stem": (48, 3)}
"""Examples and checkpoints."""
MEMORY = 16 << 20
"""Bytes for a block of examples in the memory runs: less than the smallest of them would fill."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("time", "memory"), default=["time", "memory"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two rounds of less, printed and not kept")
    options = parser.parse_args(arguments)
    rounds, part = (2, 8) if options.quick else (options.rounds, 1)
    record: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"), "threads": options.threads, "rounds": rounds,
        "machine": machine(), "versions": versions(), "time": {}, "memory": {},
    }  # fmt: skip
    kept = RESULTS / "pipeline.json"
    if not options.quick and len(options.parts) < 2 and kept.is_file():
        before = json.loads(kept.read_text(encoding="utf-8"))
        record |= {part: before[part] for part in ("time", "memory")}  # what is not run anew stays
    with tempfile.TemporaryDirectory(prefix="vogcore-pipeline-") as name:
        folder = Path(name)
        if "time" in options.parts:
            record["time"] = {
                network: times(prepare(folder / "time", network, n // part, k), rounds, options.threads)
                for network, (n, k) in TIMED.items()
            }
        if "memory" in options.parts:
            record["memory"] = {
                network: peaks(folder / "memory", network, n // part, k) for network, (n, k) in WEIGHED.items()
            }
    text = report(record)
    print(text)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "pipeline.md").write_text(text, encoding="utf-8")
        (RESULTS / "pipeline.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def prepare(folder: Path, network: str, n: int, k: int) -> Path:
    """A folder with ``ckpt-*.onnx``, ``data.npy``, ``labels.npy`` and ``data.h5``, made where torch is loaded."""
    target = folder / f"{network.partition(',')[0].replace(' ', '-')}-{n}-{k}"
    _alone(_prepare, target, network, n, k)
    return target


def _prepare(folder: Path, network: str, n: int, k: int) -> None:
    import h5py
    import onnx
    import torch
    from onnx import numpy_helper
    from torch import nn

    from benchmarks._speed_models import MODELS, export

    if network == "small CNN":
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten()]
        model, shape = nn.Sequential(*layers, nn.Linear(16 * 49, CLASSES)).eval(), (1, 28, 28)
    else:
        model, shape = MODELS["resnet18-cifar-b64"].build()[0], (3, 32, 32)
    folder.mkdir(parents=True)
    forward = onnx.load_model_from_string(export(model, torch.randn(4, *shape)))
    rng = np.random.default_rng(0)
    for number in range(k):
        for tensor in forward.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.size > 1:
                changed = values * (1 + 0.01 * rng.standard_normal(values.shape, np.float32))
                tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
        onnx.save(forward, folder / f"ckpt-{number + 1}.onnx")
    labels = rng.integers(0, CLASSES, n)
    np.save(folder / "labels.npy", labels)
    x = np.lib.format.open_memmap(folder / "data.npy", "w+", np.float32, (n, *shape))
    with h5py.File(folder / "data.h5", "w") as file:
        file["y"] = labels
        stored = file.create_dataset("x", (n, *shape), np.float32)
        for start in range(0, n, 1000):
            stop = min(start + 1000, n)
            x[start:stop] = stored[start:stop] = rng.standard_normal((stop - start, *shape), np.float32)


def times(files: Path, rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of every round."""
    seconds: dict[str, list[float]] = {
        name: [] for name in (*CONTENDERS, *(f"{name}: inside" for name in CONTENDERS[1:]))
    }
    _alone(_whole, files, threads, False)  # compiles what is compiled once for each machine
    for _ in range(rounds):
        seconds["gradients"].append(_alone(_gradients, files, threads))
        for name, keep in (("score", False), ("score, archive", True)):
            whole, inside = _alone(_whole, files, threads, keep)
            seconds[name].append(whole)
            seconds[f"{name}: inside"].append(inside)
    return seconds


def peaks(folder: Path, network: str, n: int, k: int) -> list[dict[str, float]]:
    """Peak memory as it is, with ten times the examples (of the small network alone), and the checkpoints."""
    sizes = [(n, k), (10 * n, k), (n, 10 * k)]
    if network != "small CNN":
        del sizes[1]
    return [
        {"examples": n_, "checkpoints": k_, "mib": _alone(_peak, prepare(folder, network, n_, k_), 2)}
        for n_, k_ in sizes
    ]


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, from a process of its own."""
    with mp.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _gradients(files: Path, threads: int) -> float:
    """Seconds of ONNX Runtime alone."""
    from vogcore.autodiff import gradient_model
    from vogcore.runtime import GradientSession, choose_provider

    x, labels = np.load(files / "data.npy"), np.load(files / "labels.npy")
    total = 0.0
    for path in sorted(files.glob("ckpt-*.onnx")):
        session = GradientSession(
            gradient_model(path), provider=choose_provider("cpu"), threads=threads, where=path.name
        )
        session.run(x[:BATCH], labels[:BATCH])
        for start in range(0, len(x), BATCH):
            batch, target = x[start : start + BATCH], labels[start : start + BATCH]
            begun = time.perf_counter()
            session.run(batch, target)
            total += time.perf_counter() - begun
    return total


def _whole(files: Path, threads: int, keep: bool) -> tuple[float, float]:
    """Seconds of a call of :func:`vogcore.score`, and of ONNX Runtime in it; packages are loaded before."""
    import vogcore
    import vogcore.scoring.api

    with tempfile.TemporaryDirectory(dir=files) as out:
        begun = time.perf_counter()
        scores = vogcore.score(
            str(files / "ckpt-*.onnx"),
            files / "data.npy",
            np.load(files / "labels.npy"),
            out=Path(out) / "scores.h5",
            keep_gradients=Path(out) / "gradients.h5" if keep else None,
            provider="cpu",
            threads=threads,
            batch_size=BATCH,
        )
        return time.perf_counter() - begun, scores.timings["gradients"]


def _peak(files: Path, threads: int) -> float:
    """Largest resident memory of a process that scores, in MiB."""
    import vogcore

    with tempfile.TemporaryDirectory(dir=files) as out:
        vogcore.score(
            str(files / "ckpt-*.onnx"), files / "data.h5", out=Path(out) / "scores.h5", provider="cpu",
            threads=threads, batch_size=16, memory=MEMORY, x_name="x", y_name="y",
        )  # fmt: skip
    return peak_memory_mib()


def report(record: dict[str, Any]) -> str:
    """The tables in Markdown."""
    rows = []
    for network, seconds in record["time"].items():
        alone = seconds["gradients"]
        pairs = [(alone, seconds[name]) for name in CONTENDERS[1:]]
        pairs += [(seconds[f"{name}: inside"], seconds[name]) for name in CONTENDERS[1:]]
        ratios = [f"{median(b / a for a, b in zip(of, values, strict=True)):.3f}" for of, values in pairs]
        rows.append([network, *(f"{median(seconds[name]):.2f}" for name in CONTENDERS), *ratios])
    memory = []
    for network, runs in record["memory"].items():
        for run in runs:
            share = run["mib"] / runs[0]["mib"]
            memory.append([network, run["examples"], run["checkpoints"], f"{run['mib']:.0f}", f"{share:.2f}"])
    known = ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    return "\n".join(
        [
            "# A whole scoring run",
            "",
            f"`python -m benchmarks.pipeline`, {record['created'][:10]}, {record['machine']['processor']}, "
            f"{record['threads']} threads, medians of {record['rounds']} interleaved rounds, batches of {BATCH}.",
            "",
            markdown_table(
                [
                    "network",
                    "gradients alone, s",
                    "score, s",
                    "score with archive, s",
                    "score / alone",
                    "archive / alone",
                    "score / inside",
                    "archive / inside",
                ],
                rows,
            ),
            f"Peak memory with blocks of {MEMORY >> 20} MiB:",
            "",
            markdown_table(["network", "examples", "checkpoints", "MiB", "of the first"], memory),
            f"Versions: {known}.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
