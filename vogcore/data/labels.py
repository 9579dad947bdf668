"""Labels, ids and class names as vogcore uses them, or one sentence that says why they cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError

__all__ = ["as_array", "check_class_names", "check_ids", "check_labels"]

_LARGEST_INT64 = np.iinfo(np.int64).max


def as_array(values: Any, *, what: str, where: str) -> npt.NDArray:
    """`values` as a plain ndarray, without a copy where it already is one.

    Args:
        values: anything NumPy converts: an array, a (nested) list, a CPU tensor.
        what: what the values are, for messages ("labels").
        where: the source they belong to, for messages.

    Raises:
        DataError: the values cannot be converted, or some of them are masked out.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(f"{where}: some {what} are masked out: drop or fill them first.")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where}: the {what} cannot be turned into a NumPy array ({reason}).") from error


def check_labels(labels: Any, n_examples: int, *, where: str) -> npt.NDArray[np.int64]:
    """Class indices, checked.

    Args:
        labels: class index of every example, (N,) or (N, 1), any integer type.
        n_examples: N.
        where: the source they belong to, for messages.

    Returns:
        A read-only copy, int64 (N,).

    Raises:
        DataError: wrong length or rank, not integers, or negative.
    """
    values = as_array(labels, what="labels", where=where)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        advice = "for one-hot rows pass labels.argmax(axis=1)" if values.ndim == 2 else "pass a one-dimensional array"
        raise DataError(
            f"{where}: the labels have shape {values.shape} where one class index for each example is needed: {advice}."
        )
    if len(values) != n_examples:
        raise DataError(f"{where}: there are {len(values)} labels for {n_examples} examples: they must be as many.")
    if values.dtype.kind not in "iu":
        raise DataError(f"{where}: the labels have dtype {values.dtype}, not integers: {_label_advice(values.dtype)}.")
    if values.min() < 0:
        at = int(np.argmax(values < 0))
        raise DataError(
            f"{where}: the label of example {at} is {values[at]}: class indices start at 0, so drop "
            "examples without a label."
        )
    if values.max() > _LARGEST_INT64:
        raise DataError(f"{where}: the label {values.max()} does not fit into int64: number the classes from 0.")
    checked = np.array(values, dtype=np.int64)
    checked.flags.writeable = False
    return checked


def _label_advice(dtype: np.dtype) -> str:
    if dtype.kind in "fb":
        return "if they are class indices, convert them with labels.astype('int64')"
    if dtype.kind in "USTO":
        return (
            "turn names into class indices with names, labels = numpy.unique(labels, return_inverse=True) and pass "
            "class_names=list(names)"
        )
    return "pass class indices that start at 0"


def check_ids(ids: Any, n_examples: int, *, where: str) -> npt.NDArray:
    """Ids of the examples, checked.

    Args:
        ids: id of every example (N,), integers or text (bytes are read as UTF-8).
        n_examples: N.
        where: the source they belong to, for messages.

    Returns:
        A read-only copy (N,), int64 or NumPy str.

    Raises:
        DataError: wrong length or rank, neither integers nor text, or an id that occurs twice.
    """
    values = as_array(ids, what="ids", where=where)
    if values.shape != (n_examples,):
        raise DataError(
            f"{where}: the ids have shape {values.shape} for {n_examples} examples: one id for each example is needed."
        )
    checked = _int64_ids(values, where) if values.dtype.kind in "iu" else _text(values, what="ids", where=where)
    order = np.argsort(checked, kind="stable")
    same = np.flatnonzero(checked[order[1:]] == checked[order[:-1]])
    if same.size:
        first, second = sorted((int(order[same[0]]), int(order[same[0] + 1])))
        raise DataError(
            f"{where}: the examples {first} and {second} have the same id {checked[first].item()!r}: ids "
            "must be unique."
        )
    checked.flags.writeable = False
    return checked


def _int64_ids(values: npt.NDArray, where: str) -> npt.NDArray:
    if values.max() > _LARGEST_INT64:
        raise DataError(f"{where}: the id {values.max()} does not fit into int64: pass such ids as text.")
    return np.array(values, dtype=np.int64)


def _text(values: npt.NDArray, *, what: str, where: str) -> npt.NDArray:
    """A copy as NumPy str; text and UTF-8 bytes only, so that 1.0 does not become an id by accident."""
    if values.dtype.kind not in "USTO":
        raise DataError(
            f"{where}: the {what} have dtype {values.dtype}: they must be "
            f"{'integers or text' if what == 'ids' else 'text'}."
        )
    # NumPy's text can hold numbers that are no characters, and making a str of one raises SystemError.
    if (
        values.dtype.kind == "U"
        and values.size
        and values.astype(values.dtype.newbyteorder("=")).view(np.uint32).max() > 0x10FFFF
    ):
        raise DataError(f"{where}: the {what} are not valid Unicode text: store them anew.")
    texts: list[str] = []
    for at, value in enumerate(values.tolist()):
        if isinstance(value, bytes):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{where}: entry {at} of the {what} is not valid UTF-8: store it as text.") from None
        if not isinstance(value, str):
            raise DataError(f"{where}: entry {at} of the {what} is {value!r}, not text: convert all of them to str.")
        # NumPy's str type drops trailing NULs, which could make two different ids equal without a word.
        if "\0" in value:
            raise DataError(f"{where}: entry {at} of the {what} contains a NUL character: remove it.")
        # File names of another encoding come as surrogates, which no score file can hold: say so before the run.
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DataError(f"{where}: entry {at} of the {what} is not valid Unicode text ({value!r}): rename it.")
        texts.append(value)
    return np.array(texts, dtype=np.str_)


def check_class_names(
    names: Sequence[str] | npt.NDArray, labels: npt.NDArray[np.int64] | None, *, where: str
) -> list[str]:
    """Class names in index order, checked against the labels.

    Args:
        names: name of every class (C,).
        labels: class indices (N,), or None where there are none.
        where: the source they belong to, for messages.

    Raises:
        DataError: not a list of text, a name that occurs twice, or a label without a name.
    """
    values = as_array(names, what="class names", where=where)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"{where}: the class names must be a list with one name for each class.")
    checked: list[str] = _text(values, what="class names", where=where).tolist()
    index: dict[str, int] = {}
    for at, name in enumerate(checked):
        first = index.setdefault(name, at)
        if first != at:
            raise DataError(f"{where}: the classes {first} and {at} are both named {name!r}: class names must differ.")
    if labels is not None and labels.max() >= len(checked):
        at = int(np.argmax(labels >= len(checked)))
        raise DataError(
            f"{where}: example {at} has label {labels[at]} but there are only {len(checked)} class names: "
            "give one for every class."
        )
    return checked
