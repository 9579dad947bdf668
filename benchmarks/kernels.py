"""The CPU kernels beside the memory they move, and beside other ways to compute the same.

    python -m benchmarks.kernels [--parts NAME ...] [--rounds N] [--threads N] [--megabytes N] [--busy] [--quick]

- ``moments``: ``update_moments`` against a twin kernel that reads and writes the same bytes and only adds;
- ``block``: ``block_score`` against a kernel that reads the same gradients once and adds them up;
- ``classes``: class statistics and normalised scores of 1.3 million examples in 1,000 classes;
- ``accuracy``: errors of both kernels against sums that are rounded once, nothing timed.

``moments`` and ``block`` also measure the memory itself in the same rounds, on the same threads: copy and triad.

What is compared runs in turn, round by round. Tables give the median time and the median over the rounds of the ratio
to ours: the others of a round ran within the same second. NumPy, torch and lists of arrays work on the first examples
only (:data:`SLOW_BYTES`); their time is for those, and the ratio is that of the time for each byte.

Where other programs keep the processor busy, ``--busy`` measures the processor time of a single thread instead of the
time on the clock, which leaves out what the others took, but not what they did to the caches.

Results go to ``benchmarks/results/kernels.md`` and ``.json``; with ``--quick`` they are printed only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import _kernel_contenders as others
from benchmarks._environment import last_level_cache_mib, machine, versions
from benchmarks._kernel_accuracy import accuracy
from benchmarks._tables import markdown_table
from vogcore import kernels

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
PARTS = ("moments", "block", "classes", "accuracy")
SHAPES = {"224x224x3": 224, "32x32x3": 32}
TYPES = ("float32", "float16", "bfloat16")
SLOW_BYTES = 16 << 20
clock: Callable[[], float] = time.perf_counter
"""What the turns of a race are measured with."""

Contenders = dict[str, tuple[Callable[[], Any], float]]
"""Name -> what to run, and the share of our bytes that it works on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=768, help="size of the gradients, well above the caches")
    parser.add_argument("--busy", action="store_true", help="processor time of one thread, not the clock's")
    parser.add_argument("--quick", action="store_true", help="three rounds on 64 MB, printed and not kept")
    options = parser.parse_args(arguments)
    rounds, size = (3, 64 << 20) if options.quick else (options.rounds, options.megabytes << 20)
    global clock
    clock = time.perf_counter
    if options.busy:
        options.threads, clock = 1, time.thread_time
    kernels.set_threads(options.threads)
    try:
        import torch

        torch.set_num_threads(options.threads)
    except ImportError:
        print("torch is not installed, so it is not compared.")
    record: dict[str, Any] = {
        "clock": "processor time" if options.busy else "time on the clock",
        "created": datetime.now(UTC).isoformat(timespec="seconds"), "threads": options.threads, "rounds": rounds,
        "bytes": size, "cache_mib": last_level_cache_mib(), "machine": machine(), "versions": versions(), "parts": {},
    }  # fmt: skip
    path = RESULTS / "kernels.json"
    if not options.quick and path.is_file() and set(options.parts) != set(PARTS):
        record["parts"] = json.loads(path.read_text())["parts"]  # parts that are not run anew stay
    measures = {"moments": moments, "block": block, "classes": classes}
    for part in options.parts:
        print(f"{part} ...", flush=True)
        record["parts"][part] = accuracy() if part == "accuracy" else measures[part](size, rounds)
    report = markdown(record)
    print("\n" + report)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "kernels.md").write_text(report)
    return 0


def race(contenders: Contenders, rounds: int) -> dict[str, Any]:
    """Seconds of every round, and the median over the rounds of time for a byte over that of the first contender."""
    for run, _ in contenders.values():
        run()  # compiles, touches memory, starts threads
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (run, _) in contenders.items():
            begun = clock()
            run()
            seconds[name].append(clock() - begun)
    (first, (_, own)), *_ = contenders.items()
    ratios = {
        name: median(t / share / (s / own) for t, s in zip(seconds[name], seconds[first], strict=True))
        for name, (_, share) in contenders.items()
    }
    return {"seconds": {name: median(times) for name, times in seconds.items()}, "ratios": ratios}


