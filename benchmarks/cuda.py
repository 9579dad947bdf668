"""CUDA kernels beside the copy bandwidth of the card, and examples scored in a second with a ResNet-50.

    python -m benchmarks.cuda [--quick]

Needs a GPU. Before every kernel two copies within the device's memory are queued. The first keeps the device busy while
the rest is queued; the second is timed, by events on the stream, and so is the kernel. Copy bandwidth counts the bytes
read and written; the bytes of a kernel are those that it has to move: gradients once, moments there and back. The
table gives medians over the rounds, and beside them the time of the whole call, with what it launches, waits for and
fetches. Then ResNet-50 with random weights is scored at 224 by 224 with gradients that stay on the device, and with
gradients that are copied to the host.

Results go to ``benchmarks/results/cuda.md`` and ``.json``; with ``--quick`` they are printed only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._environment import machine, versions

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
GIB = 2**30
ELEMENTS = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
# (name, shape of an example, channel axis): ImageNet and CIFAR, channels first and last, tokens of a transformer.
SHAPES = [
    ("3x224x224", (3, 224, 224), 1),
    ("224x224x3", (224, 224, 3), 3),
    ("3x32x32", (3, 32, 32), 1),
    ("128 tokens x 768", (128, 768), 2),
]
STEPS = (10, 100)
PIXELS = 224 * 224


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--gib", type=float, default=2.0, help="memory of one set of gradients")
    parser.add_argument("--examples", type=int, default=2048, help="examples that ResNet-50 scores")
    parser.add_argument("--quick", action="store_true", help="five rounds and few examples, printed and not kept")
    options = parser.parse_args(arguments)
    from vogcore.kernels.devices import problem

    if (reason := problem("cuda")) is not None:
        print(f"This benchmark needs a GPU, and there is none to compute on: {reason}.", file=sys.stderr)
        return 2
    rounds = 5 if options.quick else options.rounds
    record: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine(), "gpu": gpu()},
        "versions": versions(),
        "kernels": measure_kernels(rounds, int(options.gib * GIB)),
        "resnet50": measure_resnet50(128 if options.quick else options.examples),
    }
    report = markdown(record)
    print(report)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "cuda.json").write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "cuda.md").write_text(report)
    return 0


def gpu() -> dict[str, Any]:
    """Name and compute capability of the device that is measured."""
    from numba import cuda

    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return {"name": name, "compute_capability": ".".join(map(str, device.compute_capability))}


def measure_kernels(rounds: int, n_bytes: int) -> dict[str, Any]:
    """Bytes and milliseconds of every round, of each case's kernels, of its whole call and of the copy beside it."""
    from numba import cuda

    source, target = (cuda.device_array(n_bytes // 8, np.float64) for _ in range(2))
    results: dict[str, Any] = {}
    for case in cases(n_bytes):
        name, moved, work = case()  # one after the other, so that each has the memory to itself
        work()  # compiles
        found: dict[str, list[float]] = {"ms": [], "call_ms": [], "copy_ms": []}
        for _ in range(rounds):
            begun = time.perf_counter()
            work()
            found["call_ms"].append(1e3 * (time.perf_counter() - begun))
            with timed_launches(lambda: target.copy_to_device(source)) as launches:
                work()
            found["copy_ms"].append(median(copy for copy, _ in launches))
            found["ms"].append(sum(kernel for _, kernel in launches))
        results[name] = {"bytes": moved, "copy_bytes": 2 * source.nbytes, **found}
        del work
    return results


@contextmanager
def timed_launches(copy: Callable[[], Any]) -> Iterator[list[tuple[float, float]]]:
    """A list that gets, for every kernel launched inside, the milliseconds of a copy and of the kernel, at the end."""
    from numba import cuda

    from vogcore.kernels._cuda_arrays import Call

    launch, events, times = Call.launch, [], []

    def timed(self: Any, *args: Any) -> None:
        marks = [cuda.event() for _ in range(3)]
        copy()
        marks[0].record()
        copy()
        marks[1].record()
        launch(self, *args)
        marks[2].record()
        events.append(marks)

    Call.launch = timed  # type: ignore[method-assign]
    try:
        yield times
    finally:
        Call.launch = launch  # type: ignore[method-assign]
    for first, second, third in events:
        third.synchronize()
        times.append((float(first.elapsed_time(second)), float(second.elapsed_time(third))))


def cases(n_bytes: int) -> list[Callable[[], tuple[str, int, Callable[[], Any]]]]:
    """What is timed; each case makes its arrays when it is called: name, bytes that it must move, and the work."""
    found: list[Callable[[], tuple[str, int, Callable[[], Any]]]] = []
    for shape in SHAPES:
        for element in ELEMENTS if shape is SHAPES[0] else ["float32"]:
            found.append(lambda shape=shape, element=element: moments_case(*shape, element, n_bytes))
    for shape in SHAPES:
        for k in STEPS:
            found.append(lambda shape=shape, k=k: block_case(*shape, k, n_bytes))
    found.append(lambda: score_case(n_bytes))
    found.append(lambda: merge_case(n_bytes))
    return found


def filled(shape: tuple[int, ...], element: str) -> Any:
    """Gradients on the device, none of them subnormal or infinite."""
    from numba import cuda

    rng = np.random.default_rng(0)
    array = cuda.device_array(shape, ELEMENTS[element])
    values = rng.standard_normal(shape[1:], dtype=np.float32)
    part = (
        (values.view(np.uint32) >> 16).astype(np.uint16) if element == "bfloat16" else values.astype(ELEMENTS[element])
    )
    for row in range(shape[0]):
        array[row].copy_to_device(part)
    return array


def moments_case(
    name: str, shape: tuple[int, ...], axis: int, element: str, n_bytes: int
) -> tuple[str, int, Callable[[], Any]]:
    """One step of the moments, float64."""
    from vogcore import kernels

    n = max(1, n_bytes // (int(np.prod(shape)) * np.dtype(ELEMENTS[element]).itemsize))
    gradients = filled((n, *shape), element)
    pixels = kernels.pixel_count(shape, axis, "mean")
    mean, m2 = (kernels.empty((n, pixels), np.float64, "cuda") for _ in range(2))
    kernels.update_moments(gradients, mean, m2, step=1, channel_axis=axis)
    moved = gradients.nbytes + 2 * (mean.nbytes + m2.nbytes)
    label = f"moments, {name} {element}, B = {n}"
    return label, moved, lambda: kernels.update_moments(gradients, mean, m2, step=2, channel_axis=axis)


def block_case(
    name: str, shape: tuple[int, ...], axis: int, k: int, n_bytes: int
) -> tuple[str, int, Callable[[], Any]]:
    """The score of a whole block."""
    from vogcore.kernels.cuda import block_score

    n = max(1, n_bytes // (4 * k * int(np.prod(shape))))
    gradients = filled((k, n, *shape), "float32")
    return (
        f"block score, {name} float32, K = {k}, B = {n}",
        gradients.nbytes,
        lambda: block_score(gradients, channel_axis=axis),
    )


def score_case(n_bytes: int) -> tuple[str, int, Callable[[], Any]]:
    """Scores from moments."""
    from vogcore import kernels

    m2 = kernels.empty((n_bytes // (8 * PIXELS), PIXELS), np.float64, "cuda")
    zeros = np.zeros(PIXELS)
    for row in range(m2.shape[0]):
        m2[row].copy_to_device(zeros)
    return f"score from moments, {PIXELS} pixels", m2.nbytes, lambda: kernels.score_from_moments(m2, 10)


def merge_case(n_bytes: int) -> tuple[str, int, Callable[[], Any]]:
    """Merge of moments: four arrays read, two written."""
    from vogcore import kernels

    arrays = [kernels.empty((n_bytes // (8 * PIXELS), PIXELS), np.float64, "cuda") for _ in range(4)]
    zeros = np.zeros(PIXELS)
    for array in arrays:
        for row in range(array.shape[0]):
            array[row].copy_to_device(zeros)
    mean, m2, other_mean, other_m2 = arrays
    moved = 6 * mean.nbytes
    return f"merge, {PIXELS} pixels", moved, lambda: kernels.merge_moments(mean, m2, 5, other_mean, other_m2, 5)


def resnet50_checkpoints(count: int) -> list[Any]:
    """ResNet-50 with random weights that drift from checkpoint to checkpoint."""
    import onnx
    import torch

    from benchmarks._speed_models import MODELS, export

    network, x = MODELS["resnet50-224-b8"].build()
    models = []
    for _ in range(count):
        models.append(onnx.load_from_string(export(network, x)))
        with torch.no_grad():
            for weights in network.parameters():
                weights.mul_(1 + 0.05 * torch.randn_like(weights))
    return models


def measure_resnet50(n: int) -> dict[str, Any]:
    """Examples x checkpoints in a second of whole runs, with gradients on the device and copied to the host."""
    import vogcore
    from vogcore.scoring import sessions

    checkpoints = resnet50_checkpoints(2)
    x = np.random.default_rng(0).standard_normal((n, 3, 224, 224), dtype=np.float32)
    y = np.arange(n) % 1000
    keeps, results = sessions.keeps_gradients, {"examples": n, "checkpoints": len(checkpoints)}
    for where, keep in (("device", keeps), ("host", lambda provider: False)):
        sessions.keeps_gradients = keep
        try:
            vogcore.score(checkpoints, x[:64], y[:64], provider="cuda", normalise="none")  # libraries choose algorithms
            begun = time.perf_counter()
            scores = vogcore.score(checkpoints, x, y, provider="cuda", normalise="none")
            results[where] = {
                "per_second": n * len(checkpoints) / (time.perf_counter() - begun),
                "seconds": scores.timings,
            }
        finally:
            sessions.keeps_gradients = keeps
    return results


def markdown(record: dict[str, Any]) -> str:
    """The report: share of the copy bandwidth of every kernel, then ResNet-50."""
    card = record["machine"]["gpu"]
    lines = [
        f"# CUDA kernels on {card['name']}, compute capability {card['compute_capability']}",
        "",
        "| kernel | call, ms | kernels, ms | GB/s | copy, GB/s | share |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, case in record["kernels"].items():
        ms, rate = median(case["ms"]), case["bytes"] / median(case["ms"]) / 1e6
        copy = case["copy_bytes"] / median(case["copy_ms"]) / 1e6
        lines.append(
            f"| {name} | {median(case['call_ms']):.3f} | {ms:.3f} | {rate:.0f} | {copy:.0f} | {rate / copy:.0%} |"
        )
    run = record["resnet50"]
    lines += [
        "",
        f"ResNet-50, 3x224x224, {run['examples']} examples at {run['checkpoints']} checkpoints: "
        f"{run['device']['per_second']:.0f} gradients a second scored on the device, "
        f"{run['host']['per_second']:.0f} copied to the host.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
