"""Where the examples of a batch stand in the data set: a run from one position on, or any positions."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vogcore.errors import GradientError

__all__ = ["Where", "consecutive"]

Where: TypeAlias = "int | npt.ArrayLike"
"""The position of the first example, or the position of every one (b,)."""


def consecutive(
    where: Any, arrays: tuple[npt.NDArray | None, ...], what: str
) -> Iterator[tuple[int, tuple[npt.NDArray | None, ...]]]:
    """A batch as runs of consecutive examples.

    Args:
        where: position of the first example, or integer positions (b,) in any order.
        arrays: (b, ...) arrays of the batch; None stays None.
        what: the batch, for messages.

    Yields:
        The position of a run's first example, and its part of every array.

    Raises:
        GradientError: ``where`` is neither, its length is another one, or a position is negative or occurs twice.
    """
    if not isinstance(where, bool) and hasattr(where, "__index__") and np.ndim(where) == 0:
        start = operator.index(where)
        if start < 0:
            raise GradientError(f"{what} begins at example {start}; positions start at 0.")
        yield start, arrays
        return
    try:
        positions = np.asarray(where)
    except (TypeError, ValueError, RuntimeError):
        positions = np.empty((0, 0))
    count = next(len(array) for array in arrays if array is not None)
    if positions.ndim != 1 or positions.dtype.kind not in "iu" or len(positions) != count:
        raise GradientError(
            f"{what} must come with the position of its first example, or with one integer position for each of its "
            f"{count} examples, not with {where!r}."
        )
    positions = positions.astype(np.int64)
    order = np.argsort(positions, kind="stable")
    rising = positions[order]
    if count and (rising[0] < 0 or (rising[1:] == rising[:-1]).any()):
        raise GradientError(
            f"{what} has a position that is negative or occurs twice; every example has one of its own."
        )
    if count and np.array_equal(order, np.arange(count)) and rising[-1] - rising[0] == count - 1:
        yield int(rising[0]), arrays
        return
    cuts = np.flatnonzero(np.diff(rising) != 1) + 1
    for rows in np.split(order, cuts) if count else []:
        yield int(positions[rows[0]]), tuple(None if array is None else array[rows] for array in arrays)
