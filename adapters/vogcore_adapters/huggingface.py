"""Hugging Face ``datasets.Dataset`` as a source of examples, and scores back as its columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vogcore.data import ArraySource, Preprocess
from vogcore.data.items import Transform, open_items, transformed
from vogcore.errors import DataError

from ._arrow import block_of
from ._columns import CLASS_COLUMNS, EXAMPLE_COLUMNS, class_indices, find_column, ids_of, listed, match_names
from ._decode import Decoder
from ._require import require
from .results import columns_of

if TYPE_CHECKING:
    import datasets

    from vogcore import Scores

__all__ = ["add_scores", "open_dataset"]


def open_dataset(
    dataset: datasets.Dataset,
    labels: Any = None,
    *,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    transform: Transform | None = None,
    x_name: str | Sequence[str] | None = None,
    y_name: str | None = None,
    id_name: str | None = None,
    mode: str | None = None,
    resize: tuple[int, int] | None = None,
    name: str = "datasets.Dataset",
) -> ArraySource:
    """Open one split of a data set.

    Args:
        dataset: the split. Its format (``with_format``, ``with_transform``) is respected for the examples.
        labels: class indices (N,), in place of a column.
        ids: unique ids (N,), in place of a column.
        class_names: names in index order; default: those of a ``ClassLabel``, or the sorted distinct texts of a column
            of text.
        preprocess: applied to blocks of examples.
        transform: applied to every example (images come as ``PIL.Image.Image``), the same on every call.
        x_name: column of the examples, or a list of columns of numbers (N, F); default: the first column of images,
            else the first of the usual names.
        y_name: column of the labels; default: the first ``ClassLabel``, else the first of the usual names, if any.
        id_name: column of the ids; default: ``id`` or ``ids`` where there is one, else the positions.
        mode: Pillow mode that decoded images are converted to, ``"RGB"``, ``"RGBA"`` or ``"L"``; None leaves them.
        resize: (height, width) to bring decoded images to (bilinear), before the transform.
        name: for messages.

    Raises:
        VogcoreError: datasets is not installed.
        DataError: a ``DatasetDict`` or a streamed data set, no such column, sizes or types that differ, labels that are
            missing or no class indices, ids that occur twice, or a random transform.
        SettingsError: an unknown mode or size.
    """
    hf = require("datasets", "huggingface", "Reading a Hugging Face data set")
    if isinstance(dataset, (hf.DatasetDict, hf.IterableDatasetDict)):
        raise DataError(f"{name} holds the splits {listed(list(dataset))}: pass one of them, dataset['train'] say.")
    if not isinstance(dataset, hf.Dataset):
        raise DataError(
            f"{name} is a {type(dataset).__name__} and cannot be read by position: load it without streaming."
        )
    columns = list(dataset.features)
    images = [column for column in columns if isinstance(dataset.features[column], hf.Image)]
    custom = dataset.format["type"] == "custom"
    # What a transform of the data set's own makes is what a model gets.
    made = list(dataset[:1]) if custom and len(dataset) else columns
    if x_name is None:
        usual = [*(column for column in made if column not in columns), *images, *EXAMPLE_COLUMNS]
        x_name = find_column(made, usual, None, what="examples", setting="x_name", where=name)
        if x_name is None:
            raise DataError(f"{name} has the columns {listed(made)}: choose those of the examples with x_name.")
    chosen = match_names(x_name)
    for column in chosen:
        find_column(made, (), column, what="examples", setting="x_name", where=name)
    if labels is None:
        classes = [column for column in columns if isinstance(dataset.features[column], hf.ClassLabel)]
        usual = [column for column in (*classes, *CLASS_COLUMNS) if column not in chosen]
        y_name = find_column(columns, usual, y_name, what="labels", setting="y_name", where=name)
        if y_name is not None:
            feature = dataset.features[y_name]
            names = class_names if class_names is not None else getattr(feature, "names", None)
            labels, class_names = class_indices(_whole(dataset, y_name), names, where=name)
    if ids is None:
        id_name = ids_of([column for column in columns if column not in (*chosen, y_name)], id_name, where=name)
        ids = None if id_name is None else _whole(dataset, id_name)
    given: dict[str, Any] = {"ids": ids, "class_names": class_names, "preprocess": preprocess, "name": name}
    if not custom and dataset.format["type"] is None and not set(chosen) & set(images):
        table = dataset.select_columns(chosen).with_format("arrow")
        return ArraySource(transformed(_ArrowRows(table, chosen, name), transform, where=name), labels, **given)
    decoder = Decoder(mode, resize) if set(chosen) & set(images) else None
    # A transform of the data set's own may need all columns.
    view = dataset if custom else dataset.select_columns(chosen)

    def items(start: int, stop: int) -> Iterator[Any]:
        batch = view[start:stop]
        if len(chosen) > 1:
            yield from np.column_stack([np.asarray(batch[column]) for column in chosen])
            return
        for at, value in enumerate(batch[chosen[0]], start):
            yield decoder.convert(value, f"{name}: image {at}") if decoder and hasattr(value, "convert") else value

    return open_items(items, len(dataset), labels, labelled=False, transform=transform, **given)


class _ArrowRows:
    """Columns of numbers as rows, in the type that the data set stores."""

    def __init__(self, table: Any, columns: Sequence[str], where: str) -> None:
        if len(table) == 0:
            raise DataError(f"{where}: there are 0 examples.")
        self._table, self._columns, self._where = table, columns, where
        first = self[:1]
        self.shape: tuple[int, ...] = (len(table), *first.shape[1:])
        self.dtype: np.dtype = first.dtype

    def __getitem__(self, key: slice, /) -> npt.NDArray:
        if key.start == key.stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return block_of(self._table[key], self._columns, self._where)


def _whole(dataset: Any, column: str) -> np.ndarray:
    """A column of numbers or text."""
    values = dataset.with_format(None).select_columns([column])[:][column]
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind in "USTO" else array


def add_scores(
    dataset: datasets.Dataset, scores: Scores, *, stage: str = "all", score: str = "vog", hard: str | None = None
) -> datasets.Dataset:
    """The data set with columns of scores: those of :func:`vogcore_adapters.results.columns_of`.

    Args:
        dataset: the split that was scored, in the same order.
        scores: its scores.
        stage, score, hard: as for :func:`vogcore_adapters.results.issues`.

    Returns:
        A new data set; existing columns of these names are replaced.

    Raises:
        DataError: the data set has another number of examples.
        SettingsError: as :func:`vogcore_adapters.results.issues`.
    """
    if len(dataset) != len(scores):
        raise DataError(
            f"The data set has {len(dataset)} examples and the scores are for {len(scores)}: pass the split that was "
            "scored."
        )
    added = columns_of(scores, stage=stage, score=score, hard=hard)
    kept = dataset.remove_columns([name for name in added if name in dataset.features])
    for name, values in added.items():
        kept = kept.add_column(name, values)
    return kept
