"""Scores as tables for other tools: pandas, CSV, Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vogcore._paths import check_output, write_whole
from vogcore.errors import StoreError, VogcoreError
from vogcore.store.schema import ALL, SCORE_NAMES

if TYPE_CHECKING:
    import pandas

    from vogcore.store.scores import Scores

__all__ = ["table_columns", "to_csv", "to_pandas", "to_parquet"]


def table_columns(scores: Scores) -> dict[str, npt.NDArray]:
    """Columns (N,) by name, as :meth:`vogcore.Scores.to_pandas` describes them."""
    columns: dict[str, npt.NDArray] = {
        "id": scores.ids,
        "label": scores.labels,
        "class": class_names_of(scores, scores.labels),
    }
    for name in [ALL, *(name for name in scores.stages if name != ALL)]:
        prefix = "" if name == ALL else f"{name}_"
        for score in SCORE_NAMES:
            values = getattr(scores.stages[name], score)
            if values is not None:
                columns[prefix + score] = values
    if scores.predictions_class is not None and len(scores.predictions_class):
        columns["predicted_class"] = class_names_of(scores, scores.predictions_class[-1])
    for name, companion in scores.companions.items():
        columns[f"companion_{name}" if name in columns else name] = companion.values
    return columns


def class_names_of(scores: Scores, indices: npt.NDArray) -> npt.NDArray:
    """Names of class indices (N,) as objects; None for a negative index, the number where there is no name."""

    def name_of(index: int) -> str | None:
        if index < 0:
            return None
        return scores.classes[index] if index < len(scores.classes) else str(index)

    names = {int(index): name_of(int(index)) for index in np.unique(indices)}
    return np.array([names[index] for index in indices.tolist()], dtype=object)


def to_pandas(scores: Scores) -> pandas.DataFrame:
    """See :meth:`vogcore.Scores.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise VogcoreError("A table of scores needs pandas: install it with pip install 'vogcore[pandas]'.") from error
    return pd.DataFrame(table_columns(scores), index=pd.RangeIndex(len(scores), name="position"))


def to_csv(scores: Scores, path: str | os.PathLike[str], overwrite: bool) -> None:
    """See :meth:`vogcore.Scores.to_csv`."""
    check_output(path, overwrite)
    columns = table_columns(scores)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["position", *columns])
    # Python's repr of a float is the shortest text that reads back to the same number.
    writer.writerows(zip(range(len(scores)), *map(_cells, columns.values()), strict=True))
    write_whole(path, _encoded(text.getvalue(), path), overwrite)


def _encoded(text: str, path: str | os.PathLike[str]) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise StoreError(
            f"Cannot write {os.fspath(path)}: {error.object[error.start]!r} in an id or a class name is not valid "
            "Unicode text; rename it."
        ) from error


def _cells(values: npt.NDArray) -> list[Any]:
    """Values of a column for CSV: nothing where there is none or NaN."""
    cells: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        return ["" if cell != cell else cell for cell in cells]
    return cells


def to_parquet(scores: Scores, path: str | os.PathLike[str], overwrite: bool) -> None:
    """See :meth:`vogcore.Scores.to_parquet`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise VogcoreError("Writing Parquet needs pyarrow: install it with pip install 'vogcore[parquet]'.") from error
    check_output(path, overwrite)
    columns = {
        # NumPy's fixed-width text would become bytes, and a column of nothing but None would have no type.
        name: pa.array(values.tolist(), pa.string()) if values.dtype.kind in "OU" else pa.array(values)
        for name, values in table_columns(scores).items()
    }
    notes = {
        "vogcore.version": scores.vogcore_version,
        "vogcore.settings": json.dumps(scores.settings),
        "vogcore.measured_direction": scores.direction.measured,
        "vogcore.claimed_direction": scores.direction.claimed,
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(notes), sink)
    write_whole(path, sink.getvalue().to_pybytes(), overwrite)
