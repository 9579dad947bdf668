"""A small run of several blocks that can be stopped, and compared with an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import vogcore
from vogcore.store.journal import journal_path

from .models import FEATURES, examples, mlps

N, K, BATCH = 40, 3, 5
X, Y = examples(N)
BLOCK = BATCH * FEATURES * (4 + 2 * 8)
"""Memory for a block of one batch."""


class Stop(KeyboardInterrupt):
    pass


class Watch:
    """Progress that stops a run after so many gradients, or calls something once."""

    def __init__(self, after: int | None = None, call=None) -> None:
        self.after, self.call, self.done, self.before, self.text = after, call, 0, 0, ""

    def start(self, total, text):
        self.total = total

    def go_on(self, count, text):
        self.before, self.text = count, text

    def advance(self, count):
        self.done += count
        if self.after is not None and self.done > self.after:
            raise Stop
        if self.call is not None:
            self.call()

    def close(self):
        pass


def score(folder: Path, name: str = "s.h5", **options):
    given = {
        "checkpoints": mlps(K), "data": X, "labels": Y, "batch_size": BATCH, "memory": BLOCK, "provider": "cpu",
        "threads": 1, "out": folder / name,
    } | options  # fmt: skip
    return vogcore.score(given.pop("checkpoints"), given.pop("data"), given.pop("labels"), **given)


def stopped(folder: Path, after: int = 70, **options) -> Path:
    """The journal of a run that was stopped after so many gradients."""
    with pytest.raises(Stop) as caught:
        score(folder, progress=Watch(after), **options)
    path = journal_path(folder / "s.h5")
    assert any(str(path) in note and "the same command goes on from there" in note for note in caught.value.__notes__)
    return path


def content(path: Path) -> dict[str, object]:
    """Everything in a score file but when and how fast it was made."""
    found: dict[str, object] = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            values = item[()]
            found[name] = (values.dtype.str, values.shape, values.tobytes())
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = np.asarray(value).tolist() if not isinstance(value, str) else value

    with h5py.File(path) as file:
        add("", file)
        file.visititems(add)
    del found["@created"], found["@timings"]
    return {key: repr(value) for key, value in found.items()}


def same(folder: Path, **options) -> Watch:
    """Finish what was stopped and compare it with an undisturbed run."""
    watch = Watch()
    score(folder, **{"progress": watch} | options)
    (folder / "whole").mkdir(exist_ok=True)
    score(folder / "whole", **options | {"overwrite": True})
    assert content(folder / "s.h5") == content(folder / "whole" / "s.h5")
    assert not journal_path(folder / "s.h5").exists()
    return watch
