"""A machine that loses power: what may be on the disk afterwards."""

from __future__ import annotations

import os
import random
from pathlib import Path

from vogcore.store._system import System

__all__ = ["PowerCut"]

SECTOR = 512


class PowerCut(System):
    """Does what :class:`System` does, and remembers it.

    :meth:`state` then builds the folder as it may be after a loss of power behind any number of steps: writes that a
    sync has made sure of are there; of the others, any sectors may be, in any order. The same holds for the creation
    and removal of files and the folder's sync.
    """

    def __init__(self) -> None:
        self.steps: list[tuple] = []
        self._paths: dict[int, Path] = {}

    def open(self, path: Path, *, create: bool = True) -> int:
        if not os.path.exists(path):
            self.steps.append(("create", path.name))
        elif self._last(path.name) in (None, "unlink"):  # made by somebody else meanwhile
            self.steps.append(("found", path.name, path.read_bytes()))
        descriptor = super().open(path, create=create)
        self._paths[descriptor] = path
        return descriptor

    def _last(self, name: str) -> str | None:
        """The last thing that happened to a file."""
        return next((step[0] for step in reversed(self.steps) if step[1:2] == (name,)), None)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        super().write(descriptor, data, offset)
        self.steps.append(("write", self._paths[descriptor].name, offset, bytes(data)))

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        self.steps.append(("truncate", self._paths[descriptor].name, size))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.steps.append(("sync", self._paths[descriptor].name))

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        self.steps.append(("sync folder",))

    def replace(self, source: Path, target: Path) -> None:
        content = source.read_bytes()  # synced before
        super().replace(source, target)
        self.steps.append(("replace", target.name, content, source.name))
        for descriptor, path in self._paths.items():
            if path == source:
                self._paths[descriptor] = target

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.steps.append(("unlink", path.name))

    def state(self, count: int, chance: random.Random, keep: float = 0.5) -> dict[str, bytes]:
        """Files after a loss of power behind the first ``count`` steps; unsynced parts are there at ``keep``."""
        certain: dict[str, bytearray] = {}
        pending: dict[str, list[tuple]] = {}
        names: dict[str, bool] = {}  # name -> whether its creation is certain
        removed: set[str] = set()
        # What was under a name before a file took it (None: nothing), and what that file was called before.
        older: dict[str, tuple[bytes | None, str]] = {}
        for step in self.steps[:count]:
            kind, *rest = step
            if kind == "sync folder":
                names = dict.fromkeys(names, True)
                for name in removed:
                    for table in (certain, pending, names):
                        table.pop(name, None)
                removed.clear()
                older.clear()
                continue
            name = rest[0]
            if kind == "found" and name in names:  # made anew by somebody else, and not synced
                removed.discard(name)
                names[name], certain[name] = False, bytearray()
                pending[name] = [("truncate", len(rest[1])), ("write", 0, rest[1])]
            elif kind == "found":
                names[name], certain[name], pending[name] = True, bytearray(rest[1]), []
            elif kind == "create":
                removed.discard(name)
                names[name], certain[name], pending[name] = False, bytearray(), []
            elif kind == "replace":
                source = rest[2]
                older[name] = (bytes(certain[name]) if name in certain else None, source)
                names[name] = True
                # A rename does not sync: what was pending for the file still is.
                certain[name], pending[name] = certain.pop(source, bytearray(rest[1])), pending.pop(source, [])
            elif kind == "unlink":
                if name in names:
                    removed.add(name)
            elif kind == "sync":
                _perform(certain[name], pending[name], lambda: True)
                pending[name].clear()
                names[name] = True  # as file systems do for a new file that is synced
            else:
                pending[name].append((kind, *rest[1:]))
        files = {}
        for name, content in certain.items():
            if not names[name] and chance.random() > keep:
                continue
            if name in removed and chance.random() < keep:
                continue
            _perform(content, pending[name], lambda: chance.random() < keep)
            if name in older and chance.random() > keep:
                before, source = older[name]
                files[source] = bytes(content)
                if before is not None:
                    files[name] = before
                continue
            files[name] = bytes(content)
        return files


def _perform(content: bytearray, operations: list[tuple], happens) -> None:
    for kind, *arguments in operations:
        if kind == "truncate":
            if happens():
                size = arguments[0]
                del content[size:]
                content.extend(bytes(size - len(content)))
            continue
        offset, data = arguments
        for start in range(0, len(data), SECTOR):
            if happens():
                part = data[start : start + SECTOR]
                begin = offset + start
                content.extend(bytes(max(0, begin + len(part) - len(content))))
                content[begin : begin + len(part)] = part
