"""One file of a live run: HDF5 with a digest over everything in it, replaced in one step."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vogcore._paths import reason
from vogcore.errors import StoreError
from vogcore.store import _system
from vogcore.store._hdf5 import Reader, file_image, to_json, write_header
from vogcore.store.schema import LIVE_FORMAT
from vogcore.store.scores import now, version

__all__ = ["LiveReader", "write_live_file"]


def write_live_file(path: Path, record: Mapping[str, Any], datasets: Mapping[str, npt.NDArray]) -> None:
    """Write a file beside the one of that name, sync it, and let it take the name.

    The folder is not synced: whoever refers to the file does that first.

    Args:
        path: the file.
        record: what the attribute ``settings`` holds.
        datasets: path in the file -> values.

    Raises:
        StoreError: the system refused; what was there before is unharmed.
    """
    image = _image(record, datasets)
    new = path.with_name(path.name + ".new")
    system = _system.SYSTEM
    try:
        descriptor = system.open(new)
        try:
            system.write(descriptor, image, 0)
            system.truncate(descriptor, len(image))  # a kill may have left a longer one
            system.sync(descriptor)
        finally:
            system.close(descriptor)
        system.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            system.unlink(new)
        raise StoreError(f"Cannot write {path}: {reason(error)}; what was added before is kept.") from error


def _image(record: Mapping[str, Any], datasets: Mapping[str, npt.NDArray]) -> memoryview:
    def fill(file: h5py.File) -> None:
        write_header(file, LIVE_FORMAT, version(), now(), record)
        for name, values in datasets.items():
            file[name] = values
        file.attrs["digest"] = _digest(to_json(record), datasets)

    return file_image(fill)


def _digest(settings: str, datasets: Mapping[str, npt.NDArray]) -> str:
    """Hex BLAKE2b of the settings and of name, type, shape and bytes of every dataset, in the order of the names."""
    result = hashlib.blake2b(settings.encode("utf-8", "backslashreplace"))
    for name in sorted(datasets):
        values = np.ascontiguousarray(datasets[name])
        result.update(json.dumps([name, values.dtype.str, list(values.shape)]).encode())
        result.update(values.reshape(-1).view(np.uint8).data)
    return result.hexdigest()


class LiveReader(Reader):
    """A file of a live run, read as a whole and compared with its digest.

    Attributes:
        record: what the attribute ``settings`` holds.
        content: path in the file -> values.
        format_version, created, vogcore_version: as the file has them.

    Raises:
        StoreError: missing, damaged, or no file of a live run.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, LIVE_FORMAT)
        try:
            self._verify()
        except BaseException:
            self.close()
            raise

    def _verify(self) -> None:
        self.record: dict[str, Any] = self.json_attribute("settings", dict)
        self.format_version, self.created, self.vogcore_version = (
            str(self.string_attribute(self.file, name)) for name in ("format_version", "created", "vogcore_version")
        )
        expected = self.string_attribute(self.file, "digest")
        found: dict[str, h5py.Dataset] = {}
        with self.guard("the list of its datasets"):
            self.file.visititems(
                lambda name, node: found.update({name: node}) if isinstance(node, h5py.Dataset) else None
            )
        self.content: dict[str, npt.NDArray] = {}
        for name, node in found.items():
            text = h5py.check_string_dtype(node.dtype) is not None
            kind = "S" if text else f"{node.dtype.kind}{node.dtype.itemsize}"
            self.dataset(name, (kind,), None)  # its size is checked before anything is allocated
            with self.guard(name):
                self.content[name] = np.asarray(node[()])
        if _digest(self.string_attribute(self.file, "settings"), self.content) != expected:
            raise self.damaged("its content does not fit its digest")
