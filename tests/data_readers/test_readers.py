"""Readers of other packages, found by the suffix of a path."""

import sys
import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import vogcore.data.readers as readers
from vogcore.data import ArraySource, open_source
from vogcore.errors import DataError

ROOT = Path(__file__).parents[2]
X, Y = np.arange(6.0)[:, None], np.array([0, 1, 0, 1, 0, 1])
CALLS = []


def read_example(path, labels, **given):
    CALLS.append((path, labels, given))
    return ArraySource(X, Y if labels is None else labels, name=str(path))


@pytest.fixture
def registered(monkeypatch):
    """Entry points that stand for those of an installed package."""
    monkeypatch.setitem(sys.modules, "example_readers", SimpleNamespace(read_example=read_example))
    home = "example_readers:read_example"
    known = EntryPoints(
        [
            EntryPoint("foo", home, readers.GROUP),
            EntryPoint("folder", home, readers.GROUP),
            EntryPoint("npz", home, readers.GROUP),
            EntryPoint("gone", "package_that_is_gone:read", readers.GROUP),
        ]
    )
    monkeypatch.setattr(readers, "entry_points", lambda **choice: known.select(**choice))
    CALLS.clear()


def test_a_suffix_and_a_folder_find_their_reader(registered, tmp_path) -> None:
    assert open_source(tmp_path / "data.FOO").labels.tolist() == Y.tolist()
    assert open_source(tmp_path, labels=Y[::-1], x_name="a", ids=[1]).labels.tolist() == Y[::-1].tolist()
    (path, labels, given) = CALLS[1]
    assert path == tmp_path
    assert labels.tolist() == Y[::-1].tolist()
    assert set(given) == {"ids", "class_names", "preprocess", "transform", "x_name", "y_name"}
    assert (given["x_name"], given["ids"]) == ("a", [1])


def test_the_core_keeps_its_own_formats(registered, tmp_path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    open_source(tmp_path / "data.npz")
    assert CALLS == []


def test_a_reader_that_is_gone(registered) -> None:
    with pytest.raises(DataError, match=r"data\.gone: the reader package_that_is_gone:read cannot be loaded"):
        open_source("data.gone")


def test_unknown_suffixes_and_missing_paths(registered, tmp_path, monkeypatch) -> None:
    (tmp_path / "data.bar").write_text("?")
    with pytest.raises(DataError, match=r"data\.bar: files are recognised by .* \.hdf5, \.foo, \.gone.: rename"):
        open_source(tmp_path / "data.bar")
    with pytest.raises(DataError, match=r"data\.baz does not exist: check the path"):
        open_source(tmp_path / "data.baz")
    monkeypatch.setattr(readers, "entry_points", lambda **choice: EntryPoints([]))
    with pytest.raises(DataError, match="is a folder, and no installed package reads folders"):
        open_source(tmp_path)


def test_the_readers_of_the_project_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    announced = project["entry-points"][readers.GROUP]
    assert set(announced) == {"folder", "parquet", "pq", "zarr"}
    for target in announced.values():
        module, name = target.split(":")
        assert callable(getattr(import_module(module), name))
