"""One function that opens whatever the user has."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore._types import ExampleSource
from vogcore.data._files import Container, Rows
from vogcore.data.arrays import NpzFile, map_npy
from vogcore.data.items import Transform, transformed
from vogcore.data.labels import as_array, check_class_names, check_labels
from vogcore.data.preprocess import Preprocess
from vogcore.data.readers import find_reader, other_suffixes
from vogcore.data.source import ArraySource, SourceRows, wrap
from vogcore.errors import DataError, SettingsError, VogcoreWarning

__all__ = ["EXAMPLE_NAMES", "LABEL_NAMES", "from_container", "open_source"]

EXAMPLE_NAMES = ("x", "images", "data", "X", "x_train", "X_train")
LABEL_NAMES = ("y", "labels", "targets", "Y", "y_train")
_SPLITS = ("train", "test", "val", "valid", "validation")
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")


def open_source(
    data: Any,
    labels: Any = None,
    *,
    ids: Any = None,
    class_names: Sequence[str] | npt.NDArray | None = None,
    preprocess: Preprocess | None = None,
    x_name: str | None = None,
    y_name: str | None = None,
    transform: Transform | None = None,
    require_labels: bool = True,
) -> ExampleSource:
    """Open examples and labels for reading in runs.

    Args:
        data: an array or memory map (N, ...); a path to ``.npy`` (labels come separately), ``.npz``, ``.h5`` /
            ``.hdf5`` / ``.hdf``, or of a kind that an installed package has a reader for (:mod:`vogcore.data.readers`);
            a pair (x, y); an open HDF5 data set or anything like it; or an :class:`~vogcore._types.ExampleSource`,
            which is returned as it is unless something is to be put on top.
        labels: class indices (N,) or (N, 1), integers, or the path of a ``.npy`` file with them; they take the place of
            labels in the file.
        ids: unique ids (N,), integers or text, or the path of a ``.npy`` file; default: "ids" in the file, else None.
        class_names: names in index order; default: "class_names" in the file, else None.
        preprocess: from stored values to the model's input.
        x_name: array in the file that holds the examples; default: the first of ``EXAMPLE_NAMES`` that is there.
        y_name: array that holds the labels; default: the first of ``LABEL_NAMES`` that is there, and beside "x_test"
            (or another split) that of the same split.
        transform: applied to every stored example by itself, before `preprocess`; the same result on every call.
        require_labels: raise where there are none. With False, a non-integer array that is found by its name alone is
            left out with a warning.

    Returns:
        The source; its ``labels`` are None only with ``require_labels=False``. Memory maps and HDF5 files stay open as
        long as it lives; an :class:`~vogcore.data.ArraySource` can be closed before.

    Raises:
        DataError: no such file, another format, truncated, pickled objects, wrong names, no examples, labels, ids
            and names that do not fit, or a transform that fails or is random.
        SettingsError: `x_name` or `y_name` for data without names, or labels given twice.
    """
    if isinstance(data, (tuple, list)):
        data, labels = _split_pair(data, labels)
    given = {"ids": _load(ids, "ids"), "class_names": class_names}
    labels = _load(labels, "labels")
    is_path = isinstance(data, (str, os.PathLike))
    reader = find_reader(data) if is_path else None
    source: ExampleSource
    if reader is not None:
        source = reader(data, labels, **given, preprocess=preprocess, transform=transform, x_name=x_name, y_name=y_name)
    elif is_path and Path(data).suffix.lower() != ".npy":
        source = from_container(
            _open_container(data), labels, given, preprocess, x_name, y_name, transform, require_labels=require_labels
        )
    else:
        if x_name is not None or y_name is not None:
            raise SettingsError(
                "x_name and y_name choose arrays inside an .npz or HDF5 file, and this data has no names."
            )
        source = _from_unnamed(data, labels, given, preprocess, transform)
    if require_labels and source.labels is None:
        raise DataError(f"{source.name}: there are no labels: pass labels, or choose a target that needs none.")
    return source


def _split_pair(data: Sequence[Any], labels: Any) -> tuple[Any, Any]:
    if len(data) != 2:
        raise DataError(
            f"data is a {type(data).__name__} of {len(data)} items: give a pair (x, y), an array or a path."
        )
    if labels is not None:
        raise SettingsError("labels are given twice, in the pair (x, y) and as labels: leave one out.")
    return data[0], data[1]


def _load(values: Any, what: str) -> Any:
    """Labels or ids from a ``.npy`` file where a path is given, else as they are."""
    if not isinstance(values, (str, os.PathLike)):
        return values
    if Path(values).suffix.lower() != ".npy":
        raise DataError(f"{values}: {what} are read from .npy files only: save them with numpy.save or pass an array.")
    return map_npy(values)


def _from_unnamed(
    data: Any, labels: Any, given: dict[str, Any], preprocess: Preprocess | None, transform: Transform | None
) -> ExampleSource:
    if isinstance(data, (str, os.PathLike)):
        rows = transformed(map_npy(data), transform, where=str(data))
        return ArraySource(rows, labels, **given, preprocess=preprocess, name=str(data))
    if not isinstance(data, ExampleSource):
        rows = transformed(_as_rows(data), transform, where="array")
        return ArraySource(rows, labels, **given, preprocess=preprocess)
    if transform is not None:
        rows = transformed(SourceRows(data), transform, where=data.name)
        return wrap(data, labels, **given, preprocess=preprocess, rows=rows)
    if labels is not None or preprocess is not None or any(value is not None for value in given.values()):
        change = data.with_changes if isinstance(data, ArraySource) else lambda *a, **k: wrap(data, *a, **k)
        return change(labels, **given, preprocess=preprocess)
    return data if isinstance(data, ArraySource) else _checked(data)


def _checked(source: ExampleSource) -> ExampleSource:
    """A source of the user's as it is, once its labels are known to be fit for use."""
    if len(source) < 1:
        raise DataError(f"{source.name}: there are 0 examples.")
    if source.labels is None:
        return source
    labels = check_labels(source.labels, len(source), where=source.name)
    if source.class_names is not None:
        check_class_names(source.class_names, labels, where=source.name)
    same_type = isinstance(source.labels, np.ndarray) and source.labels.dtype == np.int64 and source.labels.ndim == 1
    return source if same_type else wrap(source)


