"""Reading idx files: what is in them, and what is refused."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from benchmarks._idx import FILES, find_fashion_mnist, load_fashion_mnist, read_idx


def idx_bytes(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(folder, n=3, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    for images, classes in FILES.values():
        (folder / images).write_bytes(gzip.compress(idx_bytes(np.full((n, 28, 28), 7, np.uint8))))
        (folder / classes).write_bytes(gzip.compress(idx_bytes(np.arange(labels or n, dtype=np.uint8))))


@settings(max_examples=30, deadline=None)
@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)))
def test_an_array_comes_back_as_it_was_written(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("idx") / "a.gz"
    path.write_bytes(gzip.compress(idx_bytes(array)))
    np.testing.assert_array_equal(read_idx(path), array)
    assert read_idx(path).shape == array.shape


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("idx") / "a.gz"
    whole = gzip.compress(idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5)))
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"a\.gz"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x08\x01\0\0\0\x05abcd", "4 values"),
        (b"\0\0\x08\x01\0\0\0\x03abcd", "4 values"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "unsigned bytes"),
        (b"\0\0\x08\x03\0\0\0\x01", "header"),
        (b"", "unsigned bytes"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, content, message):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=message):
        read_idx(path)


def test_the_folder_itself_or_the_one_around_it_is_found(tmp_path):
    assert find_fashion_mnist(tmp_path) is None
    folder = tmp_path / "data" / "fashion-mnist"
    write_set(folder)
    assert find_fashion_mnist(folder) == folder
    assert find_fashion_mnist(folder.parent) == folder
    next(folder.glob("t10k-labels*")).unlink()
    assert find_fashion_mnist(folder) is None


def test_both_parts_are_loaded_and_cut(tmp_path):
    write_set(tmp_path, 5)
    sets = load_fashion_mnist(tmp_path)
    assert list(sets) == ["train", "test"]
    assert sets["test"].x.shape == (5, 28, 28)
    assert sets["train"].y.dtype == np.int64
    assert sets["train"].head(2).y.tolist() == [0, 1]
    assert len(sets["train"].head(2).x) == 2


def test_labels_of_another_number_are_refused(tmp_path):
    write_set(tmp_path, 3, labels=4)
    with pytest.raises(ValueError, match="do not fit together"):
        load_fashion_mnist(tmp_path)
