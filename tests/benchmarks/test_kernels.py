"""The benchmark of the kernels: what is timed is right, and the tables say what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import _kernel_accuracy, kernels
from benchmarks import _kernel_contenders as others
from vogcore.kernels import _reference as reference
from vogcore.kernels import set_threads


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    set_threads(None)


@pytest.fixture
def rng():
    return np.random.default_rng(8)


@pytest.mark.parametrize(("last", "axis"), [(False, 1), (True, 3)])
def test_every_way_to_score_a_block_gives_the_same(last, axis):
    torch = pytest.importorskip("torch")
    values = kernels.gradients(600_000, 5, 16, last, "float32")
    expected = reference.vog(values, axis)
    np.testing.assert_allclose(others.block_numpy(values, axis), expected, rtol=1e-5)
    np.testing.assert_allclose(others.block_torch(torch.from_numpy(values), axis).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(others.lists_of_arrays(values, axis), expected, rtol=1e-5)
    np.testing.assert_allclose(
        kernels.block_contenders(values, last, "float32")["block_score"][0]().vog, expected, rtol=1e-12
    )


@pytest.mark.parametrize(("last", "axis"), [(False, 1), (True, 3)])
def test_every_way_to_update_moments_gives_the_same(last, axis):
    torch = pytest.importorskip("torch")
    values = kernels.gradients(300_000, 5, 16, last, "float32")
    expected = reference.pixel_moments(values, axis)
    by_numpy, by_torch = np.zeros((2, 2, *expected[0].shape))
    for step, block in enumerate(values, start=1):
        others.update_numpy(block, *by_numpy, step, axis)
        others.update_torch(torch.from_numpy(block), *(torch.from_numpy(array) for array in by_torch), step, axis)
    np.testing.assert_allclose(by_numpy, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(by_torch, expected, rtol=1e-10, atol=1e-12)


def test_every_way_to_normalise_gives_the_same():
    results = [run() for run, _ in kernels.class_contenders(5000, 7).values()]
    assert len(results) == 3
    for found in results[1:]:
        np.testing.assert_allclose(found, results[0], rtol=1e-9, atol=1e-12)


def test_the_twin_touches_every_value_and_the_memory_kernels_do_what_they_are_called(rng):
    values = rng.integers(0, 9, size=(3, 3 * 1500)).astype(np.float32)
    mean, m2 = np.zeros((2, 3, 1500))
    others.twin_of_update(values, mean, m2)
    assert mean.sum() + m2.sum() == values.sum()
    assert (mean.sum(), m2.sum()) != (0, 0)
    plain = np.zeros((2, 3, 4500))
    others.twin_of_update(values, *plain)
    np.testing.assert_array_equal(plain[0], values)
    assert others.read(values.reshape(-1)) == values.sum()
    a, b, c = np.zeros(5000), rng.normal(size=5000), rng.normal(size=5000)
    others.triad(a, b, c)
    np.testing.assert_allclose(a, b + 3 * c, rtol=1e-13)
    others.copy(b, a)
    np.testing.assert_array_equal(a, b)


def test_ratios_are_medians_over_the_rounds_for_each_byte(monkeypatch):
    times = iter([0, 2, 2, 3] + [10, 12, 12, 16] + [20, 22, 22, 28])  # ours takes 2 s, the other 1, 4 and 6
    monkeypatch.setattr(kernels, "clock", lambda: next(times))
    found = kernels.race({"ours": (lambda: None, 100.0), "other": (lambda: None, 50.0)}, 3)
    assert found["seconds"] == {"ours": 2, "other": 4}
    assert found["ratios"] == {"ours": 1.0, "other": 4.0}


def test_exact_spreads_and_errors_of_a_known_case():
    values = np.array([[1.0, 0.0], [3.0, 0.1]])
    np.testing.assert_array_equal(_kernel_accuracy.exact_spreads(values), [1.0, 0.05])
    found = _kernel_accuracy.errors(np.array([[1.0], [3.0]], np.float32))
    assert set(found.values()) == {0.0}
    bits = _kernel_accuracy._bfloat16(np.array([[1.0], [3.0]], np.float32))
    assert set(_kernel_accuracy.errors(bits).values()) == {0.0}


def test_the_whole_program_on_little_memory(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(kernels, "SHAPES", {"8x8x3": 8})
    monkeypatch.setattr(kernels, "RESULTS", tmp_path)
    monkeypatch.setattr(_kernel_accuracy, "COUNTS", (4,))
    assert kernels.main(["--rounds", "1", "--megabytes", "1", "--busy"]) == 0
    record = json.loads((tmp_path / "kernels.json").read_text())
    assert [len(record["parts"][part]) for part in kernels.PARTS] == [4, 8, 1, 10]
    tables = (tmp_path / "kernels.md").read_text()
    rows = [line for line in tables.splitlines() if line.startswith("| 8x8x3 |")]
    assert len(rows) == 12
    first = record["parts"]["block"][0]
    rate = first["bytes"]["read"] / first["seconds"]["read"] / 1e9
    assert f"{rate:.1f}" in rows[4]
    assert f"{100 * first['ratios']['read']:.0f}%" in rows[4]
    assert "bfloat16, mean 100 times the spread" in tables
    capsys.readouterr()
    (tmp_path / "kernels.md").unlink()
    assert kernels.main(["--quick", "--parts", "accuracy"]) == 0
    assert "## Errors" in capsys.readouterr().out
    assert not (tmp_path / "kernels.md").exists()


def test_unknown_parts_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        kernels.main(["--parts", "gpu"])
    assert stopped.value.code == 2
    assert "gpu" in capsys.readouterr().err
