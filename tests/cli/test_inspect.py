"""``vogcore inspect`` in words; tests/diagnose/test_files.py has what is found."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from vogcore.store import GradientWriter


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_score_file(run_folder, score, cli):
    score()
    result = cli("inspect", "scores.h5")
    assert (result.status, result.err) == (0, "")
    text = flat(result.out)
    assert text.startswith("scores.h5: score file, ")
    assert "format vogcore.scores 1.0, complete" in text
    assert "examples 48" in text
    assert "stages all (3)" in text
    assert "Checkpoints (3)" in text
    assert "data.name train.npz" in text
    assert result.out.endswith("Everything was read; nothing is damaged.\n")


@pytest.fixture
def partial(tmp_path, monkeypatch):
    """An archive of 10 examples in blocks of 4, of which one checkpoint is complete and one is not."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    try:
        with GradientWriter("g.h5", 10, (3,), block_size=4) as writer:
            writer.write("first", 0, values)
            writer.write("second", 0, values[:4])
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return tmp_path / "g.h5.partial"


def test_an_archive_under_way(partial, cli):
    text = flat(cli("inspect", "g.h5.partial").out)
    assert "gradient archive under way" in text
    assert "NOT COMPLETE" in text
    assert "The gradients of checkpoint second, examples 4 to 9, are missing." in text
    assert "--verify does that" in text
    assert "blocks_done.gradients 3, 1" in text
    result = cli("inspect", "g.h5.partial", "--verify")
    assert (result.status, result.out.splitlines()[-1]) == (0, "Everything was read; nothing is damaged.")


def test_damage_has_a_status_of_its_own(partial, cli):
    with h5py.File(partial, "r+") as file:
        file["gradients"][0, 5, 0] += 1
    assert cli("inspect", "g.h5.partial").status == 0
    result = cli("inspect", "g.h5.partial", "--verify")
    assert result.status == 1
    assert "WARNING: damaged - g.h5.partial is damaged: the gradients of checkpoint 0, examples 4 to 7" in flat(
        result.out
    )


def test_many_checkpoints_are_cut_short(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    with GradientWriter("g.h5", 2, (3,)) as writer:
        for index in range(40):
            writer.write(f"epoch {index}", 0, np.full((2, 3), index, np.float32))
    text = cli("inspect", "g.h5").out
    assert "Checkpoints (40)" in text
    assert "epoch 10" in text
    assert "epoch 11" not in text
    assert "epoch 39" in text


def test_bad_input(run_folder, cli, tools):
    tools.refused(cli("inspect", "nope.h5"), "nope.h5", "no such file")
    tools.refused(cli("inspect", "."), "not that of a live run")
    tools.refused(cli("inspect", "train.npz"), "train.npz is none of the files that vogcore writes, nor an ONNX model")
    (run_folder / "cut.onnx").write_bytes((run_folder / "ckpt-0.onnx").read_bytes()[:40])
    tools.refused(cli("inspect", "cut.onnx"), "cut.onnx")
