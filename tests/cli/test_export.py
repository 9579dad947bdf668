"""``vogcore export``: the table of a score file as CSV or Parquet."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow.parquet
import pytest

import vogcore


@pytest.fixture
def scored(run_folder, score):
    score()
    return vogcore.open_scores("scores.h5")


def test_csv(scored, cli):
    result = cli("export", "scores.h5", "-o", "t.csv")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("48 examples written to t.csv (csv, ")
    assert "position, id, label, class, vog, vog_raw" in result.out
    with open("t.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_array_equal([float(row["vog"]) for row in rows], scored.vog)
    assert f"csv, {len(rows[0])} columns" in result.out


@pytest.mark.parametrize("name", ["t.parquet", "t.PQ"])
def test_parquet(name, scored, cli):
    result = cli("export", "scores.h5", "-o", name)
    assert result.status == 0
    table = pyarrow.parquet.read_table(name)
    np.testing.assert_array_equal(table["vog"].to_numpy(), scored.vog)
    assert f"parquet, {table.num_columns} columns" in result.out


def test_the_format_where_the_name_does_not_tell(scored, cli, tools):
    tools.refused(cli("export", "scores.h5", "-o", "table"), "table does not say", "--format")
    assert cli("export", "scores.h5", "-o", "table", "--format", "csv").status == 0
    assert cli("export", "scores.h5", "-o", "t.csv", "--format", "parquet").status == 0
    assert pyarrow.parquet.read_table("t.csv").num_rows == 48


def test_nothing_is_replaced_unasked(scored, cli, tools, run_folder):
    (run_folder / "t.csv").write_text("mine")
    tools.refused(cli("export", "scores.h5", "-o", "t.csv"), "t.csv exists already", "--overwrite")
    assert (run_folder / "t.csv").read_text() == "mine"
    assert cli("export", "scores.h5", "-o", "t.csv", "--overwrite").status == 0
    tools.refused(
        cli("export", "scores.h5", "-o", "scores.h5", "--format", "csv", "--overwrite"), "scores.h5 is an input"
    )


def test_bad_input(scored, cli, tools):
    tools.refused(cli("export", "nope.h5", "-o", "t.csv"), "nope.h5", "no such file")
    tools.refused(cli("export", "ckpt-0.onnx", "-o", "t.csv"), "not an HDF5 file")
    tools.refused(cli("export", "scores.h5", "-o", "nowhere/t.csv"), "nowhere does not exist")
    tools.refused(cli("export", "scores.h5"), "-o/--output")
