"""HDF5 with every part checked before it is read, so that a damaged or foreign file ends in one clear sentence."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vogcore._hdf5_chunks import ChunkCheck
from vogcore._hdf5_heaps import check_object_heaps
from vogcore._hdf5_storage import storage_problem
from vogcore._paths import reason
from vogcore.errors import StoreError
from vogcore.store.schema import FORMAT_MAJOR, FORMAT_VERSION, GRADIENTS_FORMAT, LIVE_FORMAT, SCORES_FORMAT

__all__ = ["Reader", "encode_strings", "file_image", "to_json", "write_header"]

_LONGEST_TEXT = 64 << 20
"""Bytes of a string attribute: far more than settings with a million checkpoints take."""
_DEEPEST_JSON = 64
"""Whoever reads the settings may go through them by recursion."""
_KINDS = {
    SCORES_FORMAT: ("score file", "vogcore.open_scores"),
    GRADIENTS_FORMAT: ("gradient archive", "vogcore.store.open_gradients"),
    LIVE_FORMAT: ("file of a live run", "vogcore.LiveScorer.open, which takes its folder"),
}


def encode_strings(values: list[str], what: str) -> npt.NDArray:
    """Strings as an HDF5 array of fixed-length UTF-8.

    Raises:
        StoreError: a string holds a NUL character or is not valid Unicode.
    """
    try:
        encoded = [value.encode("utf-8") for value in values]
    except UnicodeEncodeError as error:
        raise StoreError(f"Cannot write {what}: {error.object!r} is not valid Unicode; rename it.") from error
    bad = next((value for value in encoded if b"\0" in value), None)
    if bad is not None:
        raise StoreError(f"Cannot write {what}: {bad.decode()!r} holds a NUL character; rename it.")
    length = max((len(value) for value in encoded), default=1) or 1
    return np.array(encoded, dtype=f"S{length}").astype(h5py.string_dtype("utf-8", length))


def _plain(value: Any) -> Any:
    """What JSON can hold: NumPy types as Python's, NaN and infinity as null, anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def to_json(value: Any) -> str:
    """JSON text (ASCII) of settings and the like; NaN and infinity become null, odd types their text."""
    return json.dumps(_plain(value))


def file_image(fill: Callable[[h5py.File], None]) -> memoryview:
    """The bytes of a file that ``fill`` writes into, built in memory.

    The file is closed before its bytes are taken: in HDF5 1.14 and before, the image of an open file has a superblock
    whose checksum is wrong, which nothing can open.
    """
    buffer = io.BytesIO()
    # From 1.8 on, HDF5 keeps attributes of more than 64 KB (thousands of checkpoints).
    with h5py.File(buffer, "w", libver=("v108", "v108")) as file:
        fill(file)
    return buffer.getbuffer()  # no copy: with many checkpoints it is as large as all predictions


def write_header(file: h5py.File, kind: str, version: str, created: str, settings: Mapping[str, Any]) -> None:
    """The root attributes that every file has."""
    file.attrs["format"] = kind
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["vogcore_version"] = version
    file.attrs["created"] = created
    file.attrs["settings"] = to_json(settings)


