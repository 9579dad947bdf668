"""Columns of tables (Parquet, Hugging Face datasets): which one holds what, and names as class indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError, SettingsError

__all__ = ["CLASS_COLUMNS", "EXAMPLE_COLUMNS", "class_indices", "find_column", "ids_of", "listed", "match_names"]

EXAMPLE_COLUMNS = ("image", "img", "x", "features", "pixel_values", "images", "data")
CLASS_COLUMNS = ("label", "labels", "y", "target", "class", "fine_label")
_ID_COLUMNS = ("id", "ids")
_MOST_NAMES = 20


def find_column(
    present: Sequence[str], wanted: Sequence[str], chosen: str | None, *, what: str, setting: str, where: str
) -> str | None:
    """The column asked for, or the first usual one, or None.

    Raises:
        DataError: there is no column of the name that was asked for.
    """
    if chosen is None:
        return next((name for name in wanted if name in present), None)
    if chosen not in present:
        raise DataError(f"{where} has no column {chosen!r} for the {what}: choose {setting} among {listed(present)}.")
    return chosen


def listed(names: Sequence[str]) -> str:
    """Column names for a message, cut where there are many."""
    more = len(names) - _MOST_NAMES
    text = ", ".join(map(repr, names[:_MOST_NAMES])) or "none"
    return f"{text} and {more} more" if more > 0 else text


def ids_of(present: Sequence[str], chosen: str | None, *, where: str) -> str | None:
    """The column of ids: the one asked for, else a usual one."""
    return find_column(present, _ID_COLUMNS, chosen, what="ids", setting="id_name", where=where)


def class_indices(values: npt.NDArray, names: Sequence[str] | None, *, where: str) -> tuple[npt.NDArray, Any]:
    """Labels of a column as class indices with their names.

    Args:
        values: integers or text (N,).
        names: names of the classes in index order, where known; text is looked up in them.
        where: the source, for messages.

    Returns:
        Integers (N,), and the names: those given, the sorted distinct texts, or None.

    Raises:
        DataError: text that is not one of the names, or a missing label.
    """
    if values.dtype.kind not in "OUST":
        return values, names
    texts = values.tolist()
    if None in texts:
        raise DataError(f"{where}: example {texts.index(None)} has no label: drop such examples.")
    other = next((at for at, text in enumerate(texts) if not isinstance(text, str)), None)
    if other is not None:
        raise DataError(f"{where}: the label of example {other} is {texts[other]!r}, neither an integer nor text.")
    chosen = list(names) if names is not None else sorted(set(texts))
    index = {name: at for at, name in enumerate(chosen)}
    unknown = next((at for at, text in enumerate(texts) if text not in index), None)
    if unknown is not None:
        raise DataError(
            f"{where}: the label of example {unknown} is {texts[unknown]!r}, which is none of the class names: "
            "complete class_names, or leave it out."
        )
    return np.array([index[text] for text in texts], np.int64), chosen


def match_names(x_name: str | Sequence[str] | None) -> list[str]:
    """The columns asked for as a list.

    Raises:
        SettingsError: an empty list, or something that is no name.
    """
    names = [x_name] if isinstance(x_name, str) else list(x_name or [])
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise SettingsError("x_name is the name of a column, or a list of different names of columns.")
    return names