def gradients(size: int, n_checkpoints: int, width: int, last: bool, dtype: str) -> npt.NDArray:
    """About ``size`` bytes of normal values (K, B, ...), one random stretch over and over; bfloat16 as its bits."""
    shape = (width, width, 3) if last else (3, width, width)
    itemsize = 4 if dtype == "float32" else 2
    n_examples = max(1, size // (n_checkpoints * 3 * width * width * itemsize))
    values = np.random.default_rng(0).standard_normal((1 << 20) + 1, np.float32)
    if dtype == "bfloat16":
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    return np.resize(values.astype(dtype if dtype == "float16" else values.dtype), (n_checkpoints, n_examples, *shape))


def cases() -> list[tuple[str, int, bool, str]]:
    """Shape, width, channels last and type of every row: all layouts as float32, 16-bit types channels first."""
    rows = [(shape, width, last, "float32") for shape, width in SHAPES.items() for last in (False, True)]
    return rows + [(shape, width, False, dtype) for dtype in TYPES[1:] for shape, width in SHAPES.items()]


def memory(size: int) -> Contenders:
    """Copy and triad over about ``size`` bytes."""
    a, b, c = (np.ones(size // 24) for _ in range(3))
    return {"copy": (lambda: others.copy(a, b), 2 * a.nbytes), "triad": (lambda: others.triad(a, b, c), 3 * a.nbytes)}


def update_contenders(values: npt.NDArray, last: bool, dtype: str) -> Contenders:
    """``update_moments`` and what it is compared with, on gradients (B, ...)."""
    axis = 3 if last else 1
    n_examples, n_pixels = len(values), values[0].size // 3
    mean, m2 = np.zeros((2, n_examples, n_pixels))
    flat = values.reshape(n_examples, -1)
    n_bytes = values.nbytes + 4 * mean.nbytes
    contenders: Contenders = {
        "update_moments": (lambda: kernels.update_moments(values, mean, m2, step=5, channel_axis=axis), n_bytes),
        "twin": (
            lambda: others.twin_of_update(flat.view(np.uint16) if dtype == "float16" else flat, mean, m2),
            n_bytes,
        ),
    }
    few = max(1, min(n_examples, n_examples * SLOW_BYTES // n_bytes))
    part, share = values[:few], n_bytes * few / n_examples
    moments_of_part = np.zeros((2, few, n_pixels))
    if dtype != "bfloat16":
        contenders["NumPy"] = (lambda: others.update_numpy(part, *moments_of_part, 5, axis), share)
    tensor = _tensor(part, dtype)
    if tensor is not None:
        pair = [_tensor(array, "float64") for array in moments_of_part]
        contenders["torch"] = (lambda: others.update_torch(tensor, *pair, 5, axis), share)
    return contenders


def block_contenders(values: npt.NDArray, last: bool, dtype: str) -> Contenders:
    """``block_score`` and what it is compared with, on gradients (K, B, ...)."""
    axis = 3 if last else 1
    flat = values.reshape(-1)
    contenders: Contenders = {
        "block_score": (lambda: kernels.block_score(values, channel_axis=axis), values.nbytes),
        "read": (lambda: others.read(flat.view(np.uint16) if dtype == "float16" else flat), values.nbytes),
    }
    few = max(1, min(values.shape[1], values.shape[1] * SLOW_BYTES // values.nbytes))
    part = np.ascontiguousarray(values[:, :few])
    if dtype != "bfloat16":
        contenders["lists"] = (lambda: others.lists_of_arrays(part, axis), part.nbytes)
        contenders["NumPy"] = (lambda: others.block_numpy(part, axis), part.nbytes)
    tensor = _tensor(part, dtype)
    if tensor is not None:
        contenders["torch"] = (lambda: others.block_torch(tensor, axis), part.nbytes)
    return contenders


def _tensor(array: npt.NDArray, dtype: str) -> Any:
    """A tensor on the same memory, None without torch."""
    if "torch" not in sys.modules:
        return None
    import torch

    tensor = torch.from_numpy(array.view(np.int16) if dtype == "bfloat16" else array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _measure(
    size: int, rounds: int, make: Callable[[npt.NDArray, bool, str], Contenders], counts: Sequence[int]
) -> list[dict[str, Any]]:
    found = []
    for n_checkpoints in counts:
        for shape, width, last, dtype in cases():
            values = gradients(size, n_checkpoints, width, last, dtype)
            contenders = make(values if len(counts) > 1 else values[0], last, dtype) | memory(values.nbytes)
            found.append(
                {
                    "shape": shape,
                    "channels": "last" if last else "first",
                    "dtype": dtype,
                    "checkpoints": n_checkpoints,
                    "examples": values.shape[1],
                    "bytes": {name: share for name, (_, share) in contenders.items()},
                    **race(contenders, rounds),
                }
            )
            del values, contenders
    return found


def moments(size: int, rounds: int) -> list[dict[str, Any]]:
    """The update of one checkpoint; gradients and float64 moments together make about ``size`` bytes."""
    return _measure(size // 4, rounds, update_contenders, (1,))


def block(size: int, rounds: int) -> list[dict[str, Any]]:
    """The score of a block with 10 and 100 checkpoints."""
    return _measure(size, rounds, block_contenders, (10, 100))


def class_contenders(n: int, n_classes: int) -> Contenders:
    """Statistics and normalised scores of ``n`` scores; all work on all of them."""
    generator = np.random.default_rng(0)
    scores, labels = generator.gamma(2.0, size=n), generator.integers(0, n_classes, size=n)

    def ours() -> npt.NDArray:
        found = kernels.class_statistics(scores, labels, n_classes)
        return kernels.normalise(scores, labels, found.mean, found.std)

    contenders: Contenders = {
        "class_statistics, normalise": (ours, 1.0),
        "NumPy bincount": (lambda: others.normalise_bincount(scores, labels, n_classes), 1.0),
    }
    by_pandas = others.normalise_pandas()
    if by_pandas is None:
        print("pandas is not installed, so its groupby is not compared.")
    else:
        contenders["pandas groupby"] = (lambda: by_pandas(scores, labels, n_classes), 1.0)
    return contenders


def classes(size: int, rounds: int) -> list[dict[str, Any]]:
    """Class normalisation of 1.3 million scores in 1,000 classes, of fewer where ``size`` is small."""
    n = min(1_300_000, size // 64)
    return [{"examples": n, "classes": 1000, **race(class_contenders(n, 1000), rounds)}]


def _speed_row(entry: dict[str, Any], columns: Sequence[str]) -> list[Any]:
    """Shape, layout, type, checkpoints; GB/s of ours and of the memory; ours as a share of the twin; times slower."""
    ours, twin, *slow = columns
    rate = {name: entry["bytes"][name] / entry["seconds"][name] / 1e9 for name in (ours, twin, "copy", "triad")}
    ratios = entry["ratios"]
    return [
        entry["shape"], entry["channels"], entry["dtype"], entry["checkpoints"], entry["examples"],
        *(f"{rate[name]:.1f}" for name in ("copy", "triad", twin, ours)), f"{100 * ratios[twin]:.0f}%",
        *(f"{ratios[name]:.1f}" if name in ratios else None for name in slow),
    ]  # fmt: skip


def markdown(record: dict[str, Any]) -> str:
    """The report."""
    known = ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    cache = record["cache_mib"]
    lines = [
        "# CPU kernels", "",
        f"`python -m benchmarks.kernels`, {record['created']}, {record['machine']['processor']}, threads: "
        f"{record['threads']}, medians of {record['rounds']} interleaved rounds, {record['clock']}. About "
        f"{record['bytes'] / 2**20:.0f} MiB of memory in a row; last-level cache "
        f"{'unknown' if cache is None else f'{cache:.0f} MiB'}.", "",
    ]  # fmt: skip
    start = ["shape", "channels", "type", "K", "examples", "copy, GB/s", "triad, GB/s"]
    parts = record["parts"]
    if "moments" in parts:
        columns = ("update_moments", "twin", "NumPy", "torch")
        lines += [
            "## One checkpoint into the moments", "",
            "Channel mean and moments in float64. Twin: the same bytes, additions only. NumPy and torch: times slower.",
            "",
            markdown_table(
                [*start, "twin, GB/s", "update_moments, GB/s", "of the twin", "NumPy", "torch"],
                [_speed_row(entry, columns) for entry in parts["moments"]],
            ),
        ]  # fmt: skip
    if "block" in parts:
        columns = ("block_score", "read", "lists", "NumPy", "torch")
        lines += [
            "## Score of a block in memory", "",
            "Read: the sum of all gradients in their own type. Lists of arrays, NumPy and torch: times slower.", "",
            markdown_table(
                [*start, "read, GB/s", "block_score, GB/s", "of the read", "lists", "NumPy", "torch"],
                [_speed_row(entry, columns) for entry in parts["block"]],
            ),
        ]  # fmt: skip
    for entry in parts.get("classes", []):
        rows = [[name, f"{1000 * s:.1f}", f"{entry['ratios'][name]:.1f}"] for name, s in entry["seconds"].items()]
        lines += [
            f"## Class normalisation of {entry['examples']:,} scores in {entry['classes']:,} classes", "",
            markdown_table(["", "ms", "times ours"], rows),
        ]  # fmt: skip
    if "accuracy" in parts:
        header = ["gradients", "K", "float64 moments", "float32 moments", "block_score", "score: float64 moments",
                  "score: float32 moments", "score: block_score"]  # fmt: skip
        rows = [
            [
                row["gradients"],
                row["checkpoints"],
                *(f"{row[key]:.0e}" for key in row if key.startswith(("pixel", "score"))),
            ]
            for row in parts["accuracy"]
        ]
        lines += [
            "## Errors", "",
            "Relative errors against sums that are rounded once: the largest of a pixel's standard deviation (for",
            "`block_score` examples of one pixel), and of the score of 64 pixels.", "",
            markdown_table(header, rows),
        ]  # fmt: skip
    return "\n".join([*lines, f"Versions: {known}.", ""])


if __name__ == "__main__":
    sys.exit(main())
