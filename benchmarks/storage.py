"""Gradient archives beside the disk they lie on.

    python -m benchmarks.storage [--folder DIR] [--gigabytes G] [--rounds N] [--quick]

In every round, in an order drawn anew, the same bytes go to the same folder: as plain sequential writes of 8 MB, out of
memory that lies ready, with one sync at the end, with one after every 256 MB as an archive has them, or with the same
and the disk told to begin at once as an archive does; as an archive in float32, float16 and bfloat16, with every digest
and every sync; and compressed. The table gives bytes of float32 gradients for each second, the median and the best of
the rounds, and what that is of the fastest of the plain ways. A shared disk has good and bad seconds: the best rounds
show what each way can do, the medians what the disk was like. Reading is measured right after writing, so from the page
cache. The gradients are those of the network of the demo on
its digits, repeated: random numbers would not compress at all.

Results go to ``benchmarks/results/storage.md`` and ``.json``; with ``--quick`` they are printed only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._environment import machine, versions
from benchmarks._tables import markdown_table
from vogcore.store import GradientWriter, _system, open_gradients

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
PIECE = 8_000_000
BATCH = 256
CONTENDERS: dict[str, dict[str, Any]] = {
    "plain writes": {},
    "plain writes, synced on the way": {"sync_bytes": 256_000_000},
    "plain writes, synced and begun at once": {"sync_bytes": 256_000_000, "at_once": True},
    "archive, float32": {},
    "archive, float16": {"dtype": "float16"},
    "archive, bfloat16": {"dtype": "bfloat16"},
    "archive, float32, lz4": {"compression": "lz4"},
    "archive, float32, zstd": {"compression": "zstd"},
}
PLAIN = tuple(name for name in CONTENDERS if name.startswith("plain"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="folder on the disk to measure; here by default")
    parser.add_argument("--gigabytes", type=float, default=1.2, help="float32 gradients in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="0.2 GB, three rounds, printed and not kept")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        print(f"{options.folder} is not a folder; give one on the disk to measure.", file=sys.stderr)
        return 2
    gigabytes, rounds = (0.2, 3) if options.quick else (options.gigabytes, options.rounds)
    record: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"), "gigabytes": gigabytes, "rounds": rounds,
        "machine": machine(), "versions": versions(),
    }  # fmt: skip
    record["results"] = measure(options.folder, int(gigabytes * 1e9), rounds)
    text = report(record)
    print(text)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "storage.md").write_text(text, encoding="utf-8")
        (RESULTS / "storage.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def demo_gradients(folder: Path) -> npt.NDArray[np.float32]:
    """Gradients (checkpoints x examples, 1, 8, 8) of the demo's network on its digits."""
    import vogcore
    from vogcore.data import Preprocess
    from vogcore.demo import train

    trained = train(folder / "demo", epochs=6)
    path = folder / "gradients.h5"
    preprocess = Preprocess(scale=1 / 16, layout="nhw->nchw")
    vogcore.score(trained.checkpoints, trained.train_path, preprocess=preprocess, keep_gradients=path)
    with open_gradients(path) as archive:
        return np.concatenate([archive.read(k, 0, archive.n_examples) for k in range(archive.n_checkpoints)])


