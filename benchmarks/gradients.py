"""Input gradients on the CPU: gradient graphs in ONNX Runtime beside torch.

    python -m benchmarks.gradients [--models NAME ...] [--rounds N] [--threads N] [--quick]

Every contender lives in a process of its own and waits for its turn, so that no one's threads disturb another; torch is
loaded only where torch is timed. The contenders of one network run in turn, round by round, for a quarter of a second
each or one batch, and the table gives medians over the rounds and ratios of medians:

- ``torch eager``, ``torch channels_last``, ``torch.compile``: the gradient of the target's logit with respect to the
  input, by autograd, with the parameters frozen;
- ``forward``: ONNX Runtime on the forward model alone;
- ``gradient``: ONNX Runtime on the gradient graph of vogcore;
- ``channel mean``: the same with ``channels="mean"``, which is all that VoG needs.

Results go to ``benchmarks/results/gradients.md`` and ``.json``; with ``--quick`` they are printed only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing as mp
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._environment import machine, peak_memory_mib, versions

__all__ = ["main"]

TORCH = ("torch eager", "torch channels_last", "torch.compile")
OURS = ("gradient", "channel mean")
CONTENDERS = (*TORCH, "forward", *OURS)
RESULTS = Path(__file__).parent / "results"
TURN = 0.25  # seconds of runs in a turn, at least one run: scoring runs batch after batch
PAUSE = 0.02  # seconds between two turns, in which idle threads stop spinning


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    from benchmarks._speed_models import MODELS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="NAME")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="three rounds, printed and not kept")
    options = parser.parse_args(arguments)
    rounds = 3 if options.quick else options.rounds
    record: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"), "threads": options.threads, "rounds": rounds,
        "machine": machine(), "versions": versions(), "models": {},
    }  # fmt: skip
    for name in options.models:
        record["models"][name] = measure(name, options.contenders, rounds, options.threads)
        print(row(name, record["models"][name]), flush=True)
    report = markdown(record)
    print("\n" + report)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "gradients.json").write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "gradients.md").write_text(report)
    return 0


def measure(name: str, contenders: Sequence[str], rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds of every round for each contender, and how far its gradient is from that of torch eager."""
    context = mp.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    results: dict[str, Any] = {contender: {"ms": []} for contender in contenders}
    gradients: dict[str, np.ndarray] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(_stop, workers)
        exporter = context.Process(target=_export, args=(name, folder))
        exporter.start()
        exporter.join()
        if exporter.exitcode:
            raise SystemExit(f"{name} could not be exported")
        for contender in contenders:
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, name, contender, threads, folder), daemon=True)
            process.start()
            workers[contender] = (process, here)
            answer = here.recv()  # one after the other: compiling beside a compilation would take memory and time
            if "error" in answer:
                raise SystemExit(f"{name}, {contender}: {answer['error']}")
            gradient = answer.pop("gradient")
            if gradient is not None:
                gradients[contender] = gradient
            results[contender] |= answer
        for _ in range(rounds):
            for contender, (_, pipe) in workers.items():
                pipe.send("run")
                results[contender]["ms"].append(pipe.recv())
                time.sleep(PAUSE)
        for contender, (_, pipe) in workers.items():
            pipe.send("memory")
            results[contender]["peak_mib"] = pipe.recv()
    reference = gradients.get("torch eager")
    for contender, gradient in gradients.items():
        if reference is not None:
            whole = reference.mean(1) if gradient.ndim < reference.ndim else reference
            difference = np.linalg.norm((gradient - whole).reshape(len(whole), -1), axis=1)
            error = difference / np.linalg.norm(whole.reshape(len(whole), -1), axis=1)
            results[contender]["median_error"] = float(np.median(error))
    return results


def _stop(workers: dict[str, tuple[Any, Connection]]) -> None:
    for process, pipe in workers.values():
        pipe.close()
        process.kill()
        process.join()


def _export(name: str, folder: Path) -> None:
    """Write the network as ``model.onnx`` and its batch as ``x.npy``."""
    from benchmarks._speed_models import MODELS, export

    network, x = MODELS[name].build()
    (folder / "model.onnx").write_bytes(export(network, x))
    np.save(folder / "x.npy", x.numpy())


def _work(pipe: Connection, name: str, contender: str, threads: int, folder: Path) -> None:
    """Body of a worker: prepare, answer with the first gradient, then one timed turn for every message."""
    try:
        started = time.perf_counter()
        step, gradient, facts = _prepare(name, contender, threads, folder)
        for _ in range(2):
            step()
        facts["ready_s"] = round(time.perf_counter() - started, 2)
        pipe.send({"gradient": gradient, **facts})
    except Exception as error:  # noqa: BLE001 - said by the parent, whatever it is
        pipe.send({"error": f"{type(error).__name__}: {error}"})
        return
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        if message == "memory":
            pipe.send(peak_memory_mib())
            continue
        pipe.send(_turn(step))


def _turn(step: Callable[[], Any]) -> float:
    """Milliseconds of a run, the mean over a turn of ``TURN`` seconds behind one run that warms caches and threads."""
    step()
    count, begun = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - begun < TURN:
        step()
        count += 1
    return 1000 * (time.perf_counter() - begun) / count


