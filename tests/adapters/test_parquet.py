"""Parquet files as sources."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.data import Preprocess
from vogcore.errors import DataError, SettingsError, VogcoreError
from vogcore_adapters.parquet import open_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def as_column(x: np.ndarray, form: str):
    """An array (N, ...) as an Arrow column of one kind."""
    if form == "tensor":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))
    kind = pa.from_numpy_dtype(x.dtype)
    for length in reversed(x.shape[1:]):
        kind = pa.list_(kind, length) if form == "fixed" else pa.large_list(kind) if form == "large" else pa.list_(kind)
    return pa.array(x.tolist(), kind)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_blocks_are_those_of_the_array(tmp_path_factory, labelled_arrays, check_source, data) -> None:
    x, y, ranges = data.draw(labelled_arrays())
    form = data.draw(st.sampled_from(["tensor", "fixed", "list", "large"]))
    ids = [f"n{i}" for i in range(len(x))]
    table = pa.table({"other": ids, "x": as_column(x, form), "id": ids, "label": y})
    folder = tmp_path_factory.mktemp("parquet")
    cut = data.draw(st.integers(0, len(x)))
    rows = data.draw(st.integers(1, 5))
    for name, part in (("a.parquet", table[:cut]), ("b.parquet", table[cut:])):
        pq.write_table(part, folder / name, row_group_size=rows)
    check_source(open_parquet(folder), x, y, ranges, ids)
    check_source(
        open_parquet([folder / "a.parquet", folder / "b.parquet"], y, ids=range(len(x))), x, y, ranges, range(len(x))
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_columns_of_numbers(tmp_path_factory, check_source, n: int, width: int, rows: int) -> None:
    x = np.arange(n * width, dtype=np.float32).reshape(n, width)
    path = tmp_path_factory.mktemp("parquet") / "t.parquet"
    columns = {f"c{i}": x[:, i] for i in range(width)}
    pq.write_table(pa.table({**columns, "target": np.arange(n) % 2}), path, row_group_size=rows)
    source = open_parquet(path, x_name=list(columns))
    check_source(source, x, np.arange(n) % 2, [(0, n), (n // 2, n), (0, n // 2)])
    check_source(open_parquet(path, x_name="c0"), x[:, :1], np.arange(n) % 2, [(0, n)])


def test_mixed_columns_take_the_wider_type(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": pa.array([1, 2], "int8"), "b": [0.5, 1.5], "c": [True, False]}), tmp_path / "t.parquet"
    )
    source = open_parquet(tmp_path / "t.parquet", x_name=["a", "b", "c"])
    assert source.feature_names == ["a", "b", "c"]
    assert source.with_changes(preprocess=Preprocess(scale=2.0)).feature_names == ["a", "b", "c"]
    np.testing.assert_array_equal(source.read(0, 2), [[1, 0.5, 1], [2, 1.5, 0]])
    assert source.labels is None


def test_labels_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [[1.0], [2.0], [3.0]], "label": ["dog", "cat", "dog"]}), path)
    source = open_parquet(path)
    assert (source.labels.tolist(), source.class_names) == ([1, 0, 1], ["cat", "dog"])
    assert open_parquet(path, class_names=["dog", "fox", "cat"]).labels.tolist() == [0, 2, 0]
    with pytest.raises(DataError, match="label of example 0 is 'dog', which is none of the class names"):
        open_parquet(path, class_names=["cat"])
    categories = pa.array(["dog", "cat", "dog"]).dictionary_encode()
    pq.write_table(pa.table({"x": [[1.0], [2.0], [3.0]], "label": categories}), path)
    assert open_parquet(path).class_names == ["cat", "dog"]


def encoded(pixels: np.ndarray) -> bytes:
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_encoded_images(tmp_path: Path, check_source, form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 3), dtype=np.uint8)
    cells = [encoded(image) for image in pixels]
    column = cells if form == "bytes" else [{"bytes": cell, "path": None} for cell in cells]
    table = pa.table({"image": column, "label": np.arange(9) % 3})
    names = b'{"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}'
    path = tmp_path / "t.parquet"
    pq.write_table(table.replace_schema_metadata({b"huggingface": names}), path, row_group_size=4)
    source = open_parquet(path)
    check_source(source, pixels, np.arange(9) % 3, [(7, 9), (0, 5), (3, 4)])
    assert source.class_names == ["a", "b", "c"]
    small = open_parquet(path, resize=(2, 2), mode="L", transform=lambda image: np.asarray(image, np.float32) / 255)
    assert small.read(0, 9).shape == (9, 2, 2)
    broken = [{"bytes": cell, "path": None} for cell in cells]
    broken[6] = {"bytes": b"junk", "path": None}
    broken[8] = {"bytes": None, "path": "somewhere.png"}
    pq.write_table(pa.table({"image": broken, "label": np.arange(9) % 3}), path)
    with pytest.raises(DataError, match=r"t\.parquet: image 6 cannot be read as an image"):
        open_parquet(path)
    broken[6] = broken[5]
    pq.write_table(pa.table({"image": broken, "label": np.arange(9) % 3}), path)
    with pytest.raises(DataError, match=r"image 8 is missing, or only its path is stored"):
        open_parquet(path)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"x": [[1.0], [2.0, 3.0]]}, {}, "the lists have different lengths"),
        ({"x": [[1.0], None]}, {}, r".from row 0 on.: column 'x' has missing values"),
        ({"x": [[1.0], [None]]}, {}, "has missing values"),
        ({"x": ["a", "b"]}, {}, "has type string, which is no number"),
        ({"x": [[1.0], [2.0]], "y": [1, None]}, {}, "column 'y' has missing values"),
        ({"x": [[1.0], [2.0]], "y": [0.5, 1.5]}, {}, "labels have dtype float64, not integers"),
        ({"x": [[1.0], [2.0]], "id": [1, 1]}, {}, "the examples 0 and 1 have the same id 1"),
        ({"a": [1.0, 2.0]}, {}, "has the columns 'a': choose those of the examples with x_name"),
        ({"a": [1.0, 2.0]}, {"x_name": "b"}, "has no column 'b' for the examples: choose x_name among 'a'"),
        ({"a": [1.0, 2.0]}, {"x_name": "a", "y_name": "a"}, "has no column 'a' for the labels"),
        ({"a": [[1.0], [2.0]], "b": [1, 2]}, {"x_name": ["a", "b"]}, "column 'a' holds lists: several columns"),
        ({"x": []}, {}, "there are 0 examples"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used(tmp_path: Path, columns: dict, options: dict, message: str) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=message):
        open_parquet(path, **options).fingerprint()


def test_bad_files(tmp_path: Path, without) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(DataError, match=r"t\.parquet does not exist"):
        open_parquet(path)
    with pytest.raises(DataError, match=r"there is no \.parquet file"):
        open_parquet(tmp_path)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as Parquet"):
        open_parquet(path)
    pq.write_table(pa.table({"x": [[1.0], [2.0]]}), path)
    pq.write_table(pa.table({"x": [[1], [2]]}), tmp_path / "u.parquet")
    with pytest.raises(DataError, match=r"u\.parquet has other columns than the first file"):
        open_parquet(tmp_path)
    with pytest.raises(SettingsError, match="x_name is the name of a column"):
        open_parquet(path, x_name=[])
    without("pyarrow")
    with pytest.raises(VogcoreError, match=r"Reading Parquet needs pyarrow.*pip install 'vogcore\[parquet\]'"):
        open_parquet(path)


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    x = np.random.default_rng(0).normal(size=(200, 4))
    pq.write_table(pa.table({"x": as_column(x, "fixed")}), path, row_group_size=100, compression="zstd")
    source = open_parquet(path)
    content = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(0).dictionary_page_offset or 0
    content[start : start + 60] = b"\xff" * 60
    path.write_bytes(content)
    np.testing.assert_array_equal(source.read(0, 50), x[:50])
    with pytest.raises(DataError, match=r"t\.parquet: row group 1 cannot be read .*: write or copy the file again"):
        source.read(50, 150)


def test_one_row_group_is_in_memory_at_a_time(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "t.parquet"
    x = np.arange(60.0).reshape(20, 3)
    pq.write_table(pa.table({"x": as_column(x, "fixed")}), path, row_group_size=5)
    source = open_parquet(path)
    opened = []
    read = pq.ParquetFile.read_row_group

    def counting(self, number, **options):
        opened.append(number)
        return read(self, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    for start in range(0, 20, 2):
        np.testing.assert_array_equal(source.read(start, start + 2), x[start : start + 2])
    assert opened == [1, 2, 3]  # the first is there from the beginning, and none is read twice
