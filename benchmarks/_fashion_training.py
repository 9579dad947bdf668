"""Training of the network whose checkpoints the Fashion-MNIST benchmark scores."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks._idx import FASHION_CLASSES, MEAN, STD, ImageSet
from vogcore._paths import write_whole
from vogcore_adapters.torch import export_checkpoint

__all__ = ["RECORD", "build_network", "reusable_record", "train_checkpoints", "training_settings"]

RECORD = "training.json"
CHECKPOINTS = "ckpts"


def build_network() -> nn.Sequential:
    """Three 3x3 convolutions with BatchNorm (8, 16, 32 channels), two max-poolings, one dense layer."""
    layers: list[nn.Module] = []
    channels = 1
    for width, pool in ((8, True), (16, True), (32, False)):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        if pool:
            layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 7 * 7, len(FASHION_CLASSES)))


def training_settings(epochs: int, seed: int, n_train: int, n_test: int) -> dict[str, Any]:
    """Everything that decides the checkpoints, apart from the library versions and rounding."""
    return {
        "network": "conv8-conv16-conv32-dense10, batch normalisation, ReLU, two max-poolings",
        "optimiser": "SGD, Nesterov momentum 0.9, weight decay 5e-4, learning rate 0.05 with cosine decay to 0",
        "batch_size": 128,
        "epochs": epochs,
        "seed": seed,
        "n_train": n_train,
        "n_test": n_test,
        "augmentation": "none",
        "mean": MEAN,
        "std": STD,
    }


def reusable_record(work: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an earlier training with these settings if every checkpoint it names is there, unchanged."""
    try:
        record = json.loads((work / RECORD).read_text())
        same = record["settings"] == settings and all(
            hashlib.sha256((work / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
            for entry in record["epochs"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    complete = same and len(record["epochs"]) == settings["epochs"] == len(list((work / CHECKPOINTS).glob("*.onnx")))
    return record if complete else None


def train_checkpoints(
    work: Path, sets: dict[str, ImageSet], settings: dict[str, Any], say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train, write ``ckpts/ckpt-<epoch>.onnx`` after every epoch, and the record ``training.json`` at the end.

    Args:
        work: folder to write into; checkpoints of an earlier training are removed first.
        sets: ``train`` and ``test``.
        settings: as :func:`training_settings` gives them.
        say: called with one line of progress after every epoch.

    Returns:
        The record: ``settings``, ``epochs`` (loss, accuracies, seconds, file, sha256), ``threads``, ``seconds``.
    """
    folder = work / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    (work / RECORD).unlink(missing_ok=True)
    for stale in folder.glob("*.onnx"):
        stale.unlink()

    torch.manual_seed(settings["seed"])
    order = torch.Generator().manual_seed(settings["seed"])
    x, y = _tensor(sets["train"].x), torch.from_numpy(sets["train"].y)
    x_test, y_test = _tensor(sets["test"].x), torch.from_numpy(sets["test"].y)
    size = settings["batch_size"]
    network = build_network()
    optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = settings["epochs"] * -(-len(y) // size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    epochs = []
    step = 0
    started = time.perf_counter()
    for epoch in range(1, settings["epochs"] + 1):
        epoch_started = time.perf_counter()
        network.train()
        total = 0.0
        for rows in torch.randperm(len(y), generator=order).split(size):
            optimiser.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            total += loss.item() * len(rows)
        trained = time.perf_counter()
        path = export_checkpoint(
            network, x[:2], folder / f"ckpt-{epoch}.onnx", step=step, epoch=epoch, class_names=FASHION_CLASSES
        )
        exported = time.perf_counter()
        entry = {
            "epoch": epoch,
            "step": step,
            "loss": total / len(y),
            "test_accuracy": _accuracy(network, x_test, y_test),
            "seconds": trained - epoch_started,
            "export_seconds": exported - trained,
            "file": f"{CHECKPOINTS}/{path.name}",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        epochs.append(entry)
        say(
            f"epoch {epoch:2d}: loss {entry['loss']:.4f}, test accuracy {entry['test_accuracy']:.4f}, "
            f"{entry['seconds']:.1f} s + {entry['export_seconds']:.1f} s export"
        )
    record = {
        "settings": settings,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds": time.perf_counter() - started,
        "train_accuracy": _accuracy(network, x, y),
        "epochs": epochs,
    }
    write_whole(work / RECORD, (json.dumps(record, indent=1) + "\n").encode(), overwrite=True)
    return record


def _tensor(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy((images[:, None].astype(np.float32) / 255 - MEAN) / np.float32(STD)).float()


@torch.no_grad()
def _accuracy(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    network.eval()
    correct = sum(
        int((network(images).argmax(1) == labels).sum()) for images, labels in zip(x.split(1000), y.split(1000))
    )
    return correct / len(y)
