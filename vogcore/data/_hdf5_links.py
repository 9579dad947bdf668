"""What an HDF5 file of somebody else's may lead to: data of its own, and files in its own folder.

Links and virtual data sets are followed here before HDF5 follows them, since HDF5 opens any file that they name.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import h5py

from vogcore._hdf5_headers import HeaderError
from vogcore._hdf5_heaps import check_object_heaps
from vogcore._hdf5_storage import storage_problem
from vogcore.errors import DataError

__all__ = ["checked_dataset", "leads_to_dataset"]

_MOST_STEPS = 16
"""Links behind links, and virtual data sets made of virtual ones."""


def leads_to_dataset(file: h5py.File, name: str, where: str) -> bool:
    """Whether there is a data set under this path, links followed; it is not opened.

    Raises:
        DataError: a link leads out of the folder, or round and round, or to something damaged.
    """
    try:
        return bool(_follow(file, name, where, 0))
    except HeaderError as error:
        raise _damaged(where, error) from error


def checked_dataset(file: h5py.File, name: str, where: str, steps: int = 0) -> h5py.Dataset:
    """The data set, opened once it is known that this and reading it lead nowhere else.

    Args:
        file: open for reading.
        name: path of the data set.
        where: what messages call it.
        steps: virtual data sets that led here.

    Raises:
        DataError: it is missing, damaged or without values; it claims more than the file can hold, or values that were
            never written; it keeps them in files outside of its folder, or in raw ones.
    """
    try:
        if not _follow(file, name, where, steps):
            raise KeyError(name)
        dataset: Any = file[name]
        shape = dataset.shape
        if shape is None:
            raise DataError(f"{where} is a data set without values.")
        if dataset.is_virtual:
            _check_virtual(dataset, Path(file.filename), where, steps)
        else:
            _check_storage(dataset, where)
    except HeaderError as error:
        raise _damaged(where, error) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where} cannot be opened, so the file is damaged: write or copy it again "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})."
        ) from error
    return dataset


def _damaged(where: str, error: HeaderError) -> DataError:
    return DataError(f"{where} cannot be read: {error}; write or copy the file again.")


def _check_storage(dataset: h5py.Dataset, where: str) -> None:
    if dataset.external:
        # HDF5 reads zeros, without an error, where such a file is too short.
        raise DataError(f"{where} keeps its values in other files: copy them into one HDF5 file.")
    problem = storage_problem(dataset, os.path.getsize(dataset.file.filename), any_filter=True)
    if problem is not None:
        raise DataError(f"{where} {problem}: write the file again.")


def _inside(folder: Path, name: str) -> Path | None:
    """The file of this name, if it is in the folder or below it; None where it is missing."""
    path = folder / name
    real = Path(os.path.realpath(path))
    if os.path.isabs(name) or not real.is_relative_to(os.path.realpath(folder)):
        raise DataError(
            f"{name!a} lies outside of the folder of the file that refers to it, and is not opened: copy it into one "
            "HDF5 file, or put it beside it and refer to it by its name."
        )
    return path if real.is_file() else None


def _follow(file: h5py.File, name: str, where: str, steps: int) -> bool | None:
    """Follow a path, and check what HDF5 reads when it does: whether it ends at a data set, None where nothing is."""
    if steps > _MOST_STEPS:
        raise DataError(f"{where} is behind more than {_MOST_STEPS} links: copy it into one HDF5 file.")
    node: Any = file
    is_dataset = check_object_heaps(file.filename)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for at, part in enumerate(parts):
        link = None if is_dataset else node.get(part, getlink=True)
        if link is None:
            return None
        rest = "/".join(parts[at + 1 :])
        if isinstance(link, h5py.SoftLink):
            target = link.path if link.path.startswith("/") else f"{node.name}/{link.path}"
            return _follow(file, f"{target}/{rest}", where, steps + 1)
        if isinstance(link, h5py.ExternalLink):
            path = _named_inside(file, link.filename, where)
            if path is None:
                return None
            with h5py.File(path, "r") as other:
                return _follow(other, f"{link.path}/{rest}", where, steps + 1)
        is_dataset = check_object_heaps(file.filename, node.id.links.get_info(part.encode()).u)
        if rest:
            node = node[part]
            is_dataset = not isinstance(node, h5py.Group)
    return is_dataset


def _named_inside(file: h5py.File, name: str, where: str) -> Path | None:
    try:
        return _inside(Path(file.filename).parent, name)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _check_virtual(dataset: h5py.Dataset, file: Path, where: str, steps: int) -> None:
    """Refuse a virtual data set with a missing part: HDF5 would give fill values there, without an error."""
    if steps > _MOST_STEPS:
        raise DataError(f"{where} is behind more than {_MOST_STEPS} links: copy it into one HDF5 file.")
    covered: float = 0
    for part in dataset.virtual_sources():
        if "%" in part.file_name or "%" in part.dset_name:
            raise DataError(
                f"{where} is virtual with patterns as names, which cannot be checked: copy it into one file."
            )
        path = file if part.file_name == "." else _named_inside(dataset.file, part.file_name, where)
        held = None if path is None else _held(path, part.dset_name, where, steps)
        if held is None:
            raise DataError(
                f"{where} is virtual and its part {part.dset_name!r} in {part.file_name} is missing: restore that file."
            )
        if not _holds_selection(part, held):
            raise DataError(
                f"{where} is virtual and its part {part.dset_name!r} in {part.file_name} has only shape {held}: "
                "restore that file."
            )
        covered += _points(part.vspace)
    if covered < math.prod(dataset.shape):
        raise DataError(f"{where} is virtual and no file holds some of its values: write the file again.")


def _held(path: Path, name: str, where: str, steps: int) -> tuple[int, ...] | None:
    """Shape of a part of a virtual data set; None where it is missing."""
    try:
        with h5py.File(path, "r") as source:
            if not leads_to_dataset(source, name, where):
                return None
            shape: tuple[int, ...] = checked_dataset(source, name, where, steps + 1).shape
    except (OSError, KeyError, RuntimeError):
        return None
    return shape


def _points(space: Any) -> float:
    """Values in a selection; without a limit it ends where its sources end, so it leaves none out."""
    try:
        return int(space.get_select_npoints())
    except (RuntimeError, ValueError):
        return math.inf


def _holds_selection(part: Any, held: tuple[int, ...]) -> bool:
    """Whether a source of shape `held` has all the values that a virtual data set takes from it."""
    source = part.src_space
    if source.get_select_type() == h5py.h5s.SEL_ALL:
        # "All" is stored without the shape that it had, so only the number of values can be compared.
        return math.prod(held) >= part.vspace.get_select_npoints()
    try:
        ends = source.get_select_bounds()[1]
    except (RuntimeError, ValueError):
        return True  # an unlimited selection: the virtual data set ends where its sources end
    return len(ends) == len(held) and all(end < length for end, length in zip(ends, held))