def shown(text: str) -> str:
    """A text of somebody else's in a message: short, and without characters that a terminal would obey."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


def _depth(value: Any) -> int:
    """How deep lists and objects are nested."""
    depth, level = 0, [value]
    while level := [node for node in level if isinstance(node, dict | list)]:
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        depth += 1
    return depth


class Reader:
    """An HDF5 file of one of our formats, open for reading.

    Args:
        path: the file.
        kind: its format, or None for any of ours.

    Attributes:
        path: the file.
        kind: its format.
        file: the open ``h5py.File``.

    Raises:
        StoreError: missing, not HDF5, truncated, of another format or of a newer major version.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str | None) -> None:
        self.path = Path(path)
        self.noun = _KINDS[kind][0] if kind is not None else "file of vogcore"
        self._checked: set[int | None] = set()
        self.file = self._open()
        try:
            self._size = self.path.stat().st_size
            with self.guard("its root group"):
                self._check_heaps(None)
            self.kind = self._check_header(kind)
        except BaseException:
            self.file.close()
            raise

    def _open(self) -> h5py.File:
        if not self.path.exists():
            raise StoreError(f"Cannot open {self.path}: there is no such file.")
        if not self.path.is_file():
            raise StoreError(f"Cannot open {self.path}: it is not a file; give the name of a {self.noun}.")
        try:
            with open(self.path, "rb") as raw:
                signed = raw.read(8) == b"\x89HDF\r\n\x1a\n"
        except OSError as error:
            raise StoreError(f"Cannot open {self.path}: {reason(error)}.") from error
        if not signed:
            raise StoreError(f"{self.path} is not an HDF5 file; give the name of a {self.noun}.")
        try:
            # A file has its final name only when it is complete, so there is no writer to lock out, and network
            # file systems without locks work.
            return h5py.File(self.path, "r", locking=False)
        except (OSError, RuntimeError) as error:
            raise self.damaged("HDF5 cannot open it, so it is cut short or was never completed") from error

    def _check_header(self, kind: str | None) -> str:
        found: str | None = self.string_attribute(self.file, "format", default=None)
        if found is None or found not in ((kind,) if kind is not None else _KINDS):
            if found in _KINDS:
                noun, opener = _KINDS[found]
                raise StoreError(f"{self.path} is a {noun}, not a {self.noun}; open it with {opener}.")
            noun = "file" if kind is None else self.noun
            raise StoreError(f"{self.path} is HDF5 but not a {noun} of vogcore; give the name of one.")
        version = self.string_attribute(self.file, "format_version")
        if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", version):
            raise self.damaged(f"its format_version is {shown(version)}")
        writer = self.string_attribute(self.file, "vogcore_version")
        if int(version.partition(".")[0]) > FORMAT_MAJOR:
            known = writer if re.fullmatch(r"[0-9A-Za-z.+!-]{1,40}", writer) else "of a version that knows it"
            raise StoreError(
                f"{self.path} has format version {version} and this vogcore reads up to {FORMAT_MAJOR}.x; "
                f"use vogcore {known} or newer."
            )
        return found

    def damaged(self, what: str) -> StoreError:
        """The error for a file that is not as the format says."""
        return StoreError(f"{self.path} is damaged: {what}; write it again or restore it from a copy.")

    @contextlib.contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Turn whatever HDF5, NumPy or JSON raise on a damaged file into a StoreError."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
            raise self.damaged(f"{what} cannot be read ({reason(error)})") from error

    # Attributes

    def string_attribute(self, node: Any, name: str, default: Any = ...) -> Any:
        """A string attribute; ``default`` where it is missing."""
        where = f"attribute {name} of {node.name}"
        with self.guard(where):
            if name not in node.attrs:
                if default is ...:
                    raise self.damaged(f"{where} is missing")
                return default
            header = node.attrs.get_id(name)
            text = h5py.check_string_dtype(header.dtype)
            if text is None or header.shape != ():
                raise self.damaged(f"{where} is not a string")
            if (text.length or 0) > min(self._size, _LONGEST_TEXT):
                raise self.damaged(f"{where} is longer than the file")
            value = node.attrs[name]
            return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def json_attribute(self, name: str, kind: type, default: Any = ...) -> Any:
        """A root attribute that holds JSON: an object or an array, as ``kind`` (dict or list) says."""
        text = self.string_attribute(self.file, name, None if default is not ... else ...)
        if text is None:
            return default
        with self.guard(f"attribute {name} of /"):
            value = json.loads(text)
        if _depth(value) > _DEEPEST_JSON:
            raise self.damaged(f"attribute {name} of / is nested more than {_DEEPEST_JSON} deep")
        if not isinstance(value, kind):
            raise self.damaged(f"attribute {name} of / is not a JSON {'object' if kind is dict else 'array'}")
        return value

    def number_attribute(self, node: Any, name: str, default: Any = ..., *, rank: int = 0) -> Any:
        """A numeric attribute: a Python number (rank 0) or an array (rank 1)."""
        where = f"attribute {name} of {node.name}"
        with self.guard(where):
            if name not in node.attrs:
                if default is ...:
                    raise self.damaged(f"{where} is missing")
                return default
            header = node.attrs.get_id(name)
            if header.dtype.kind not in "iufb" or len(header.shape) != rank:
                raise self.damaged(f"{where} is not {'a number' if rank == 0 else 'a list of numbers'}")
            if math.prod(header.shape) * header.dtype.itemsize > self._size:
                raise self.damaged(f"{where} is larger than the file")
            value = np.asarray(node.attrs[name])
        return value.item() if rank == 0 else value

    # Groups and datasets

    def group(self, path: str) -> Any:
        """The group at ``path``, or None where nothing is there."""
        return self._node(path, h5py.Group, "a group")

    def _node(self, path: str, kind: type, noun: str) -> Any:
        node: Any = self.file
        with self.guard(path):
            for part in path.split("/"):
                link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
                if link is None:
                    return None
                if not isinstance(link, h5py.HardLink):
                    raise self.damaged(f"{path} is a link to another place, not data of this file")
                self._check_heaps(node.id.links.get_info(part.encode()).u)
                node = node[part]
            if not isinstance(node, kind):
                raise self.damaged(f"{path} is not {noun}")
        return node

    def _check_heaps(self, address: int | None) -> None:
        """What an object keeps in heaps (strings, the layout of virtual data) is checked before libhdf5 opens it."""
        if address not in self._checked:
            check_object_heaps(self.path, address)
            self._checked.add(address)

    def names(self, path: str) -> list[str]:
        """Names of the members of a group; none where it is missing."""
        group = self.group(path)
        with self.guard(path):
            return [] if group is None else list(group)

    def dataset(
        self,
        path: str,
        types: tuple[str, ...],
        shape: tuple[int | None, ...] | None,
        need: bool = True,
        partial: bool = False,
    ) -> Any:
        """A dataset whose header has been checked; its values have not been read yet.

        Args:
            path: where it is.
            types: allowed types: NumPy codes without byte order ("f8"), or "S" for fixed-length strings.
            shape: expected shape, None for a length that may be anything; None alone for any shape.
            need: False returns None where the dataset is missing, instead of raising.
            partial: True for a dataset that need not be written in full.
        """
        node = self._node(path, h5py.Dataset, "a dataset")
        if node is None:
            if need:
                raise self.damaged(f"{path} is missing")
            return None
        with self.guard(path):
            self._check_type(path, node, types)
            actual = node.shape
            if actual is None:
                raise self.damaged(f"{path} is empty")
            if shape is not None and not (
                len(actual) == len(shape)
                and all(want in (None, have) for want, have in zip(shape, actual, strict=True))
            ):
                expected = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
                raise self.damaged(f"{path} has shape {actual}, not {expected}")
            problem = storage_problem(node, self._size, partial=partial)
            if problem is not None:
                raise self.damaged(f"{path} {problem}")
        return node

    def _check_type(self, path: str, node: h5py.Dataset, types: tuple[str, ...]) -> None:
        text = h5py.check_string_dtype(node.dtype)
        if text is not None:
            found = "S" if text.length is not None else "variable-length strings"
        else:
            plain = node.dtype.fields is None and node.dtype.subdtype is None and node.dtype.kind in "iufb"
            found = f"{node.dtype.kind}{node.dtype.itemsize}" if plain else str(node.dtype)
        if found not in types:
            names = " or ".join("fixed-length strings" if t == "S" else str(np.dtype(t)) for t in types)
            have = "fixed-length strings" if found == "S" else str(node.dtype) if text is None else found
            raise self.damaged(f"{path} holds {have}, not {names}")

    def chunk_check(self, node: Any) -> ChunkCheck:
        """Checks the chunks of a dataset behind filters, before they are read."""
        return ChunkCheck(node)

    def values(self, path: str, node: Any) -> npt.NDArray:
        """All values of a dataset that :meth:`dataset` returned, as they are stored."""
        with self.guard(path):
            self.chunk_check(node).rows(0, node.shape[0] if node.shape else 0)
            return np.asarray(node[()])

    def read(self, path: str, dtype: str, shape: tuple[int | None, ...], need: bool = True) -> Any:
        """All values of a dataset as an array of exactly this type, in native byte order."""
        node = self.dataset(path, (dtype,), shape, need)
        if node is None:
            return None
        return self.values(path, node).astype(np.dtype(dtype), copy=False)

    def read_strings(self, path: str, shape: tuple[int | None, ...]) -> npt.NDArray[np.str_]:
        """All values of a dataset of fixed-length UTF-8 strings."""
        node = self.dataset(path, ("S",), shape)
        values = self.values(path, node).astype(f"S{node.dtype.itemsize}")
        with self.guard(path):
            return np.char.decode(values, "utf-8")

    def read_ids(self, n: int | None) -> npt.NDArray:
        """``examples/id``: int64 or strings."""
        node = self.dataset("examples/id", ("i8", "S"), (n,))
        if node.dtype.kind == "i":
            return np.asarray(self.read("examples/id", "i8", (n,)))
        return self.read_strings("examples/id", (n,))

    def close(self) -> None:
        """Close the file."""
        self.file.close()
