"""Zarr arrays and groups as sources."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import DataError, SettingsError, VogcoreError
from vogcore_adapters.zarr import open_zarr

zarr = pytest.importorskip("zarr", minversion="3.0")


def write_group(store, version: int, **arrays: np.ndarray):
    group = zarr.open_group(store, mode="w", zarr_format=version)
    for name, values in arrays.items():
        chunks = (max(1, len(values) // 3), *values.shape[1:])
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks)
        array[...] = values
    return group


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_blocks_are_those_of_the_array(labelled_arrays, check_source, data) -> None:
    x, y, ranges = data.draw(labelled_arrays())
    version = data.draw(st.sampled_from([2, 3]))
    ids = np.arange(len(x)) * 7
    group = write_group(zarr.storage.MemoryStore(), version, x=x, y=y, ids=ids)
    check_source(open_zarr(group), x, y, ranges, ids)
    check_source(open_zarr(group["x"], y), x, y, ranges)
    check_source(open_zarr(group, x_name="x", y_name="ids"), x, ids, ranges, ids)


def test_a_store_on_disk(tmp_path: Path) -> None:
    x, y = np.arange(24.0).reshape(6, 4), np.arange(6) % 2
    path = tmp_path / "data.zarr"
    write_group(path, 3, x_train=x, y_train=y, x_test=-x, y_test=1 - y)
    source = open_zarr(path)
    np.testing.assert_array_equal(source.read(2, 5), x[2:5])
    assert source.name == str(path)
    test = open_zarr(str(path), x_name="x_test", transform=lambda example: example * 2)
    np.testing.assert_array_equal(test.read(0, 6), -2 * x)
    assert test.labels.tolist() == (1 - y).tolist()
    array = open_zarr(path / "x_train")
    assert array.labels is None
    assert len(array) == 6


def test_text_in_a_group(tmp_path: Path) -> None:
    group = write_group(tmp_path / "a.zarr", 3, x=np.arange(3.0)[:, None], y=np.array([0, 1, 0]))
    for name, values in {"ids": ["u", "v", "w"], "class_names": ["cat", "dog"]}.items():
        array = group.create_array(name, shape=(len(values),), dtype="str")
        array[...] = np.array(values, dtype=object)
    source = open_zarr(group)
    assert source.ids.tolist() == ["u", "v", "w"]
    assert source.class_names == ["cat", "dog"]


def test_bad_stores(tmp_path: Path, without) -> None:
    x = np.arange(6.0)[:, None]
    group = write_group(tmp_path / "a.zarr", 3, features=x)
    with pytest.raises(DataError, match=r"gone\.zarr cannot be opened as a Zarr store"):
        open_zarr(tmp_path / "gone.zarr")
    with pytest.raises(DataError, match=r"no examples under the usual names .*: it holds 'features' \(6, 1\) float64"):
        open_zarr(group)
    with pytest.raises(DataError, match="has no 'z' for the examples"):
        open_zarr(group, x_name="z")
    with pytest.raises(DataError, match=r"a\.zarr.* has no labels under the usual names"):
        open_zarr(group, x_name="features", require_labels=True)
    with pytest.raises(DataError, match="there are no labels"):
        open_zarr(group["features"], require_labels=True)
    with pytest.raises(SettingsError, match="is a single Zarr array"):
        open_zarr(group["features"], x_name="x")
    with pytest.raises(DataError, match="5 labels for 6 examples"):
        open_zarr(group["features"], range(5))
    without("zarr")
    with pytest.raises(VogcoreError, match=r"Reading Zarr needs zarr.*pip install 'vogcore\[zarr\]'"):
        open_zarr(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_group(path, 3, x=np.arange(12.0).reshape(6, 2), y=np.zeros(6, int))
    source = open_zarr(path)
    chunks = sorted(file for file in (path / "x" / "c").rglob("*") if file.is_file())
    chunks[-1].write_bytes(b"\x00broken")
    np.testing.assert_array_equal(source.read(0, 2), [[0, 1], [2, 3]])
    with pytest.raises(DataError, match=r"a\.zarr .'x'. cannot be read .*: write or copy the store again"):
        source.read(0, 6)