def _as_rows(data: Any) -> Rows:
    # HDF5 and Zarr arrays have chunks: they are sliced as they are, since converting them would read everything.
    if hasattr(data, "chunks") and isinstance(getattr(data, "dtype", None), np.dtype) and hasattr(data, "shape"):
        return data
    if not hasattr(data, "__array__"):
        raise DataError(
            f"data is a {type(data).__name__}: give an array, a path, a pair (x, y) or an ExampleSource; "
            "vogcore_adapters makes one of a torch, TensorFlow or Hugging Face data set."
        )
    return as_array(data, what="examples", where="array")


def _open_container(path: str | os.PathLike[str]) -> Container:
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return NpzFile(path)
    if suffix in _HDF5_SUFFIXES:
        from vogcore.data.hdf5 import Hdf5File  # h5py is loaded only by those who have such a file

        return Hdf5File(path)
    if not Path(path).expanduser().exists():
        raise DataError(f"{path} does not exist: check the path.")
    if Path(path).expanduser().is_dir():
        raise DataError(
            f"{path} is a folder, and no installed package reads folders: install vogcore again, which brings a reader "
            "of image folders, or give a file."
        )
    other = [f".{suffix}" for suffix in other_suffixes()]
    raise DataError(
        f"{path}: files are recognised by their suffix ({', '.join(('.npy', '.npz', '.h5', '.hdf5', *other))}): rename "
        "or convert it."
    )


def from_container(
    file: Container,
    labels: Any,
    given: dict[str, Any],
    preprocess: Preprocess | None,
    x_name: str | None,
    y_name: str | None,
    transform: Transform | None = None,
    *,
    require_labels: bool,
) -> ArraySource:
    """The source that a file of named arrays holds; the file is closed where it holds none.

    Args:
        file: the open file.
        given: ``ids`` and ``class_names`` from outside, or None for those in the file.
        labels, preprocess, x_name, y_name, transform, require_labels: as for :func:`open_source`.

    Raises:
        DataError: as :func:`open_source`.
        SettingsError: labels given twice.
    """
    try:
        return _from_container(file, labels, given, preprocess, x_name, y_name, transform, require_labels)
    except BaseException:
        file.close()
        raise


def _from_container(
    file: Container,
    labels: Any,
    given: dict[str, Any],
    preprocess: Preprocess | None,
    x_name: str | None,
    y_name: str | None,
    transform: Transform | None,
    require_labels: bool,
) -> ArraySource:
    x_name = _choose(file, x_name, EXAMPLE_NAMES, what="examples", setting="x_name")
    split = next((split for split in _SPLITS if x_name.lower().endswith(f"_{split}")), None)
    if labels is None:
        wanted = _label_names(x_name, split)
        if y_name is not None or require_labels:
            y_name = _choose(file, y_name, wanted, what="labels", setting="y_name")
            labels = file.values(y_name)
        else:
            labels = _optional_labels(file, wanted)
    elif y_name is not None:
        raise SettingsError("labels are given twice, as labels and as y_name: leave one out.")
    if given["ids"] is None:
        found = [name for name in (f"ids_{split}", "ids") if file.has(name)]
        given["ids"] = file.values(found[0]) if found else None
    if given["class_names"] is None and file.has("class_names"):
        given["class_names"] = file.values("class_names")
    # Rows come last: opening them may open an HDF5 file anew.
    rows = transformed(file.rows(x_name), transform, where=file.name)
    return ArraySource(rows, labels, **given, preprocess=preprocess, name=file.name, close=file.close)


def _choose(file: Container, name: str | None, wanted: Sequence[str], *, what: str, setting: str) -> str:
    """The name asked for, or the first usual one; an error that lists what there is."""
    if name is not None:
        if file.has(name):
            return name
        raise DataError(f"{file.name} has no {name!r} for the {what}: it holds {file.describe()}.")
    for usual in wanted:
        if file.has(usual):
            return usual
    raise DataError(
        f"{file.name} has no {what} under the usual names {', '.join(wanted)}: it holds {file.describe()}, so "
        f"choose with {setting}."
    )


def _label_names(x_name: str, split: str | None) -> list[str]:
    """Usual names of labels; beside the examples of one split never the labels of another."""
    if split is None:
        return list(LABEL_NAMES)
    suffix = x_name[-len(split) - 1 :]
    plain = [name for name in LABEL_NAMES if name != "y_train"]
    return list(dict.fromkeys(name + ending for ending in (suffix, suffix.lower(), "") for name in plain))


def _optional_labels(file: Container, wanted: Sequence[str]) -> npt.NDArray | None:
    found = next((name for name in wanted if file.has(name)), None)
    if found is None:
        return None
    labels = file.values(found)
    if labels.dtype.kind in "iu":
        return labels
    warnings.warn(
        f"{file.name}: {found!r} has dtype {labels.dtype} and is not used as class labels.",
        VogcoreWarning,
        stacklevel=5,
    )
    return None
