"""The benchmark of archives: what is written is right, and the table says what was measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks import storage
from vogcore.store import open_gradients


def test_the_same_gradients_go_to_every_contender(tmp_path):
    rows = np.random.default_rng(0).normal(size=(300, 3, 4, 4)).astype(np.float32)
    n, k = 700, 2
    expected = np.resize(rows, (n, 3, 4, 4))
    for name in storage.PLAIN:
        storage._plain(tmp_path / name, rows, n, **storage.CONTENDERS[name])
        assert (tmp_path / name).read_bytes() == expected.tobytes()
    storage._archive(tmp_path / "archive", rows, n, k, {})
    with open_gradients(tmp_path / "archive") as archive:
        for checkpoint in range(k):
            assert archive.read(checkpoint, 0, n).tobytes() == expected.tobytes()


def test_the_gradients_are_those_of_a_network(tmp_path):
    rows = storage._as_images(storage.demo_gradients(tmp_path), 48 * 64)
    assert rows.shape[1:] == (3, 32, 32)
    assert len(rows) >= storage.BATCH
    assert np.isfinite(rows).all()
    assert rows.std() > 0


def test_the_table_counts_bytes_of_float32_gradients():
    seconds = {name: [2.0, 1.0 * place, 4.0] for place, name in enumerate(storage.CONTENDERS, 1)}
    results = {
        name: {"seconds": seconds[name], "read": [0.5] * 3, "bytes": 10**9 // place, "gradient_bytes": 10**9}
        for place, name in enumerate(storage.CONTENDERS, 1)
    }
    described = {"created": "2026-11-25", "gigabytes": 1.0, "rounds": 3, "versions": {"python": "3"}}
    text = storage.report({"results": results, "machine": {"processor": "P", "cores": 2}, **described})
    lines = text.splitlines()
    assert "| plain writes | 0.50 | 1.00 | 100% | 100% | 1.00 | 2.00 |" in lines
    assert "| archive, float16 | 0.25 | 0.50 | 50% | 50% | 5.00 | 2.00 |" in lines
    for a, b in itertools.pairwise(list(storage.CONTENDERS)):
        assert text.index(a) < text.index(b)


def test_a_folder_that_is_none(capsys, tmp_path):
    assert storage.main(["--folder", str(tmp_path / "missing")]) == 2
    assert "is not a folder; give one" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in storage.CONTENDERS if name not in storage.PLAIN])
def test_every_contender_can_be_read(tmp_path, name):
    rows = np.random.default_rng(0).normal(size=(300, 3, 4, 4)).astype(np.float32)
    storage._archive(tmp_path / "archive", rows, 300, 1, storage.CONTENDERS[name])
    storage._read_archive(tmp_path / "archive")
