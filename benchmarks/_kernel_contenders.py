"""What the kernels are timed against: twins that move the same bytes, and other ways to compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.kernels._jit import compiled
from vogcore.kernels.threads import run_ranges

__all__ = [
    "block_numpy", "block_torch", "copy", "lists_of_arrays", "normalise_bincount", "normalise_pandas", "read", "triad",
    "twin_of_update", "update_numpy", "update_torch",
]  # fmt: skip

_ROW = 1024  # values that a twin handles between two looks at where it is, like the kernels


@compiled
def _copy(source: Any, target: Any) -> None:
    for j in range(source.size):
        target[j] = source[j]


@compiled
def _triad(a: Any, b: Any, c: Any) -> None:
    for j in range(a.size):
        a[j] = b[j] + 3.0 * c[j]


@compiled
def _read(values: Any) -> float:
    total = values[0] - values[0]
    for j in range(values.size):
        total += values[j]
    return total


@compiled
def _twin(gradients: Any, mean: Any, m2: Any, first: int, last: int) -> None:
    count = gradients.shape[1] // mean.shape[1]
    for b in range(first, last):
        for start in range(0, mean.shape[1], _ROW):
            mean_row, m2_row = mean[b, start : start + _ROW], m2[b, start : start + _ROW]
            row = gradients[b, count * start : count * (start + mean_row.size)]
            if count == 3:
                second, third = row[mean_row.size : 2 * mean_row.size], row[2 * mean_row.size :]
                for j in range(mean_row.size):
                    mean_row[j] += np.float64(row[j])
                    m2_row[j] += np.float64(second[j]) + np.float64(third[j])
            else:
                for j in range(mean_row.size):
                    mean_row[j] += np.float64(row[j])
                    m2_row[j] += np.float64(row[j])


def copy(source: npt.NDArray, target: npt.NDArray) -> None:
    """target (n,) = source (n,), on the kernels' threads."""
    run_ranges(lambda i, j: _copy(source[i:j], target[i:j]), source.size, 2 * source.nbytes, granule=_ROW)


def triad(a: npt.NDArray, b: npt.NDArray, c: npt.NDArray) -> None:
    """a = b + 3 c, all (n,) float64."""
    run_ranges(lambda i, j: _triad(a[i:j], b[i:j], c[i:j]), a.size, 3 * a.nbytes, granule=_ROW)


def read(values: npt.NDArray) -> float:
    """Sum of values (n,) in their own type, which reads them once: floats, or the bits of 16-bit floats."""
    parts: list[float] = []
    run_ranges(lambda i, j: parts.append(_read(values[i:j])), values.size, values.nbytes, granule=_ROW)
    return sum(parts)


def twin_of_update(gradients: npt.NDArray, mean: npt.NDArray, m2: npt.NDArray) -> None:
    """Read gradients (B, n), one or three values a pixel, and read and write moments (B, P), with additions only."""
    run_ranges(lambda i, j: _twin(gradients, mean, m2, i, j), len(mean), gradients.nbytes + 4 * mean.nbytes)


def update_numpy(gradients: npt.NDArray, mean: npt.NDArray, m2: npt.NDArray, step: int, axis: int) -> None:
    """Welford's update with whole arrays: gradients (B, ...), moments (B, P)."""
    value = gradients.mean(axis=axis, dtype=np.float64).reshape(mean.shape)
    delta = value - mean
    mean += delta / step
    m2 += delta * (value - mean)


def update_torch(gradients: Any, mean: Any, m2: Any, step: int, axis: int) -> None:
    """The same with tensors, in place where torch can."""
    import torch

    value = gradients.mean(dim=axis, dtype=torch.float64).reshape(mean.shape)
    delta = value - mean
    mean.add_(delta, alpha=1.0 / step)
    m2.addcmul_(delta, value.sub_(mean))


def lists_of_arrays(gradients: npt.NDArray, axis: int) -> list[float]:
    """Image by image from lists, as in the paper's code; ``axis`` of the channels counts without the checkpoints."""
    scores = []
    for index in range(gradients.shape[1]):
        maps = [np.mean(block[index], axis=axis - 1) for block in gradients]
        centre = sum(np.array(maps)) / len(maps)
        spread = np.sqrt(sum((array - centre) ** 2 for array in maps) / len(maps))
        scores.append(float(np.mean(spread)))
    return scores


def block_numpy(gradients: npt.NDArray, axis: int) -> npt.NDArray:
    """Gradients (K, B, ...) to scores (B,), in the gradients' type, as NumPy does unless told otherwise."""
    reduced = gradients.mean(axis=axis + 1)
    return reduced.std(axis=0).reshape(reduced.shape[1], -1).mean(axis=1)


def block_torch(gradients: Any, axis: int) -> Any:
    """The same with a tensor."""
    reduced = gradients.mean(dim=axis + 1)
    return reduced.std(dim=0, correction=0).flatten(1).mean(dim=1)


def normalise_bincount(scores: npt.NDArray, classes: npt.NDArray, n_classes: int) -> npt.NDArray:
    """Class-normalised scores (N,) by NumPy's bincount, in two passes."""
    count = np.bincount(classes, minlength=n_classes)
    mean = np.bincount(classes, scores, n_classes) / count
    deviation = scores - mean[classes]
    std = np.sqrt(np.bincount(classes, np.square(deviation), n_classes) / count)
    return deviation / std[classes]


def normalise_pandas() -> Callable[[npt.NDArray, npt.NDArray, int], npt.NDArray] | None:
    """Class-normalised scores by pandas' groupby, or None where pandas is not installed."""
    try:
        import pandas as pd
    except ImportError:
        return None

    def normalise(scores: npt.NDArray, classes: npt.NDArray, n_classes: int) -> npt.NDArray:
        groups = pd.Series(scores).groupby(classes)
        return ((scores - groups.transform("mean")) / groups.transform("std", ddof=0)).to_numpy()

    return normalise
