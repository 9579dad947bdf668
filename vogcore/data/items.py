"""Examples that are made one at a time by code: decoded, transformed, or items of another library's data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.data.labels import as_array
from vogcore.data.preprocess import Preprocess
from vogcore.data.source import ArraySource
from vogcore.errors import DataError, VogcoreError

__all__ = ["ItemRows", "Transform", "open_items", "transformed"]

Transform = Callable[[Any], Any]
"""From one stored example to the values that the model gets, the same on every call."""

_CHECKED_TWICE = 32
"""Examples that are read twice at the start. A flip with probability 1/2 goes unnoticed in one case of 2^32, an
erasure with probability 1/10 in one of 800; later reads are compared with the first ones as well."""
_NO_LABEL = -1


class ItemRows:
    """Rows made of items, with a transform on top; equal to themselves on every read, or refused.

    Args:
        items: called with (start, stop), gives the items of these positions in order: examples, or pairs (example,
            label) where `labelled`. An example is anything that NumPy converts, after the transform.
        n: number of examples N.
        where: what the user calls the source, for messages.
        labelled: whether items are pairs.
        transform: applied to every example by itself.

    Attributes:
        shape: (N, ...).
        dtype: type of the values.
        labels: int64 (N,), filled in by reading; -1 where an item was not read yet, or without `labelled`.

    Raises:
        DataError: no examples, one that cannot be read or is no array, sizes or types that differ, a label that is no
            class index, or examples that differ between two reads.
    """

    verified = True
    """Tells :class:`~vogcore.data.ArraySource` to compare what is read with what was read before."""

    def __init__(
        self,
        items: Callable[[int, int], Iterable[Any]],
        n: int,
        *,
        where: str,
        labelled: bool = False,
        transform: Transform | None = None,
    ) -> None:
        if n < 1:
            raise DataError(f"{where}: there are 0 examples.")
        self._items, self._n, self._where = items, n, where
        self._labelled, self._transform = labelled, transform
        self.labels: npt.NDArray[np.int64] = np.full(n, _NO_LABEL, np.int64)
        self._require_repeatable()

    def _require_repeatable(self) -> None:
        count = min(self._n, _CHECKED_TWICE)
        first, again = list(self._examples(0, count)), list(self._examples(0, count))
        for position, (one, other) in enumerate(zip(first, again, strict=True)):
            if one.shape != other.shape or one.dtype != other.dtype or one.tobytes() != other.tobytes():
                raise DataError(
                    f"{self._where}: example {position} differs between two reads: switch off random augmentation "
                    "and shuffling, since the scores of an example belong to one fixed input."
                )
        self.shape: tuple[int, ...] = (self._n, *first[0].shape)
        self.dtype: np.dtype = first[0].dtype

    def _examples(self, start: int, stop: int) -> Iterable[npt.NDArray]:
        position = start
        try:
            for item in self._items(start, stop):
                yield self._example(item, position)
                position += 1
        except VogcoreError:
            raise
        except Exception as error:
            raise DataError(f"{self._where}: example {position} cannot be read ({_reason(error)}).") from error
        if position < stop:
            raise DataError(
                f"{self._where}: the examples ended after {position}, and {self._n} were counted: do not change "
                "the data while it is in use."
            )

    def _example(self, item: Any, position: int) -> npt.NDArray:
        if self._labelled:
            item, label = item
            self._note_label(label, position)
        if self._transform is not None:
            try:
                item = self._transform(item)
            except Exception as error:
                raise DataError(
                    f"{self._where}: the transform failed on example {position} ({_reason(error)})."
                ) from error
        example = as_array(item, what=f"values of example {position}", where=self._where)
        if example.dtype.kind not in "biuf":
            raise DataError(
                f"{self._where}: example {position} is a {type(item).__name__} and not an array of numbers: pass a "
                "transform that makes one."
            )
        return example

    def _note_label(self, label: Any, position: int) -> None:
        value = as_array(label, what=f"label of example {position}", where=self._where)
        if value.dtype.kind not in "iu" or value.size != 1 or value.item() < 0:
            raise DataError(
                f"{self._where}: the label of example {position} is {_short(label)}: one class index from 0 on is "
                "needed (of one-hot labels pass labels.argmax(axis=1), for batches of examples say so)."
            )
        before = self.labels[position]
        if before not in (_NO_LABEL, value.item()):
            raise DataError(
                f"{self._where}: the label of example {position} was {before} and is now {value.item()}: switch off "
                "shuffling, so that the order is the same on every read."
            )
        self.labels[position] = value.item()

    def __getitem__(self, key: slice, /) -> npt.NDArray:
        """The examples of a slice with start and stop.

        Raises:
            DataError: as the class.
        """
        out = np.empty((key.stop - key.start, *self.shape[1:]), self.dtype)
        if not len(out):
            return out
        for row, example in enumerate(self._examples(key.start, key.stop)):
            if example.shape != self.shape[1:] or example.dtype != self.dtype:
                raise DataError(
                    f"{self._where}: example {key.start + row} has shape {example.shape} and dtype {example.dtype}, "
                    f"and the first has {self.shape[1:]} and {self.dtype}: bring them to one size and type, by a "
                    "transform for example."
                )
            out[row] = example
        return out


def transformed(rows: Any, transform: Transform | None, *, where: str) -> Any:
    """Rows with a transform on each of them; the rows themselves without one.

    Raises:
        DataError: as :class:`ItemRows`.
    """
    if transform is None:
        return rows
    return ItemRows(lambda start, stop: rows[start:stop], _length(rows), where=where, transform=transform)


def _length(rows: Any) -> int:
    """Number of rows N."""
    return int(rows.shape[0]) if len(rows.shape) else 0


def open_items(
    items: Callable[[int, int], Iterable[Any]],
    n: int,
    labels: Any = None,
    *,
    labelled: bool,
    ids: Any = None,
    class_names: Sequence[str] | npt.NDArray | None = None,
    preprocess: Preprocess | None = None,
    transform: Transform | None = None,
    name: str,
) -> ArraySource:
    """A source over items; labels inside of the items are collected in one pass, which makes the fingerprint as well.

    Args:
        items: as for :class:`ItemRows`.
        n: number of examples N.
        labels: class indices (N,); take the place of those in the items, and save the pass.
        labelled: whether items are pairs (example, label).
        ids, class_names, preprocess, name: as for :class:`~vogcore.data.ArraySource`.
        transform: applied to every example by itself, before `preprocess`.

    Raises:
        DataError: as :class:`ItemRows` and :class:`~vogcore.data.ArraySource`.
    """
    rows = ItemRows(items, n, where=name, labelled=labelled, transform=transform)
    source = ArraySource(rows, labels, ids=ids, preprocess=preprocess, name=name)
    if labels is None and labelled:
        source.fingerprint_examples()
        return source.with_changes(rows.labels, class_names=class_names)
    return source.with_changes(class_names=class_names)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
