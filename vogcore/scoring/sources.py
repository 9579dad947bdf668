"""Gradients that somebody else computed: an archive, an array, or a stream."""

from __future__ import annotations

import contextlib
import hashlib
import operator
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.data.labels import as_array, check_labels
from vogcore.errors import CheckpointError, DataError, GradientError, StoreError
from vogcore.scoring.positions import consecutive
from vogcore.store import CheckpointInfo, GradientArchive, GradientWriter, open_gradients

__all__ = ["EPS", "ArchiveGradients", "ArrayGradients", "as_numpy", "open_gradients_of", "spool"]

_BATCH_BYTES = 8 << 20
"""Bytes read at once: well beyond the cost of a call, well below the moments of a block."""
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Unit in the last place of the types that gradients come in."""


class ArrayGradients:
    """Gradients in an array (K, N, ...), NumPy or anything that slices like it (a tensor, an HDF5 data set)."""

    def __init__(self, array: Any) -> None:
        self._array = array
        if len(array.shape) < 3:
            raise GradientError(
                f"Gradients must have shape (checkpoints, examples, ...), but the array has shape {tuple(array.shape)}."
            )
        # The type as NumPy sees it: a tensor's own says nothing to NumPy.
        dtype = array.dtype if isinstance(array.dtype, np.dtype) else self._part(slice(0, 1), 0, 1).dtype
        if dtype.name not in EPS:
            raise GradientError(f"Gradients must be float16, float32 or float64, but the array is {dtype}.")
        self.shape = tuple(int(size) for size in array.shape[2:])
        if 0 in self.shape:
            raise GradientError(
                f"The array of gradients has shape {tuple(array.shape)}, so its examples hold no values."
            )
        self.n_examples = int(array.shape[1])
        self.eps = EPS[dtype.name]
        self.archive = None
        self.infos = [CheckpointInfo(name=f"checkpoint {k}") for k in range(array.shape[0])]
        self.names: Sequence[str] = [info.name for info in self.infos]
        self.device = "cpu"
        self.block_size = 1
        self._start = self.stop = 0
        self._rows = rows_at_once(self.shape, dtype.itemsize)

    def _part(self, checkpoint: int | slice, start: int, stop: int) -> npt.NDArray:
        return as_numpy(self._array[checkpoint, start:stop], "The array of gradients")

    def begin(self, start: int, stop: int) -> None:
        """See :class:`vogcore.scoring.run.Blocks`."""
        self._start, self.stop = start, stop

    def batches(self, checkpoint: int) -> Iterator[tuple[int, npt.NDArray]]:
        """See :class:`vogcore.scoring.run.Blocks`."""
        for start in range(self._start, self.stop, self._rows):
            yield start, self._part(checkpoint, start, min(start + self._rows, self.stop))

    def repeated(self) -> list[tuple[str, str]]:
        """Pairs of checkpoints with the same gradients."""
        return _repeated(self.names, self._part, self.n_examples, self._rows)


class ArchiveGradients:
    """Gradients in a vogcore archive.

    Args:
        archive: open for reading.
        order: the archive's index of every checkpoint, in the order of training; as stored by default.
    """

    def __init__(self, archive: GradientArchive, order: Sequence[int] | None = None) -> None:
        self.archive = archive
        self.order = range(archive.n_checkpoints) if order is None else order
        self.shape = archive.shape
        self.n_examples = archive.n_examples
        self.infos = [archive.checkpoints[index] for index in self.order]
        self.device = "cpu"
        self.names: Sequence[str] = [info.name or f"checkpoint {k}" for k, info in enumerate(self.infos)]
        self.eps = EPS[archive.dtype]
        self.block_size = archive.block_size
        self._start = self.stop = 0
        rows = rows_at_once(self.shape, 4 if archive.dtype == "float32" else 2)
        # Whole blocks of the archive: a block is read and its digest checked once.
        self._rows = max(rows // archive.block_size, 1) * archive.block_size

    def _part(self, checkpoint: int, start: int, stop: int) -> npt.NDArray:
        return self.archive.read(self.order[checkpoint], start, stop)

    def begin(self, start: int, stop: int) -> None:
        """See :class:`vogcore.scoring.run.Blocks`."""
        self._start, self.stop = start, stop

    def batches(self, checkpoint: int) -> Iterator[tuple[int, npt.NDArray]]:
        """See :class:`vogcore.scoring.run.Blocks`."""
        for start in range(self._start, self.stop, self._rows):
            yield start, self._part(checkpoint, start, min(start + self._rows, self.stop))

    def repeated(self) -> list[tuple[str, str]]:
        """Pairs of checkpoints with the same gradients."""
        return _repeated(self.names, self._part, self.n_examples, self._rows)


def open_gradients_of(
    stack: contextlib.ExitStack, gradients: Any, labels: Any, spool_folder: str | os.PathLike[str] | None
) -> tuple[ArchiveGradients | ArrayGradients, GradientArchive | None]:
    """Gradients in any of the forms that users give them, and the archive where its own labels and names count.

    Args:
        stack: closes what is opened.
        gradients: path of an archive, array (K, N, ...), or iterable of (checkpoint, start, block[, logits]).
        labels: labels of the examples (N,), which also tell their number for an iterable.
        spool_folder: where an iterable is kept meanwhile.

    Raises:
        CheckpointError: fewer than two checkpoints.
        DataError: an iterable without labels, or labels that are none.
        GradientError: no form of gradients, no examples, or a malformed stream.
        StoreError: an archive cannot be read, or a stream not be kept.
    """
    archive: GradientArchive | None = None
    source: ArchiveGradients | ArrayGradients
    if isinstance(gradients, str | os.PathLike):
        archive = stack.enter_context(open_gradients(gradients))
        source = ArchiveGradients(archive)
        where = os.fspath(gradients)
    elif hasattr(gradients, "shape") and hasattr(gradients, "dtype"):
        where = "gradients"
        if len(gradients.shape) > 1:
            _require_checkpoints(int(gradients.shape[0]), where)
            if not gradients.shape[1]:
                raise GradientError(f"There are no examples in gradients of shape {tuple(gradients.shape)}.")
        source = ArrayGradients(gradients)
    elif isinstance(gradients, Iterable):
        where = "gradients"
        if labels is None:
            raise DataError("A stream of gradients needs labels, which also say how many examples there are.")
        count = len(np.atleast_1d(as_array(labels, what="labels", where=where)))
        check_labels(labels, count, where=where)
        source = ArchiveGradients(*stack.enter_context(spool(gradients, count, spool_folder)))
    else:
        raise GradientError(
            f"Gradients were given as {type(gradients).__name__}; give the path of an archive, an array "
            "(checkpoints, examples, ...), or an iterable of (checkpoint, start, block)."
        )
    _require_checkpoints(len(source.names), where)
    return source, archive


def _require_checkpoints(count: int, where: str) -> None:
    if count < 2:
        raise CheckpointError(
            f"{where}: there is {count or 'no'} checkpoint, and the variance over fewer than two is not defined; give "
            "the gradients of at least two."
        )


def as_numpy(values: Any, what: str) -> npt.NDArray:
    """An array of anything that NumPy or DLPack converts, tensors that still carry their graph included.

    Raises:
        GradientError: NumPy cannot convert it.
    """
    detach = getattr(values, "detach", None)
    try:
        if not hasattr(values, "__array__") and hasattr(values, "__dlpack__"):
            return np.from_dlpack(values)
        return np.asarray(detach() if callable(detach) else values)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise GradientError(
            f"{what} cannot be turned into a NumPy array ({reason}); move it to the CPU, as float32."
        ) from error


def rows_at_once(shape: tuple[int, ...], itemsize: int) -> int:
    """Examples that make up a batch of a few megabytes."""
    return max(_BATCH_BYTES // max(int(np.prod(shape)) * itemsize, 1), 1)


def _repeated(
    names: Sequence[str], read: Callable[[int, int, int], npt.NDArray], n: int, rows: int
) -> list[tuple[str, str]]:
    """Pairs with the same bytes; all are read only where the first batch is the same."""

    def digest(checkpoint: int, start: int) -> bytes:
        part = np.ascontiguousarray(read(checkpoint, start, min(start + rows, n)))
        return hashlib.blake2b(part.reshape(-1).view(np.uint8).data).digest()

    first: dict[bytes, int] = {}
    pairs = []
    for index, name in enumerate(names):
        original = first.setdefault(digest(index, 0), index)
        if original != index and all(digest(original, at) == digest(index, at) for at in range(rows, n, rows)):
            pairs.append((names[original], name))
    return pairs


@contextlib.contextmanager
def spool(
    blocks: Iterable[tuple[int | str, int, Any]], n_examples: int, folder: str | os.PathLike[str] | None
) -> Iterator[tuple[GradientArchive, list[int]]]:
    """Write a stream of (checkpoint, start, block) to a temporary archive, so that any order of blocks will do.

    Memory stays bounded however the stream is ordered; the disk holds all gradients as float32 (float16 where the
    stream is float16) until the scores are made.

    Args:
        blocks: ``checkpoint`` is an index or a name, ``start`` the position of the block's first example or of all of
            them; a fourth member holds logits (b, C).
        n_examples: N.
        folder: where the temporary archive goes; the system's temporary folder by default.

    Yields:
        The archive, and its index of every checkpoint in the order of training: by index, or names as they first came.

    Raises:
        GradientError: a block is malformed, or some gradients are missing at the end.
        StoreError: the folder cannot be written to, or the disk is full.
    """
    try:
        target = Path(tempfile.mkdtemp(prefix="vogcore-spool-", dir=folder))
    except OSError as error:
        raise StoreError(
            f"A stream of gradients cannot be kept in {folder or tempfile.gettempdir()} meanwhile "
            f"({error.strerror or error}); choose another spool_folder."
        ) from error
    try:
        path = target / "gradients.h5"
        order = _write_stream(path, blocks, n_examples)
        with open_gradients(path) as archive:
            yield archive, order
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _write_stream(path: Path, blocks: Iterable[Any], n_examples: int) -> list[int]:
    writer: GradientWriter | None = None
    slots: dict[int | str, int] = {}
    try:
        for item in blocks:
            checkpoint, where, block, logits = _unpack(item, slots)
            if writer is None:
                writer = GradientWriter(path, n_examples, block.shape[1:], "float16" if _narrow(block) else "float32")
            elif writer.dtype == "float16" and not _narrow(block):
                raise GradientError(
                    f"Checkpoint {checkpoint!r}, examples from {where} on: the gradients are {block.dtype}, but the "
                    "stream began with float16; convert all of them to one type."
                )
            slots.setdefault(checkpoint, len(slots))
            for start, (rows, row_logits) in consecutive(where, (block, logits), f"A block of {checkpoint!r}"):
                assert rows is not None
                writer.write(_slot_name(checkpoint), start, rows)
                if row_logits is not None:
                    writer.write_logits(_slot_name(checkpoint), start, row_logits)
        if writer is None:
            raise GradientError("The stream of gradients is empty; yield (checkpoint, start, block) tuples.")
        order = _training_order(slots)
        writer.close()
    except (GradientError, StoreError) as error:
        # The temporary archive goes away, so what the writer says about keeping it does not hold here.
        if ".partial" in str(error):
            error.args = (f"{str(error).partition(';')[0].replace('archive', 'stream of gradients')}.",)
        raise
    finally:
        if writer is not None:
            with contextlib.suppress(GradientError, StoreError):
                writer.close()
    return order


def _narrow(block: npt.NDArray) -> bool:
    return block.dtype == np.float16


def _slot_name(checkpoint: int | str) -> str:
    return checkpoint if isinstance(checkpoint, str) else f"checkpoint {checkpoint}"


def _training_order(slots: dict[int | str, int]) -> list[int]:
    indices = sorted(key for key in slots if isinstance(key, int))
    if not indices:
        return list(slots.values())
    missing = next((place for place, index in enumerate(indices) if index != place), None)
    if missing is not None:
        raise GradientError(
            f"The stream of gradients has a checkpoint {indices[-1]} but none of index {missing}; number the "
            "checkpoints 0, 1, 2 and so on, or give names."
        )
    return [slots[index] for index in indices]


def _unpack(item: Any, slots: dict[int | str, int]) -> tuple[int | str, Any, npt.NDArray, npt.NDArray | None]:
    if not isinstance(item, tuple) or len(item) not in (3, 4):
        raise GradientError(
            "A stream of gradients yields tuples (checkpoint, start, block[, logits]): a checkpoint's index or name, "
            "the position of the first example (or of all of them), gradients (b, ...), and logits (b, C); it yielded "
            f"a {type(item).__name__}."
        )
    checkpoint, start, block = item[:3]
    array = as_numpy(block, f"The block of checkpoint {checkpoint!r}, examples from {start} on,")
    if array.ndim < 2 or array.dtype.kind != "f":
        raise GradientError(
            f"Checkpoint {checkpoint!r}, examples from {start} on: gradients must be floating-point numbers (b, ...), "
            f"but the block is {array.dtype} of shape {array.shape}."
        )
    key = checkpoint if isinstance(checkpoint, str) else _index("checkpoint", checkpoint)
    if any(isinstance(other, str) is not isinstance(key, str) for other in list(slots)[:1]):
        raise GradientError("A stream of gradients calls its checkpoints by index or by name, not by both.")
    logits = None
    if len(item) == 4 and item[3] is not None:
        logits = as_numpy(item[3], f"The logits of checkpoint {checkpoint!r}, examples from {start} on,")
    return key, start if np.ndim(start) == 1 else _index("position", start), array, logits


def _index(what: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < 0:
        raise GradientError(f"A stream of gradients gave the {what} {value!r}, which is no index from 0 on.")
    return operator.index(value)
