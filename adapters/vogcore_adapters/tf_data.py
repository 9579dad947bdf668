"""``tf.data`` pipelines as a source of examples: finite, and read forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vogcore.data import ArraySource, Preprocess
from vogcore.data.items import Transform, open_items
from vogcore.errors import DataError

from ._pairs import pair_reader

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["open_dataset"]

_INFINITE, _UNKNOWN = -1, -2
"""``tf.data.INFINITE_CARDINALITY`` and ``tf.data.UNKNOWN_CARDINALITY``."""


def open_dataset(
    dataset: tf.data.Dataset,
    labels: Any = None,
    *,
    batched: bool = False,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    transform: Transform | None = None,
    x_name: str | int | None = None,
    y_name: str | int | None = None,
    name: str = "tf.data",
) -> ArraySource:
    """Open a ``tf.data.Dataset``, which can only be iterated.

    Reading forward costs one iteration; reading what lies further back starts another one. An element is a pair
    (example, label), a longer tuple that begins with them, a dict, or an example alone. With labels in the elements
    there is one iteration at the beginning that collects them, and one more where the pipeline does not know its length
    (``dataset.apply(tf.data.experimental.assert_cardinality(n))`` tells it) or is batched.

    Args:
        dataset: a pipeline that gives the same elements in the same order each time: no ``repeat()``, no shuffling
            anew, no random augmentation.
        labels: class indices (N,), in place of those in the elements.
        batched: whether elements are batches of examples.
        ids: unique ids (N,); default: the positions.
        class_names: names in index order.
        preprocess: applied to blocks of examples.
        transform: applied to every example, the same on every call.
        x_name: key or index of the example in an element; default: index 0, of a dict the first usual key.
        y_name: key or index of the label; default: index 1, of a dict the first usual key, if any.
        name: for messages.

    Raises:
        DataError: no ``tf.data.Dataset``, infinite, empty, elements without an example, sizes or types that differ
            (ragged or sparse ones among them), labels that are no class indices, or elements that differ between two
            iterations (shuffling, random augmentation).
    """
    if not hasattr(dataset, "as_numpy_iterator") or not hasattr(dataset, "cardinality"):
        raise DataError(f"{name} is a {type(dataset).__name__} and not a tf.data.Dataset: pass one.")
    cardinality = int(dataset.cardinality())
    if cardinality == _INFINITE:
        raise DataError(f"{name} never ends: leave out repeat(), or take(n) of it.")
    forward = _Forward(dataset, batched, name)
    first = next(iter(forward.read(0, 1)), None)
    if first is None:
        raise DataError(f"{name}: there are 0 examples.")
    read, labelled = pair_reader(first, x_name, y_name, want_labels=labels is None, where=name)
    n = forward.count() if batched or cardinality == _UNKNOWN else cardinality

    def items(start: int, stop: int) -> Iterator[Any]:
        return map(read, forward.read(start, stop))

    return open_items(
        items,
        n,
        labels,
        labelled=labelled,
        ids=ids,
        class_names=class_names,
        preprocess=preprocess,
        transform=transform,
        name=name,
    )


class _Forward:
    """Reads by position out of something that is only iterated; keeps its place between reads."""

    def __init__(self, dataset: Any, batched: bool, name: str) -> None:
        self._dataset, self._batched, self._name = dataset, batched, name
        self._at = 0
        self._elements: Iterator[Any] = iter(())
        self._restart()

    def _restart(self) -> None:
        self._at, self._elements = 0, self._iterate()

    def _iterate(self) -> Iterator[Any]:
        for element in self._dataset.as_numpy_iterator():
            if not self._batched:
                yield element
            else:
                yield from _split(element, self._name)

    def read(self, start: int, stop: int) -> Iterator[Any]:
        """Elements from `start` to `stop`, or fewer where the pipeline ends before."""
        if start < self._at:
            self._restart()
        while self._at < stop:
            try:
                element = next(self._elements)
            except StopIteration:
                self._restart()
                return
            self._at += 1
            if self._at > start:
                yield element

    def count(self) -> int:
        """Number of elements, by iterating over them."""
        self._restart()
        n = sum(1 for _ in self._elements)
        self._restart()
        return n


def _split(element: Any, where: str) -> Iterator[Any]:
    """The examples of a batch, each in the form that the batch has."""
    if isinstance(element, Mapping):
        return (dict(zip(element, parts, strict=True)) for parts in _rows(list(element.values()), where))
    if isinstance(element, (tuple, list)):
        return _rows(list(element), where)
    return (parts[0] for parts in _rows([element], where))


def _rows(columns: list[Any], where: str) -> Iterator[tuple[Any, ...]]:
    lengths = {len(column) if getattr(column, "ndim", 0) else -1 for column in columns}
    if len(lengths) != 1 or -1 in lengths:
        raise DataError(f"{where}: the elements are no batches of examples: pass batched=False.")
    return zip(*columns, strict=True)
