"""PyTorch's map-style data sets and their loaders as a source of examples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vogcore.data import ArraySource, Preprocess
from vogcore.data.items import Transform, open_items
from vogcore.errors import DataError

from ._pairs import pair_reader
from ._require import require

if TYPE_CHECKING:
    import torch.utils.data

__all__ = ["open_dataset"]


def open_dataset(
    dataset: torch.utils.data.Dataset | torch.utils.data.DataLoader,
    labels: Any = None,
    *,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    transform: Transform | None = None,
    x_name: str | int | None = None,
    y_name: str | int | None = None,
    name: str | None = None,
) -> ArraySource:
    """Open a map-style data set: one with ``__len__`` and ``__getitem__``.

    Of a ``DataLoader`` the data set behind it is taken, in its own order: sampler, shuffling, batch size, workers and
    ``drop_last`` have no effect, so a training loader can be passed as it is. A ``collate_fn`` of the user's is applied
    to one item at a time, and the first entry of its result is the example.

    An item is a pair (example, label), or a longer tuple that begins with them, a dict, or an example alone. With
    labels in the items every item is read once at the beginning; pass ``labels`` where they are known.

    Args:
        dataset: the data set, with the transform that evaluation uses; or a loader.
        labels: class indices (N,), in place of those in the items.
        ids: unique ids (N,); default: the positions.
        class_names: names in index order; default: ``dataset.classes``, where that is a list of text.
        preprocess: applied to blocks of examples.
        transform: applied to every example, the same on every call.
        x_name: key or index of the example in an item; default: index 0, of a dict the first usual key.
        y_name: key or index of the label; default: index 1, of a dict the first usual key, if any.
        name: for messages; default: the type of the data set.

    Raises:
        VogcoreError: torch is not installed.
        DataError: an ``IterableDataset``, no items, items without an example, sizes or types that differ, labels that
            are no class indices, or items that differ between two reads (random augmentation).
    """
    data = require("torch.utils.data", "torch", "Reading a torch data set")
    collate = None
    if isinstance(dataset, data.DataLoader):
        if dataset.collate_fn is not data.default_collate and dataset.batch_sampler is not None:
            collate = dataset.collate_fn
        dataset = dataset.dataset
    where = name or type(dataset).__name__
    if isinstance(dataset, data.IterableDataset) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    ):
        raise DataError(f"{where} cannot be read by position: pass a map-style data set, with __len__ and __getitem__.")
    n = len(dataset)
    if n < 1:
        raise DataError(f"{where}: there are 0 examples.")
    read, labelled = pair_reader(
        _item(dataset, collate, 0, where), x_name, y_name, want_labels=labels is None, where=where
    )

    def items(start: int, stop: int) -> Iterator[Any]:
        for position in range(start, stop):
            yield read(_item(dataset, collate, position, where))

    source = open_items(
        items,
        n,
        labels,
        labelled=labelled,
        ids=ids,
        class_names=class_names,
        preprocess=preprocess,
        transform=transform,
        name=where,
    )
    known = _classes(dataset)
    if class_names is None and known is not None:
        # A data set that renumbers its labels keeps the names of the old ones; nobody asked for them here.
        with contextlib.suppress(DataError):
            return source.with_changes(class_names=known)
    return source


def _item(dataset: Any, collate: Any, position: int, where: str) -> Any:
    item = dataset[position]
    if collate is None:
        return item
    batch = collate([item])
    if isinstance(batch, Mapping):
        return {key: _only(value, where) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return tuple(_only(value, where) for value in batch)
    return _only(batch, where)


def _only(values: Any, where: str) -> Any:
    """The first entry of a batch of one."""
    if not hasattr(values, "__len__") or len(values) != 1:
        raise DataError(
            f"{where}: collate_fn makes no batch of one out of one item: pass the data set instead of the loader."
        )
    return values[0]


def _classes(dataset: Any) -> list[str] | None:
    """``classes`` as torchvision's data sets have it; of a subset that of the data set behind it."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if isinstance(names, (list, tuple)) and names and all(isinstance(text, str) for text in names):
        return list(names)
    return None
