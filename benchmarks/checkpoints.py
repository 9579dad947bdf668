"""What one more checkpoint of the same network costs, and whether one session could serve all of them.

    python -m benchmarks.checkpoints [--models NAME ...] [--rounds N] [--threads N] [--quick]

For each network: the time to load the forward model, to transform it, to exchange the weights in a transformation that
was made before (vogcore/autodiff/plan.py), and to make a session; then the time of one batch with the weights as
constants, and in one session that takes the weights as inputs. Weights that are constants are folded and packed when
the session is made, so a batch is faster; a session that takes them as inputs is made once for all checkpoints. The
crossover is the number of batches for each checkpoint from which on a new session is the faster way.

Every session lives in a process of its own; the batches of the two run in turn. Times are medians in milliseconds.
Results go to ``benchmarks/results/checkpoints.md`` and ``.json``; with ``--quick`` they are printed only.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing as mp
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._environment import machine, peak_memory_mib, versions
from benchmarks._tables import markdown_table

__all__ = ["crossover", "main", "weights_as_inputs"]

DEFAULT = ("resnet18-cifar-b64", "resnet50-224-b8", "vit-d192-l4-b64", "mlp-b256")
RESULTS = Path(__file__).parent / "results"
HEADER = (
    "network", "load", "transform", "exchange", "session", "batch", "batch, weights as inputs", "ratio",
    "crossover (batches)", "model file (MB)", "gradient file (MB)", "memory, constants (MB)", "memory, inputs (MB)",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    from benchmarks._speed_models import MODELS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(DEFAULT), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two rounds, printed and not kept")
    options = parser.parse_args(arguments)
    record: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"), "threads": options.threads,
        "rounds": 2 if options.quick else options.rounds, "machine": machine(), "versions": versions(), "models": {},
    }  # fmt: skip
    for name in options.models:
        record["models"][name] = measure(name, record["rounds"], options.threads)
        print(json.dumps({name: record["models"][name]}), flush=True)
    text = report(record)
    print(text)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "checkpoints.md").write_text(text, encoding="utf-8")
        (RESULTS / "checkpoints.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(name: str, rounds: int, threads: int) -> dict[str, float]:
    """All figures of one network, times in milliseconds and sizes in bytes."""
    from benchmarks._speed_models import MODELS, export
    from vogcore.autodiff import gradient_model
    from vogcore.autodiff.plan import GradientPlan
    from vogcore.graph import load_model

    network, images = MODELS[name].build()
    image = export(network, images)
    figures: dict[str, float] = {"load": _timed(lambda: load_model(image), rounds)}
    forward = load_model(image)
    figures["transform"] = _timed(lambda: gradient_model(forward), rounds)
    plan = GradientPlan(forward, gradient_model)
    figures["exchange"] = _timed(lambda: plan.apply(forward), rounds)
    gradient = plan.take()
    file = gradient.SerializeToString()
    figures |= {"model_bytes": len(image), "gradient_bytes": len(file)}
    variants = {"constants": file, "inputs": weights_as_inputs(gradient, [t.name for t in forward.graph.initializer])}
    feeds = {"vogcore_target": np.arange(len(images)) % 10}
    feeds[forward.graph.input[0].name] = images.numpy()
    workers = {}
    try:
        for kind, model in variants.items():
            workers[kind] = _start(model, feeds, threads)
            figures[f"session_{kind}"], figures[f"memory_{kind}"] = workers[kind][1].recv()
        times: dict[str, list[float]] = {kind: [] for kind in variants}
        for _ in range(rounds):
            for kind, (_, pipe) in workers.items():
                pipe.send("run")
                times[kind].append(pipe.recv())
        figures |= {f"batch_{kind}": median(values) for kind, values in times.items()}
    finally:
        for process, pipe in workers.values():
            pipe.send("stop")
            process.join()
    return figures


def weights_as_inputs(model: Any, names: Sequence[str]) -> bytes:
    """A gradient model whose initializers of these names are inputs that it has to be fed."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    chosen = [tensor for tensor in copy.graph.initializer if tensor.name in set(names) and tensor.data_type == 1]
    for tensor in chosen:
        copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        copy.graph.initializer.remove(tensor)
    return bytes(copy.SerializeToString())


def crossover(session: float, constants: float, inputs: float) -> float:
    """Batches for each checkpoint from which on a new session is faster; infinite where a batch gains nothing."""
    return session / (inputs - constants) if inputs > constants else math.inf


def _timed(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def _start(model: bytes, feeds: dict[str, Any], threads: int) -> tuple[Any, Connection]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker, args=(theirs, model, feeds, threads), daemon=True)
    process.start()
    return process, ours


def _worker(pipe: Connection, model: bytes, feeds: dict[str, Any], threads: int) -> None:
    """Make a session, report its time and the memory that it and a run took, and run when asked."""
    import onnxruntime

    from vogcore.runtime._ort_session import _options

    options = _options(onnxruntime, threads)
    before = peak_memory_mib()
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - start
    for value in session.get_inputs():
        if value.name not in feeds:
            rng = np.random.default_rng(len(feeds))
            feeds[value.name] = (rng.standard_normal(value.shape) * 0.05).astype(np.float32)
    session.run(None, feeds)
    pipe.send((1e3 * seconds, round((peak_memory_mib() - before) * 2**20)))
    while pipe.recv() == "run":
        start = time.perf_counter()
        session.run(None, feeds)
        pipe.send(1e3 * (time.perf_counter() - start))


def report(record: dict[str, Any]) -> str:
    """The table in Markdown."""
    rows = []
    for name, f in record["models"].items():
        batches = crossover(f["session_constants"], f["batch_constants"], f["batch_inputs"])
        rows.append([
            name, *(f"{f[key]:.0f}" for key in ("load", "transform", "exchange", "session_constants")),
            f"{f['batch_constants']:.1f}", f"{f['batch_inputs']:.1f}",
            f"{f['batch_inputs'] / f['batch_constants']:.2f}",
            "never" if math.isinf(batches) else f"{batches:.0f}",
            *(f"{f[key] / 1e6:.0f}" for key in ("model_bytes", "gradient_bytes", "memory_constants", "memory_inputs")),
        ])  # fmt: skip
    lines = [
        "# One more checkpoint",
        "",
        f"`python -m benchmarks.checkpoints`, {record['created'][:10]}, {record['threads']} threads, medians of "
        f"{record['rounds']} rounds in milliseconds, on {record['machine']['processor']} ({record['machine']['cores']} "
        f"cores), ONNX Runtime {record['versions'].get('onnxruntime-gpu') or record['versions'].get('onnxruntime')}.",
        "",
        markdown_table(HEADER, rows).rstrip(),
        "",
        "`transform` makes a gradient graph, `exchange` puts the weights of a further checkpoint into one that was",
        "made before. `crossover`: batches for each checkpoint from which on a new session for each checkpoint is",
        "faster than one session that takes the weights as inputs. Memory is what the peak of the process grew by,",
        "while the session was made and ran one batch.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
