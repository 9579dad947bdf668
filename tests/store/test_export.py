"""Scores as CSV and Parquet."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import OutputExistsError, StoreError, VogcoreError
from vogcore.store.export import table_columns

WRITERS = ["to_csv", "to_parquet"]


def write(scores, writer: str, path: Path, **options) -> None:
    if writer == "to_parquet":
        pytest.importorskip("pyarrow")
    getattr(scores, writer)(path, **options)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(0, 1000), st.booleans())
def test_csv_reads_back_to_the_same_numbers(make_scores, tmp_path_factory, n: int, seed: int, text: bool) -> None:
    path = tmp_path_factory.mktemp("csv") / "scores.csv"
    ids = np.array([f'é, "{i}"\n' for i in range(n)]) if text else np.arange(n) * 10
    scores = make_scores(n=n, seed=seed, ids=ids)
    scores.stages["all"].vog[0] = np.nan
    scores.to_csv(path)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = table_columns(scores)
    assert list(rows[0]) == ["position", *table]
    assert [row["position"] for row in rows] == [str(i) for i in range(n)]
    assert [row["id"] for row in rows] == [str(name) for name in ids]
    assert [row["class"] or None for row in rows] == table["class"].tolist()
    for name in ("vog", "vog_raw", "late_vog", "loss"):
        read = np.array([float(row[name]) if row[name] else np.nan for row in rows])
        np.testing.assert_array_equal(read, table[name])


def test_parquet_has_the_table_and_how_it_was_made(make_scores, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    for ids in (np.arange(6) * 10, np.array(list("abcdéf"))):
        scores = make_scores(ids=ids, labels=np.array([0, 1, 2, -1, 0, 1]))
        scores.to_parquet(tmp_path / "scores.parquet", overwrite=True)
        read, table = pq.read_table(tmp_path / "scores.parquet"), table_columns(scores)
        assert read.column_names == list(table)
        for name in read.column_names:
            assert read.column(name).to_pylist() == table[name].tolist()
        metadata = {key.decode(): value.decode() for key, value in read.schema.metadata.items()}
        assert json.loads(metadata["vogcore.settings"]) == {"of": "logit"}
        assert metadata["vogcore.measured_direction"] == "lower is harder"


@pytest.mark.parametrize("writer", WRITERS)
def test_files_are_written_whole_or_not_at_all(make_scores, tmp_path: Path, writer: str, monkeypatch) -> None:
    path = tmp_path / "scores.out"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        write(make_scores(), writer, path)
    assert path.read_text() == "mine"
    write(make_scores(), writer, path, overwrite=True)
    assert path.read_bytes() != b"mine"
    with pytest.raises(StoreError, match="does not exist; create it first"):
        write(make_scores(), writer, tmp_path / "gone" / "scores.out")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        write(make_scores(), writer, tmp_path / "second.out")
    assert sorted(os.listdir(tmp_path)) == ["scores.out"]


def test_text_that_utf8_cannot_hold(make_scores, tmp_path: Path) -> None:
    scores = make_scores(ids=np.array(["a", "b", "c", "d", "e", "\udc80"]))
    with pytest.raises(StoreError, match="is not valid Unicode text; rename it"):
        scores.to_csv(tmp_path / "scores.csv")
    assert os.listdir(tmp_path) == []


def test_pyarrow_missing(make_scores, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(VogcoreError, match=r"Writing Parquet needs pyarrow: install it with .*'vogcore\[parquet\]'"):
        make_scores().to_parquet(tmp_path / "scores.parquet")
