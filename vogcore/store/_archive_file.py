"""The file of a gradient archive under way: begun or gone on with, grown by checkpoints, marked as far as is safe."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from vogcore._paths import reason
from vogcore.errors import OutputExistsError, StoreError, VogcoreWarning
from vogcore.store._blocks import BFLOAT16, DIGEST, stored_type
from vogcore.store._compression import filter_options
from vogcore.store._container import Container
from vogcore.store._dataset import BlockDataset
from vogcore.store._hdf5 import to_json, write_header
from vogcore.store._resume import Contents, differences
from vogcore.store._tables import write_checkpoints, write_classes, write_examples
from vogcore.store.schema import GRADIENTS_FORMAT
from vogcore.store.scores import CheckpointInfo, now, version

__all__ = ["ArchiveFile"]


class ArchiveFile:
    """The .partial file of an archive, locked against other writers until it is closed.

    What changes the file, and the datasets apart from their ``coverage``, belongs to one thread at a time.

    Args:
        path: the file; it counts as begun when :meth:`grow` was called for the first time.
        contents: everything that is decided when an archive is begun.
        resume: go on with a file of the same contents.
        overwrite: replace a file that cannot be gone on with.

    Attributes:
        path: the file.
        checkpoints: those in the file.
        gradients: its gradients.
        logits: its logits, or None where there are none so far.
        begun: whether an earlier run has begun it, or this one.

    Raises:
        OSError, RuntimeError: the system or HDF5 refused.
        OutputExistsError: the file exists and is not to be replaced, or another process is writing it.
        StoreError: it is damaged, or cannot be written.
    """

    def __init__(self, path: Path, contents: Contents, *, resume: bool, overwrite: bool) -> None:
        self.path, self._contents = path, contents
        self._compression = filter_options(contents.compression)
        self.checkpoints: list[CheckpointInfo] = []
        self.logits: BlockDataset | None = None
        self._digest = DIGEST
        self._container = self._claim(resume, overwrite)
        try:
            self.gradients = self._dataset("gradients", "", stored_type(contents.dtype)[1], contents.shape)
            if self.begun:
                self._adopt()
        except BaseException:
            self.close()
            raise

    @property
    def begun(self) -> bool:
        """See above."""
        return not self._container.empty

    @property
    def datasets(self) -> list[BlockDataset]:
        """The gradients, and the logits where there are some."""
        return [self.gradients] + ([self.logits] if self.logits is not None else [])

    def _claim(self, resume: bool, overwrite: bool) -> Container:
        """The file, new or to be gone on with, and locked."""
        try:
            container = Container(self.path, create=True)
        except OSError as error:
            raise StoreError(f"Cannot write {self.path}: {reason(error)}.") from error
        try:
            if not (container.empty or resume or overwrite):
                raise OutputExistsError(
                    f"{self.path} is left from an earlier run; go on with it (resume=True), move or delete it, or "
                    "replace it (overwrite=True, on the command line --overwrite)."
                )
            different = None if container.empty else self._difference(resume, overwrite)
            if different is not None:
                if not overwrite:
                    raise OutputExistsError(
                        f"{self.path} is left from a run that cannot be gone on with: {different}; do as before, move "
                        "or delete the file, or replace it (overwrite=True, on the command line --overwrite)."
                    )
                container.clear()
                self._digest = DIGEST
        except BaseException:
            container.close()
            raise
        return container

    def _difference(self, resume: bool, overwrite: bool) -> str | None:
        if not resume:
            return "it is not to be resumed"
        try:
            found = Contents.read(self.path)
        except StoreError:
            if overwrite:
                return "it is damaged"
            raise
        self._digest = found.digest
        return differences(found, self._contents)

    def _dataset(self, name: str, prefix: str, dtype: np.dtype, shape: tuple[int, ...]) -> BlockDataset:
        contents = self._contents
        return BlockDataset(
            self._container, name, prefix, dtype, contents.n_examples, shape, contents.block_size, self._compression,
            self._digest,
        )  # fmt: skip

    def _adopt(self) -> None:
        """Take over what an earlier run has left."""
        self.checkpoints = Contents.checkpoints(self.path)
        with h5py.File(self.path, "r", locking=False) as file:
            self.gradients.adopt(file)
            if "logits" in file:
                self.logits = self.new_logits(file["logits"].shape[2])
                self.logits.adopt(file)
        if self._container.cut_from is None:
            return
        for blocks in self.datasets:
            lost = blocks.forget(self._container.cut_from)
            if lost:
                checkpoint, block = lost[0]
                first = block * self._contents.block_size
                warnings.warn(
                    f"{self.path} was cut short: {len(lost)} of its blocks of {blocks.name} are lost, the first at "
                    f"checkpoint {self.checkpoints[checkpoint].name!r} from example {first} on; they have to be "
                    "written again.",
                    VogcoreWarning,
                    stacklevel=4,
                )
            blocks.mark()
        self._container.settle()

    def new_logits(self, n_logits: int) -> BlockDataset:
        """Logits for :meth:`grow` to make."""
        return self._dataset("logits", "logits_", np.dtype("<f4"), (n_logits,))

    def grow(self, checkpoints: Sequence[CheckpointInfo], logits: BlockDataset | None = None) -> None:
        """Room for these checkpoints, and their names, in the file, and for logits if given; all of it at once.

        Raises:
            OSError, RuntimeError: the system or HDF5 refused.
            StoreError: the disk is too small; nothing has changed.
        """
        k = len(checkpoints)
        created = ([] if self.begun else [self.gradients]) + ([] if logits is None else [logits])
        growing = created + [blocks for blocks in self.datasets if blocks not in created and len(blocks.written) < k]
        self._require_space(growing, k)

        def change(file: h5py.File) -> None:
            if not self.begun:
                self._describe(file)
            if "checkpoints" in file:
                del file["checkpoints"]
            if k:
                write_checkpoints(file, checkpoints)
            # The smaller one first: a file that is cut short loses its end.
            for blocks in sorted(growing, key=BlockDataset.block_bytes):
                if blocks in created:
                    blocks.create(file)
                blocks.grow(file, k)
            if not self.begun:
                self._describe_gradients(file["gradients"])

        if self.begun:
            self._container.change(change)
        else:
            self._container.create(change, *self._sizes(growing, k))
        for blocks in growing:
            blocks.coverage.grow(k)
        self.checkpoints = list(checkpoints)
        if logits is not None:
            self.logits = logits

    def _describe(self, file: h5py.File) -> None:
        contents = self._contents
        write_header(file, GRADIENTS_FORMAT, version(), now(), contents.settings)
        write_examples(file, contents.ids, contents.labels)
        write_classes(file, contents.classes, contents.class_count)

    def _describe_gradients(self, data: h5py.Dataset) -> None:
        contents = self._contents
        data.attrs["block_size"] = contents.block_size
        data.attrs["bfloat16"] = contents.dtype == BFLOAT16
        data.attrs["digest"] = self._digest
        if contents.channel_axis is not None:
            data.attrs["channel_axis"] = contents.channel_axis
        if contents.compression is not None:
            data.attrs["compression"] = contents.compression

    def _sizes(self, growing: Sequence[BlockDataset], k: int) -> tuple[int, int]:
        """Bytes of HDF5's tables and of what lies behind them, at most."""
        contents = self._contents
        blocks = sum(k * dataset.n_blocks for dataset in growing)
        # An entry of HDF5's index of chunks (B-tree version 1), in nodes that are at least half full, and the headers.
        tables = 65536 + 2 * blocks * (8 * (len(contents.shape) + 4) + 8)
        tables += contents.ids.nbytes + contents.labels.nbytes + len(to_json(contents.settings))
        tables += sum(256 + 4 * len(name) for name in contents.classes) + 1024 * k
        data = sum(k * dataset.n_blocks * dataset.block_bytes() for dataset in growing) + 16 * blocks
        return tables, 0 if self._compression is not None else data

    def _require_space(self, growing: Sequence[BlockDataset], k: int) -> None:
        if self._compression is not None:
            return
        needed = sum(blocks.block_bytes() * (k * blocks.n_blocks - int(blocks.written.sum())) for blocks in growing)
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise StoreError(
                f"The gradients of {k} checkpoints need {needed / 1e9:.1f} GB for {self.path}, and the disk has "
                f"{free / 1e9:.1f} GB left; free some space, or write elsewhere or as float16."
            )

    def mark(self) -> None:
        """Bring every complete block to the disk and mark it, safe from a kill and a loss of power.

        Raises:
            OSError, RuntimeError: the system or HDF5 refused.
        """
        # In this order a block is never marked before it is on disk, whatever happens in between.
        for blocks in self.datasets:
            blocks.flush()
            blocks.note_digests()
        self._container.disk.sync()
        for blocks in self.datasets:
            blocks.mark()
        self._container.disk.sync()

    def close(self) -> None:
        """Close the file and give up the lock; a file that was never begun goes away."""
        if not self.begun:
            self.path.unlink(missing_ok=True)
        self._container.close()
