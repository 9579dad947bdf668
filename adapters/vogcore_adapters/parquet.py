"""Parquet files with columns of features, or a column of encoded images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vogcore.data import ArraySource, Preprocess
from vogcore.data.items import Transform, open_items, transformed
from vogcore.errors import DataError

from ._arrow import block_of
from ._columns import CLASS_COLUMNS, EXAMPLE_COLUMNS, class_indices, find_column, ids_of, listed, match_names
from ._decode import Decoder
from ._require import require

__all__ = ["open_parquet"]


def open_parquet(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    labels: Any = None,
    *,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    transform: Transform | None = None,
    x_name: str | Sequence[str] | None = None,
    y_name: str | None = None,
    id_name: str | None = None,
    mode: str | None = "RGB",
    resize: tuple[int, int] | None = None,
) -> ArraySource:
    """Open one Parquet file, a folder of them (sorted by name), or a list of files in this order.

    The examples are one column of lists or tensors of numbers (N, ...), one column of encoded images (bytes, or a
    struct with ``bytes`` as Hugging Face writes them), or several columns of single numbers (N, F).

    Args:
        path: file, folder or files, all with the same columns.
        labels: class indices (N,), in place of a column.
        ids: unique ids (N,), in place of a column.
        class_names: names in index order; default: those that Hugging Face recorded in the file, or the sorted distinct
            texts of a column of text.
        preprocess: from stored values to the model's input.
        transform: applied to every example (images come as ``PIL.Image.Image``), the same on every call.
        x_name: column of the examples, or a list of columns; default: the first of the usual names.
        y_name: column of the labels; default: the first of the usual names, if any.
        id_name: column of the ids; default: ``id`` or ``ids`` where there is one, else the positions.
        mode: Pillow mode of decoded images, ``"RGB"``, ``"RGBA"`` or ``"L"``; None leaves each as it is.
        resize: (height, width) to bring images to (bilinear), before the transform.

    Returns:
        The source. It reads whole row groups and keeps the last one, so files with row groups of moderate size, read
        forward, are fastest.

    Raises:
        VogcoreError: pyarrow, or for images Pillow, is not installed.
        DataError: missing, not Parquet, damaged, no such column, nulls, lists of different lengths, files that differ,
            an image that cannot be read, labels or ids that do not fit, or a random transform.
        SettingsError: an unknown mode or size, or `x_name` is no name.
    """
    pa = require("pyarrow", "parquet", "Reading Parquet")
    files = _Files(pa, path)
    name, columns = files.name, files.columns
    if x_name is None:
        x_name = find_column(columns, EXAMPLE_COLUMNS, None, what="examples", setting="x_name", where=name)
        if x_name is None:
            raise DataError(f"{name} has the columns {listed(columns)}: choose those of the examples with x_name.")
    chosen = match_names(x_name)
    for column in chosen:
        find_column(columns, (), column, what="examples", setting="x_name", where=name)
    others = [column for column in columns if column not in chosen]
    if labels is None:
        y_name = find_column(others, CLASS_COLUMNS, y_name, what="labels", setting="y_name", where=name)
        if y_name is not None:
            names = class_names if class_names is not None else _recorded_names(files.schema, y_name)
            labels, class_names = class_indices(files.whole(y_name), names, where=name)
    if ids is None:
        id_name = ids_of([column for column in others if column != y_name], id_name, where=name)
        ids = None if id_name is None else files.whole(id_name)
    given: dict[str, Any] = {"ids": ids, "class_names": class_names, "preprocess": preprocess, "name": name}
    if len(chosen) > 1 or not _holds_bytes(pa, files.schema.field(chosen[0]).type):
        rows = transformed(_NumberRows(files, chosen), transform, where=name)
        source = ArraySource(rows, labels, **given)
        if len(chosen) > 1 and transform is None:
            source.feature_names = list(chosen)
        return source
    decoder = Decoder(mode, resize)

    def images(start: int, stop: int) -> Iterator[Any]:
        position = start
        for table in files.read(start, stop, chosen):
            for cell in table.column(0):
                yield decoder.open(_bytes(cell.as_py(), f"{name}: image {position}"), f"{name}: image {position}")
                position += 1

    return open_items(images, files.n, labels, labelled=False, transform=transform, **given)


class _Group(NamedTuple):
    """One row group: its file, its number there, the position of its first row, and its rows."""

    file: Path
    number: int
    start: int
    rows: int


class _Files:
    """Rows of one or several Parquet files by position; keeps the row group that was read last."""

    def __init__(self, pa: Any, path: Any) -> None:
        self._pq = require("pyarrow.parquet", "parquet", "Reading Parquet")
        self._errors = (pa.ArrowException, OSError)
        several = isinstance(path, (list, tuple))
        paths = [Path(one).expanduser() for one in (path if several else [path])]
        self.name = f"{path[0]} and so on" if several and len(paths) > 1 else str(path[0] if several else path)
        if not several and paths[0].is_dir():
            paths = sorted(file for file in paths[0].rglob("*.parquet") if file.is_file())
        self._groups: list[_Group] = []
        self.n = 0
        schemas = [self._add(file) for file in paths]
        if not schemas:
            raise DataError(f"{self.name}: there is no .parquet file: check the path.")
        self.schema: Any = schemas[0]
        for file, schema in zip(paths, schemas, strict=True):
            if not schema.equals(self.schema):
                raise DataError(f"{file} has other columns than the first file of {self.name}: read them one by one.")
        if self.n == 0:
            raise DataError(f"{self.name}: there are 0 examples.")
        self.columns: list[str] = list(self.schema.names)
        self._kept: tuple[_Group, tuple[str, ...], Any] | None = None

    def _open(self, file: Path) -> Any:
        try:
            return self._pq.ParquetFile(file)
        except FileNotFoundError:
            raise DataError(f"{file} does not exist: check the path.") from None
        except self._errors as error:
            raise DataError(
                f"{file} cannot be read as Parquet ({_line(error)}): write or copy the file again."
            ) from error

    def _add(self, file: Path) -> Any:
        """Take in the row groups of a file; its schema."""
        with self._open(file) as opened:
            metadata = opened.metadata
            for index in range(metadata.num_row_groups):
                rows = metadata.row_group(index).num_rows
                if rows:
                    self._groups.append(_Group(file, index, self.n, rows))
                self.n += rows
            return opened.schema_arrow

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[Any]:
        """Tables that hold the rows from `start` to `stop` together, in order."""
        for group in self._groups:
            begin, end = max(start, group.start), min(stop, group.start + group.rows)
            if begin < end:
                yield self._group(group, tuple(columns)).slice(begin - group.start, end - begin)

    def _group(self, group: _Group, columns: tuple[str, ...]) -> Any:
        if self._kept is None or self._kept[:2] != (group, columns):
            self._kept = None  # never two in memory
            with self._open(group.file) as opened:
                try:
                    table = opened.read_row_group(group.number, columns=list(columns)).select(list(columns))
                except self._errors as error:
                    raise DataError(
                        f"{group.file}: row group {group.number} cannot be read ({_line(error)}): write or copy the "
                        "file again."
                    ) from error
            self._kept = group, columns, table
        return self._kept[2]

    def whole(self, column: str) -> npt.NDArray:
        """A column of labels or ids (N,); text as objects."""
        parts = []
        for table in self.read(0, self.n, [column]):
            values = table.column(0)
            if values.null_count:
                raise DataError(f"{self.name}: column {column!r} has missing values: fill or drop these rows.")
            if hasattr(values.type, "value_type") and hasattr(values.type, "index_type"):  # categories
                values = values.cast(values.type.value_type)
            parts.append(np.asarray(values.to_numpy()))
        return np.concatenate(parts)


class _NumberRows:
    """Columns of numbers or of lists of numbers as rows."""

    def __init__(self, files: _Files, columns: Sequence[str]) -> None:
        self._files, self._columns = files, columns
        first = self._read(0, 1)
        self.shape: tuple[int, ...] = (files.n, *first.shape[1:])
        self.dtype: np.dtype = first.dtype

    def __getitem__(self, key: slice, /) -> npt.NDArray:
        if key.start >= key.stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return self._read(key.start, key.stop)

    def _read(self, start: int, stop: int) -> npt.NDArray:
        parts, position = [], start
        for table in self._files.read(start, stop, self._columns):
            where = f"{self._files.name} (from row {position} on)"
            parts.append(block_of(table, self._columns, where))
            position += len(table)
        if len({part.shape[1:] for part in parts}) > 1:
            raise DataError(f"{self._files.name}: the lists have different lengths: bring the examples to one size.")
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _holds_bytes(pa: Any, kind: Any) -> bool:
    types = pa.types
    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _bytes(cell: Any, where: str) -> bytes:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if content is None:
        raise DataError(f"{where} is missing, or only its path is stored: write the file with the images' bytes.")
    return bytes(content)


def _recorded_names(schema: Any, column: str) -> list[str] | None:
    """Names of a ``ClassLabel`` as Hugging Face records them in the metadata of the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return list(names) if isinstance(names, list) and names else None


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
