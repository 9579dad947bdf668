"""Arrow columns as arrays of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError

__all__ = ["block_of", "numbers"]


def block_of(table: Any, columns: Sequence[str], where: str) -> npt.NDArray:
    """The examples that rows of a table hold.

    Args:
        table: ``pyarrow.Table`` of B rows.
        columns: one column of numbers, lists or tensors, or several of single numbers.
        where: the table, for messages.

    Returns:
        (B, ...), with an axis of features (B, F) for single numbers; several types become the widest.

    Raises:
        DataError: as :func:`numbers`, or lists in one of several columns.
    """
    named = [(column, numbers(table.column(column), f"{where}: column {column!r}")) for column in columns]
    if len(named) == 1:
        block = named[0][1]
        return block[:, None] if block.ndim == 1 else block
    for column, values in named:
        if values.ndim != 1:
            raise DataError(f"{where}: column {column!r} holds lists: several columns must hold single numbers.")
    return np.stack([values for _, values in named], axis=1)


def numbers(column: Any, where: str) -> npt.NDArray:
    """A column of numbers, or of lists or tensors of them, as an array.

    Args:
        column: ``pyarrow.ChunkedArray`` of N values; lists may be nested.
        where: the column, for messages.

    Returns:
        (N,) for numbers, (N, ...) for lists of one length and for tensors.

    Raises:
        DataError: missing values, lists of different lengths, or something else than numbers.
    """
    import pyarrow as pa

    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    return _values(whole, pa, where)


def _values(array: Any, pa: Any, where: str) -> npt.NDArray:
    if array.null_count:
        raise DataError(f"{where} has missing values: fill or drop these rows.")
    kind = array.type
    if isinstance(kind, pa.FixedShapeTensorType):
        tensor: npt.NDArray = array.to_numpy_ndarray()
        return tensor
    if isinstance(kind, pa.BaseExtensionType):  # as Hugging Face has them for arrays of several axes
        return _values(array.storage, pa, where)
    if pa.types.is_fixed_size_list(kind):
        inner = _values(array.flatten(), pa, where)
        return inner.reshape(len(array), kind.list_size, *inner.shape[1:])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.diff(np.asarray(array.offsets))
        if len(lengths) and (lengths != lengths[0]).any():
            raise DataError(f"{where}: the lists have different lengths: bring the examples to one size.")
        inner = _values(array.flatten(), pa, where)
        return inner.reshape(len(array), int(lengths[0]) if len(lengths) else 0, *inner.shape[1:])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where} has type {kind}, which is no number: choose other columns with x_name.")
    values: npt.NDArray = array.to_numpy(zero_copy_only=False)
    return values
