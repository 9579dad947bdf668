"""What the training programs of this folder share: data, the order of batches, and the files that the tests read.

Each program is run by tests/adapters/test_training.py in the environment of its framework, as
``python train_<framework>.py FOLDER``. It trains a small network twice from the same seed, once as it is and once with
an exporter. At the exported steps of the second training it computes the input gradients twice: by the adapter for
native gradients, and by hand with what the framework offers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vogcore.data import Preprocess
from vogcore.demo.digits import CLASS_NAMES, MAXIMUM, load_digits
from vogcore_adapters.schedule import between_steps, every_epoch, every_n_steps

COUNT, BATCH, EPOCHS = 160, 32, 2
STEPS = [4, 5, 10]
"""When `options` exports."""


def digits(layout: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (160, ...) as the network takes them, and labels."""
    x, y = load_digits()
    return Preprocess(scale=1 / MAXIMUM, layout=layout).apply(x[:COUNT]), y[:COUNT]


def batches(x: np.ndarray, y: np.ndarray) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """The batches of each epoch, shuffled."""
    generator = np.random.default_rng(5)
    for _ in range(EPOCHS):
        order = generator.permutation(COUNT).reshape(-1, BATCH)
        yield [(x[rows], y[rows]) for rows in order]


def options(layout: str) -> dict[str, Any]:
    """Options of the exporter."""
    return {
        "schedule": every_n_steps(4) & between_steps(0, 5) | every_epoch(),
        "class_names": list(CLASS_NAMES),
        "preprocess": Preprocess(scale=1 / MAXIMUM, layout=layout),
    }


def folder() -> Path:
    """The folder of the command line."""
    return Path(sys.argv[1])


def equal(plain: Sequence[Any], watched: Sequence[Any]) -> bool:
    """Whether two trainings ended in the same weights and the same random state, bit for bit."""
    assert len(plain) == len(watched) > 0
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(plain, watched, strict=True))


def whole(blocks: Iterable[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray:
    """The gradients (N, ...) of one checkpoint out of the blocks of an adapter."""
    return np.concatenate([gradients for _, gradients, _ in blocks])


def finish(found: Sequence[tuple[np.ndarray, np.ndarray]], undisturbed: bool, **more: np.ndarray) -> None:
    """Write what the tests compare: gradients (K, N, ...) by both ways, how the two trainings compare, and the data."""
    x, y = load_digits()
    native, by_hand = (np.stack(gradients) for gradients in zip(*found, strict=True))
    np.savez(folder() / "native.npz", gradients=native, by_hand=by_hand, undisturbed=undisturbed, **more)
    np.savez(folder() / "train.npz", x=x[:COUNT], y=y[:COUNT])
