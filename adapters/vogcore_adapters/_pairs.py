"""Items of training data sets, as pairs of an example and a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vogcore.errors import DataError, SettingsError

from ._columns import CLASS_COLUMNS, EXAMPLE_COLUMNS, find_column, listed

__all__ = ["pair_reader"]


def pair_reader(
    item: Any, x_name: str | int | None, y_name: str | int | None, *, want_labels: bool, where: str
) -> tuple[Callable[[Any], Any], bool]:
    """How to get example and label out of items like this one.

    Args:
        item: a tuple or list (example, label, ...), a dict, or an example alone.
        x_name: key or index of the example; default: index 0, or the first usual key.
        y_name: key or index of the label; default: index 1, or the first usual key, if any.
        want_labels: False where labels come from elsewhere.
        where: the data set, for messages.

    Returns:
        A function of an item, and whether it gives pairs (example, label) or examples alone.

    Raises:
        DataError: there is no such key or index, or none of the usual keys.
        SettingsError: a name for items that have none.
    """
    x_key: Any
    y_key: Any
    if isinstance(item, Mapping):
        keys = [key for key in item if isinstance(key, str)]
        x_key = find_column(keys, EXAMPLE_COLUMNS, _text(x_name), what="example", setting="x_name", where=where)
        if x_key is None:
            raise DataError(f"{where}: items have the keys {listed(keys)}: choose that of the example with x_name.")
        y_key = find_column(keys, CLASS_COLUMNS, _text(y_name), what="label", setting="y_name", where=where)
    elif isinstance(item, (tuple, list)) and item:
        x_key, y_key = 0 if x_name is None else x_name, y_name
        if y_key is None and len(item) > 1:
            y_key = 1
        for key in (x_key, y_key):
            if key is not None and not (isinstance(key, int) and -len(item) <= key < len(item)):
                raise DataError(f"{where}: items are tuples of {len(item)} entries, so {key!r} is not one of them.")
    else:
        if x_name is not None or y_name is not None:
            raise SettingsError(f"x_name and y_name choose parts of an item, and {where} has items of one part.")
        return lambda whole: whole, False
    if not want_labels or y_key is None:
        return lambda parts: parts[x_key], False
    return lambda parts: (parts[x_key], parts[y_key]), True


def _text(name: str | int | None) -> str | None:
    if isinstance(name, int):
        raise SettingsError(f"Items are dicts, so x_name and y_name are keys and not {name}.")
    return name