def _prepare(
    name: str, contender: str, threads: int, folder: Path
) -> tuple[Callable[[], Any], np.ndarray | None, dict[str, Any]]:
    if contender not in TORCH:
        return _graph_step(folder, contender, threads)
    import torch

    from benchmarks._speed_models import MODELS

    torch.set_num_threads(threads)
    network, x = MODELS[name].build()
    step = _torch_step(network, x, torch.from_numpy(_target(len(x))), contender)
    return step, step().numpy(), {}


def _target(examples: int) -> np.ndarray:
    return np.arange(examples) % 10


def _torch_step(network: Any, x: Any, target: Any, contender: str) -> Callable[[], Any]:
    import torch

    if contender == "torch channels_last":
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if contender == "torch.compile":
        network = torch.compile(network)

    def step() -> Any:
        example = x.detach().requires_grad_()
        chosen = network(example).gather(1, target[:, None]).sum()
        return torch.autograd.grad(chosen, example)[0]

    return step


def _graph_step(
    folder: Path, contender: str, threads: int
) -> tuple[Callable[[], Any], np.ndarray | None, dict[str, Any]]:
    from vogcore.autodiff import gradient_model
    from vogcore.graph import logits_model
    from vogcore.runtime.session import Session

    exported, data = (folder / "model.onnx").read_bytes(), np.load(folder / "x.npy")
    begun = time.perf_counter()
    if contender == "forward":
        model = logits_model(exported)
    else:
        model = gradient_model(exported, channels="mean" if contender == "channel mean" else "none")
    between = time.perf_counter()
    session = Session(model, provider="cpu", threads=threads)
    facts = {
        "transform_s": round(between - begun, 3), "session_s": round(time.perf_counter() - between, 3),
        "forward_mib": round(len(exported) / 2**20, 2), "model_mib": round(model.ByteSize() / 2**20, 2),
    }  # fmt: skip
    if contender == "forward":
        return lambda: session.run(None, {"x": data}), None, facts
    feeds = {"x": data, "vogcore_target": _target(len(data))}
    return lambda: session.run(["vogcore_gradient"], feeds), session.run(["vogcore_gradient"], feeds)[0], facts


def ratios(results: dict[str, Any]) -> dict[str, float | None]:
    """The figures that the table is about: speed over the best of torch, cost over the forward pass."""
    ms = {contender: median(entry["ms"]) for contender, entry in results.items()}
    torch_ms = [ms[contender] for contender in TORCH if contender in ms]
    ours = ms.get("gradient")
    return {
        "over_torch": min(torch_ms) / ours if torch_ms and ours else None,
        "over_forward": ours / ms["forward"] if ours and "forward" in ms else None,
        "mean_over_torch": min(torch_ms) / ms["channel mean"] if torch_ms and "channel mean" in ms else None,
        "mean_over_forward": ms["channel mean"] / ms["forward"] if "channel mean" in ms and "forward" in ms else None,
    }


def row(name: str, results: dict[str, Any]) -> str:
    """One network as a row of the table."""
    figures = ratios(results)
    cells = [f"{median(results[c]['ms']):.1f}" if c in results else "-" for c in CONTENDERS]
    cells += ["-" if value is None else f"{value:.2f}" for value in figures.values()]
    return f"| {name} | " + " | ".join(cells) + " |"


def markdown(record: dict[str, Any]) -> str:
    """The report."""
    from benchmarks._speed_models import MODELS

    lines = [
        "# Input gradients on the CPU",
        "",
        f"{record['machine']['processor']}, {record['threads']} threads, medians of {record['rounds']} interleaved "
        f"rounds, milliseconds for a batch; {record['created']}.",
        "",
        "| network | " + " | ".join(CONTENDERS) + " | best torch / gradient | gradient / forward "
        "| best torch / channel mean | channel mean / forward |",
        "|---|" + "---|" * (len(CONTENDERS) + 4),
        *(row(name, results) for name, results in record["models"].items()),
        "",
        "Wanted: " + ", ".join(f"{name} {MODELS[name].wanted}x" for name in record["models"]) + " the best of torch; "
        "at most 2.2 times the forward pass.",
        "",
        "| network | transform, s | session, s | forward model, MiB | gradient model, MiB | peak memory, MiB: forward "
        "| gradient | torch eager | torch.compile | median error |",
        "|---|" + "---|" * 9,
    ]
    for name, results in record["models"].items():
        ours = results.get("gradient", {})
        peaks = [
            results.get(c, {}).get("peak_mib", "-") for c in ("forward", "gradient", "torch eager", "torch.compile")
        ]
        error = ours.get("median_error")
        cells = [ours.get(key, "-") for key in ("transform_s", "session_s", "forward_mib", "model_mib")]
        lines.append(
            f"| {name} | " + " | ".join(map(str, [*cells, *peaks])) + f" | {'-' if error is None else f'{error:.1e}'} |"
        )
    known = ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    return "\n".join([*lines, "", f"Versions: {known}.", ""])


if __name__ == "__main__":
    sys.exit(main())
