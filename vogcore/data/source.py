"""The example source behind every reader: runs of rows, checked and preprocessed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from vogcore._types import ExampleSource
from vogcore.data._files import Rows
from vogcore.data.digests import ExampleDigests
from vogcore.data.labels import check_class_names, check_ids, check_labels
from vogcore.data.preprocess import Preprocess
from vogcore.errors import DataError, VogcoreWarning

__all__ = ["ArraySource", "SourceRows"]

_HASH_BLOCK_BYTES = 16 << 20
_WIDEST_FLOAT = 8


class SourceRows:
    """Another example source as rows, so that labels, ids or preprocessing can be put on top of it.

    Attributes:
        shape: (N, ...).
        dtype: type of the values that the source gives.
    """

    def __init__(self, source: ExampleSource) -> None:
        self.source = source
        self.shape: tuple[int, ...] = (len(source), *source.shape)
        self.dtype: np.dtype = np.dtype(source.dtype)

    def __getitem__(self, key: slice, /) -> npt.NDArray:
        """The examples of a slice with start and stop."""
        return self.source.read(key.start, key.stop)


class ArraySource:
    """Examples from anything that is sliced along its first axis: an array, a memory map, rows of a file.

    The rows are not copied: do not change them while the source is in use. Labels, ids and class names are copied.

    Args:
        rows: examples (N, ...), real numbers (bool, integer, or float of at most 64 bits) in any byte order.
        labels: class indices (N,) or (N, 1), any integer type.
        ids: unique ids (N,), integers or text.
        class_names: names of the classes in index order.
        preprocess: applied to every block.
        name: what the user calls the source.
        close: called by :meth:`close`.

    Attributes:
        name: as given.
        shape: shape of one example after preprocessing.
        dtype: type of the values that :meth:`read` gives: float32 with preprocessing, else the stored type in native
            byte order.
        labels: int64 (N,), read-only, or None.
        ids: int64 or str (N,), read-only, or None for positions.
        class_names: list of str, or None.
        preprocess: as given.
        feature_names: names of the values of one example, for readers that know them (columns of a table), or None.

    Raises:
        DataError: no examples, a type that is not real numbers, or labels, ids, class names or preprocessing that do
            not fit the examples.
    """

    def __init__(
        self,
        rows: Rows,
        labels: Any = None,
        *,
        ids: Any = None,
        class_names: Sequence[str] | npt.NDArray | None = None,
        preprocess: Preprocess | None = None,
        name: str = "array",
        close: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._rows = rows
        self._close = close
        self._fingerprint: str | None = None
        self._note = ""
        self._n = _check_rows(rows, name)
        self._stored_shape = tuple(int(length) for length in rows.shape[1:])
        self._stored_dtype = rows.dtype.newbyteorder("=")
        # Rows that code makes, such as decoded images, can change; those of an array cannot, and save the time.
        self._verified = getattr(rows, "verified", False)
        self._digests = ExampleDigests(self._n, self._stored_shape, self._stored_dtype)
        self.labels: npt.NDArray[np.int64] | None = None
        self.ids: npt.NDArray | None = None
        self.class_names: list[str] | None = None
        self.feature_names: list[str] | None = None
        self._set(labels, ids, class_names, preprocess)

    def _set(self, labels: Any, ids: Any, class_names: Any, preprocess: Preprocess | None) -> None:
        if labels is not None:
            self.labels = check_labels(labels, self._n, where=self.name)
        if ids is not None:
            self.ids = check_ids(ids, self._n, where=self.name)
        if class_names is not None:
            self.class_names = check_class_names(class_names, self.labels, where=self.name)
        elif self.class_names is not None and labels is not None:
            check_class_names(self.class_names, self.labels, where=self.name)
        self.preprocess = preprocess
        self.shape: tuple[int, ...] = self._stored_shape
        self.dtype: np.dtype = self._stored_dtype
        if preprocess is not None:
            self.shape = preprocess.output_shape(self._stored_shape, where=self.name)
            self.dtype = np.dtype(np.float32)

    def with_changes(
        self,
        labels: Any = None,
        *,
        ids: Any = None,
        class_names: Sequence[str] | npt.NDArray | None = None,
        preprocess: Preprocess | None = None,
    ) -> ArraySource:
        """The same examples with other labels, ids or class names, or with one more preprocessing step.

        Raises:
            DataError: what is given does not fit the examples.
        """
        if preprocess is not None and self.preprocess is not None:
            return wrap(self, labels, ids=ids, class_names=class_names, preprocess=preprocess)
        changed = copy.copy(self)
        changed._fingerprint, changed._note = None, ""
        changed._set(labels, ids, class_names, preprocess or self.preprocess)
        return changed

    def __len__(self) -> int:
        """Number of examples N."""
        return self._n

    def __repr__(self) -> str:
        labelled = "no labels" if self.labels is None else f"labels up to {self.labels.max()}"
        return f"<ArraySource {self.name}: {self._n} examples {self.shape} {self.dtype}, {labelled}>"

    def read(self, start: int, stop: int) -> npt.NDArray:
        """Examples `start` to `stop` (exclusive).

        Args:
            start: first position, 0 to N.
            stop: one past the last position, `start` to N.

        Returns:
            (stop - start, *shape), C-contiguous, native byte order; it may share memory with the source, so it is not
            writable.

        Raises:
            DataError: a range outside the source, a value that is not finite (the message names the example), or a
                file that cannot be read there.
        """
        raw = self._read_stored(start, stop)
        self._check_finite(raw, start, "is not finite")
        if self.preprocess is None:
            block = raw.view()
        else:
            block = self.preprocess.apply(raw, where=self.name)
            self._check_finite(block, start, "is not finite after preprocessing, that is, too large for float32")
        block.flags.writeable = False
        return block

    def _read_stored(self, start: int, stop: int) -> npt.NDArray:
        if not 0 <= start <= stop <= self._n:
            raise DataError(f"{self.name}: examples {start} to {stop} were asked for and there are {self._n}.")
        raw = np.require(self._rows[start:stop], dtype=self._stored_dtype, requirements=["C", "A", "E"])
        if raw.shape != (stop - start, *self._stored_shape):
            raise DataError(
                f"{self.name}: examples {start} to {stop} came with shape {raw.shape} instead of "
                f"{(stop - start, *self._stored_shape)}."
            )
        if self._verified:
            self._digests.add(start, raw, where=self.name)
        return raw

    def _check_finite(self, block: npt.NDArray, start: int, what: str) -> None:
        if block.dtype.kind != "f":
            return
        finite = np.isfinite(block)
        if finite.all():
            return
        at, *index = (int(axis) for axis in np.unravel_index(int(np.argmin(finite)), block.shape))
        position = start + at
        raise DataError(
            f"{self.name}: example {self._named(position)} holds {block[(at, *index)]} at {tuple(index)}, which "
            f"{what}: repair or drop it."
        )

    def _named(self, position: int) -> str:
        return str(position) if self.ids is None else f"{position} (id {self.ids[position].item()!r})"

    def fingerprint(self) -> str:
        """Hex SHA-256 over shape, dtype and bytes of the examples, the labels and the preprocessing.

        It does not depend on the kind of file, its compression or the byte order of its values, nor on ids and names.
        The examples are read once, in blocks, or not at all where an earlier pass has read them all in order; the
        result is kept. A :class:`~vogcore.errors.VogcoreWarning` says how many examples are copies of others.

        Raises:
            DataError: the examples cannot be read.
        """
        if self._fingerprint is None:
            self.fingerprint_examples()
            digest = self._digests.copy_hash()
            if isinstance(self._rows, SourceRows):
                # A source of the user's knows best, and perhaps without decoding everything, when its examples change.
                digest = hashlib.sha256(b"vogcore examples 1\nsource" + self._rows.source.fingerprint().encode())
            digest.update(b"no labels" if self.labels is None else b"labels" + self.labels.astype("<i8").tobytes())
            settings = None if self.preprocess is None else self.preprocess.to_dict()
            digest.update(json.dumps(settings, sort_keys=True).encode())
            self._fingerprint = digest.hexdigest()
            self._warn_of_copies()
        return self._fingerprint

    def fingerprint_examples(self) -> None:
        """Read what the fingerprint still needs: everything, or what no earlier pass in order has read.

        Raises:
            DataError: the examples cannot be read.
        """
        if isinstance(self._rows, SourceRows):
            return
        example_bytes = max(1, math.prod(self._stored_shape) * self._stored_dtype.itemsize)
        step = max(1, _HASH_BLOCK_BYTES // example_bytes)
        while self._digests.next < self._n:
            start = self._digests.next
            block = self._read_stored(start, min(start + step, self._n))
            if not self._verified:
                self._digests.add(start, block, where=self.name)

    def _warn_of_copies(self) -> None:
        copies = self._digests.copies(self.labels)
        if copies is None:
            return
        others = f", {copies.relabelled} of them with another label" if copies.relabelled else ""
        self._note = (
            f"{self.name}: {copies.copies} of {self._n} examples are copies of earlier ones{others}; the first pair is "
            f"{self._named(copies.first)} and {self._named(copies.second)}."
        )
        warnings.warn(self._note, VogcoreWarning, stacklevel=3)

    @property
    def notes(self) -> list[str]:
        """What a reader of the scores must know about the examples; filled in by :meth:`fingerprint`."""
        inner = getattr(self._rows.source, "notes", []) if isinstance(self._rows, SourceRows) else []
        return [*inner, *([self._note] if self._note else [])]

    def close(self) -> None:
        """Let go of the file behind the source, where there is one."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def wrap(
    source: ExampleSource,
    labels: Any = None,
    *,
    ids: Any = None,
    class_names: Sequence[str] | npt.NDArray | None = None,
    preprocess: Preprocess | None = None,
    rows: Rows | None = None,
) -> ArraySource:
    """Any example source with other labels, ids or class names, or with preprocessing on top of its own.

    Args:
        source: the source.
        labels, ids, class_names: instead of those of the source.
        preprocess: on top of that of the source.
        rows: instead of the examples of the source, as many.

    Raises:
        DataError: what is given, or what the source itself has, does not fit its examples.
    """
    wrapped = ArraySource(
        SourceRows(source) if rows is None else rows,
        source.labels if labels is None else labels,
        ids=source.ids if ids is None else ids,
        class_names=source.class_names if class_names is None else class_names,
        preprocess=preprocess,
        name=source.name,
        close=getattr(source, "close", None),
    )
    if rows is None:
        wrapped.feature_names = getattr(source, "feature_names", None)
    return wrapped


def _check_rows(rows: Rows, name: str) -> int:
    """Number of examples, once they are known to be real numbers."""
    dtype = np.dtype(rows.dtype)
    if dtype.hasobject:
        raise DataError(f"{name}: the examples are Python objects (dtype {dtype}): convert them to one numeric array.")
    if dtype.kind not in "biuf" or dtype.itemsize > _WIDEST_FLOAT:
        raise DataError(
            f"{name}: the examples have dtype {dtype}: they must be real numbers of at most 64 bits, such as "
            "float32 or uint8."
        )
    if len(rows.shape) == 0:
        raise DataError(f"{name}: the examples are a single number: the first axis must run over examples.")
    if rows.shape[0] == 0:
        raise DataError(f"{name}: there are 0 examples (shape {tuple(rows.shape)}).")
    if 0 in rows.shape:
        raise DataError(f"{name}: the examples hold no values (shape {tuple(rows.shape)}).")
    return int(rows.shape[0])
