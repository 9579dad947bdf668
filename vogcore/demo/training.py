"""Training of the demo: the digits, a few wrong labels on purpose, a checkpoint per epoch."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vogcore._paths import write_whole
from vogcore.demo.digits import CLASS_NAMES, MAXIMUM, load_digits
from vogcore.demo.export import export_network
from vogcore.demo.network import Adam, Network
from vogcore.errors import OutputExistsError, SettingsError, StoreError

__all__ = ["N_TEST", "N_TRAIN", "DemoRun", "EpochResult", "train"]

N_TRAIN = 1347
N_TEST = 450
BATCH_SIZE = 32
LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave, after its last step.

    Attributes:
        epoch: 1 for the first epoch.
        step: optimiser steps taken since the beginning.
        loss: mean training loss over the batches of the epoch (cross-entropy, nats).
        train_accuracy: fraction of the training labels, flipped ones included, that the network gives.
        test_accuracy: the same of the held-out labels, none of which is flipped.
        checkpoint: the file written.
    """

    epoch: int
    step: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    checkpoint: Path


@dataclass(frozen=True)
class DemoRun:
    """What :func:`train` made.

    Attributes:
        epochs: one :class:`EpochResult` for each epoch, in order.
        train_path: ``train.npz``.
        test_path: ``test.npz``.
        flipped: rows of ``train.npz`` whose label was replaced by a wrong one, ascending (F,) int64.
    """

    epochs: list[EpochResult]
    train_path: Path
    test_path: Path
    flipped: npt.NDArray[np.int64]

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoint files in the order of training."""
        return [result.checkpoint for result in self.epochs]

    @property
    def train_accuracy(self) -> list[float]:
        """Training accuracy after each epoch, measured against the labels trained on (flipped ones included)."""
        return [result.train_accuracy for result in self.epochs]

    @property
    def test_accuracy(self) -> list[float]:
        """Test accuracy after each epoch."""
        return [result.test_accuracy for result in self.epochs]


def train(
    directory: str | os.PathLike[str],
    epochs: int = 12,
    seed: int = 0,
    on_epoch: Callable[[EpochResult], None] | None = None,
    *,
    flip: float = 0.05,
    overwrite: bool = False,
) -> DemoRun:
    """Train the demo's network on 1,347 digits and write what a score run needs.

    **Five per cent of the training labels are wrong on purpose** (``flip``), so that a score can be asked whether it
    finds them. The test labels are left as they are.

    Written into ``directory``, which is made if need be:

    - ``ckpt-<epoch>.onnx`` after every epoch, 1 to ``epochs``: input ``image`` ("batch", 1, 8, 8) float32, pixels
      divided by 16, output ``logits`` ("batch", 10);
    - ``train.npz``: ``x`` (1347, 8, 8) uint8, ``y`` (1347,) int64 as trained on, ``ids`` (1347,) int64 positions in
      the original set, ``flipped`` (1347,) bool, ``y_original`` (1347,) int64, ``class_names`` (10,) str;
    - ``test.npz``: ``x``, ``y``, ``ids``, ``class_names`` of the 450 images held out.

    Args:
        directory: folder for the files.
        epochs: number of epochs, and of checkpoints.
        seed: seed of the split, the wrong labels, the weights and the order of the batches.
        on_epoch: called after every epoch, once its checkpoint is on disk.
        flip: fraction of the training labels to replace by another class, 0 to 1; rounded to whole examples.
        overwrite: replace the files of an earlier run, and remove its other ``ckpt-*.onnx`` (they would be scored as
            if they belonged to this run).

    Returns:
        Accuracies per epoch and the paths written.

    Raises:
        SettingsError: ``epochs`` is below 1 or ``flip`` outside 0 to 1.
        OutputExistsError: the folder holds files of an earlier run and ``overwrite`` is False.
        StoreError: the folder or a file cannot be written.
    """
    if epochs < 1:
        raise SettingsError(f"epochs must be at least 1, not {epochs}.")
    if not 0 <= flip <= 1:
        raise SettingsError(f"flip is a fraction of the training labels from 0 to 1, not {flip}.")
    folder = _prepare_folder(Path(directory), overwrite)
    train_path, test_path = _data_files(folder)

    # One stream for each purpose: turning the label noise off leaves split, weights and batches as they were.
    split_seed, flip_seed, weight_seed, order_seed = np.random.SeedSequence(seed).generate_state(4)
    pixels, labels = load_digits()
    order = np.random.default_rng(split_seed).permutation(len(labels))
    train_ids, test_ids = np.sort(order[:N_TRAIN]), np.sort(order[N_TRAIN:])
    y_original = labels[train_ids]
    y, flipped = _flip_labels(y_original, flip, np.random.default_rng(flip_seed))

    names = np.array(CLASS_NAMES)
    _save_npz(
        train_path, x=pixels[train_ids], y=y, ids=train_ids, flipped=flipped, y_original=y_original, class_names=names
    )
    _save_npz(test_path, x=pixels[test_ids], y=labels[test_ids], ids=test_ids, class_names=names)

    x_train, x_test = _network_input(pixels[train_ids]), _network_input(pixels[test_ids])
    network = Network(int(weight_seed))
    optimiser = Adam(network.parameters, LEARNING_RATE)
    order_rng = np.random.default_rng(order_seed)
    results = []
    for epoch in range(1, epochs + 1):
        shuffled = order_rng.permutation(N_TRAIN)
        losses = []
        for start in range(0, N_TRAIN, BATCH_SIZE):
            rows = shuffled[start : start + BATCH_SIZE]
            loss, gradients = network.loss_and_gradients(x_train[rows], y[rows])
            optimiser.update(gradients)
            losses.append(loss)
        path = export_network(
            network, folder / f"ckpt-{epoch}.onnx", step=optimiser.step, epoch=epoch, class_names=CLASS_NAMES
        )
        result = EpochResult(
            epoch=epoch,
            step=optimiser.step,
            loss=float(np.mean(losses)),
            train_accuracy=_accuracy(network, x_train, y),
            test_accuracy=_accuracy(network, x_test, labels[test_ids]),
            checkpoint=path,
        )
        results.append(result)
        if on_epoch is not None:
            on_epoch(result)
    return DemoRun(results, train_path, test_path, np.flatnonzero(flipped).astype(np.int64))


def _prepare_folder(folder: Path, overwrite: bool) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted([*folder.glob("ckpt-*.onnx"), *(p for p in _data_files(folder) if p.exists())])
        if earlier and not overwrite:
            raise OutputExistsError(
                f"{folder} already holds {earlier[0].name} of an earlier run; choose another folder, or replace its "
                "files (overwrite=True, on the command line --overwrite)."
            )
        for path in earlier:
            path.unlink()
    except OSError as error:
        raise StoreError(f"Cannot use {folder} for the demo's files: {error.strerror or error}.") from error
    return folder


def _data_files(folder: Path) -> tuple[Path, Path]:
    return folder / "train.npz", folder / "test.npz"


def _flip_labels(
    labels: npt.NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Labels with a fraction replaced by another class, each other class equally likely, and which ones were."""
    flipped = np.zeros(len(labels), bool)
    flipped[rng.choice(len(labels), round(fraction * len(labels)), replace=False)] = True
    noisy = labels.copy()
    shift = rng.integers(1, len(CLASS_NAMES), flipped.sum())
    noisy[flipped] = (labels[flipped] + shift) % len(CLASS_NAMES)
    return noisy, flipped


def _network_input(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return pixels[:, None].astype(np.float32) * np.float32(1 / MAXIMUM)


def _accuracy(network: Network, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> float:
    return float((network.forward(x).argmax(1) == y).mean())


def _save_npz(path: Path, **arrays: npt.NDArray) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue(), overwrite=True)