def measure(folder: Path, n_bytes: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of every round, and bytes on disk, for each contender."""
    with tempfile.TemporaryDirectory(prefix="vogcore-storage-", dir=folder) as name:
        work = Path(name)
        return _rounds(work, _as_images(demo_gradients(work), 3 * 32 * 32), n_bytes, rounds)


def _as_images(gradients: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Rows of 32 x 32 x 3 values, as CIFAR has them, out of all those values in order."""
    flat = gradients.reshape(-1)
    return np.resize(flat, (max(BATCH, len(flat) // size), size)).reshape(-1, 3, 32, 32)


def _rounds(work: Path, rows: npt.NDArray[np.float32], n_bytes: int, rounds: int) -> dict[str, dict[str, Any]]:
    checkpoints = 4
    n = n_bytes // (rows[0].nbytes * checkpoints)
    results: dict[str, dict[str, Any]] = {name: {"seconds": [], "read": []} for name in CONTENDERS}
    chance = random.Random(0)
    for _ in range(rounds):
        for name, options in chance.sample(list(CONTENDERS.items()), len(CONTENDERS)):
            path = work / "file"
            _settle()
            begun = time.perf_counter()
            if name in PLAIN:
                _plain(path, rows, n * checkpoints, **options)
            else:
                _archive(path, rows, n, checkpoints, options)
            results[name]["seconds"].append(time.perf_counter() - begun)
            results[name]["bytes"] = os.stat(path).st_blocks * 512
            begun = time.perf_counter()
            if name in PLAIN:
                _read_plain(path)
            else:
                _read_archive(path)
            results[name]["read"].append(time.perf_counter() - begun)
            path.unlink()
    for entry in results.values():
        entry["gradient_bytes"] = n * checkpoints * rows[0].nbytes
    return results


def _settle() -> None:
    """Let the disk finish what it was given before."""
    os.sync()


def _batches(rows: npt.NDArray[np.float32], n: int) -> Callable[[int], npt.NDArray[np.float32]]:
    """The batch that begins at a position, out of a supply of rows that repeats."""
    supply = np.concatenate([rows, rows[: min(BATCH, n)]])
    return lambda start: supply[start % len(rows) :][: min(BATCH, n - start)]


def _plain(
    path: Path, rows: npt.NDArray[np.float32], count: int, sync_bytes: int | None = None, at_once: bool = False
) -> None:
    total, written, unsynced = count * rows[0].nbytes, 0, 0
    # Pieces that begin anywhere in a supply of rows that repeats, without a copy.
    supply = np.resize(rows.reshape(-1), rows.size + PIECE // rows.itemsize).data.cast("B")
    with open(path, "wb", buffering=0) as file:
        while written < total:
            begin = written % rows.nbytes
            piece = supply[begin : begin + min(PIECE, total - written)]
            file.write(piece)
            if at_once:
                _system.SYSTEM.start_writing(file.fileno(), written, len(piece))
            written += len(piece)
            unsynced += len(piece)
            if sync_bytes is not None and unsynced >= sync_bytes:
                os.fsync(file.fileno())
                unsynced = 0
        os.fsync(file.fileno())


def _archive(path: Path, rows: npt.NDArray[np.float32], n: int, k: int, options: dict[str, Any]) -> None:
    batch = _batches(rows, n)
    with GradientWriter(path, n, rows.shape[1:], **options) as writer:
        for checkpoint in range(k):
            for start in range(0, n, BATCH):
                writer.write(checkpoint, start, batch(start), copy=False)


def _read_plain(path: Path) -> None:
    buffer = bytearray(PIECE)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _read_archive(path: Path) -> None:
    with open_gradients(path) as archive:
        for checkpoint in range(archive.n_checkpoints):
            for start in range(0, archive.n_examples, archive.block_size):
                archive.read(checkpoint, start, min(start + archive.block_size, archive.n_examples))


def report(record: dict[str, Any]) -> str:
    """The table in Markdown."""
    results = record["results"]
    plain = [min(of(results[name]["seconds"]) for name in PLAIN) for of in (median, min)]
    rows = []
    for name, entry in results.items():
        seconds = [median(entry["seconds"]), min(entry["seconds"])]
        rows.append(
            [
                name,
                *(f"{entry['gradient_bytes'] / 1e9 / of:.2f}" for of in seconds),
                *(f"{100 * a / b:.0f}%" for a, b in zip(plain, seconds, strict=True)),
                f"{entry['gradient_bytes'] / entry['bytes']:.2f}",
                f"{entry['gradient_bytes'] / 1e9 / median(entry['read']):.2f}",
            ]
        )
    header = ["", "written, GB/s", "best", "of plain writes", "best", "compression", "read, GB/s"]
    known = ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    return "\n".join(
        [
            "# Gradient archives",
            "",
            f"`python -m benchmarks.storage`, {record['created'][:10]}, {record['machine']['processor']} "
            f"({record['machine']['cores']} cores), {record['gigabytes']:g} GB of float32 gradients a round, medians "
            f"and best of {record['rounds']} rounds, the order drawn anew in each. Every contender is given the same "
            "float32 gradients; a rate counts their bytes, so narrower types and compression can pass the disk.",
            "",
            markdown_table(header, rows),
            "",
            f"Versions: {known}.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
