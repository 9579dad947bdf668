"""``vogcore merge``: shards on the command line; tests/scoring/test_merge.py has what comes out."""

from __future__ import annotations

import numpy as np
import pytest

import vogcore

CUTS = [(0, 16), (16, 48)]


@pytest.fixture
def shards(run_folder, score, tools):
    x, y = tools.examples()
    for index, (first, last) in enumerate(CUTS):
        np.savez(f"part-{index}.npz", x=x[first:last], y=y[first:last])
        words = ["-o", f"part-{index}.h5", "--batch-size", "16", "--threads", "1"]
        assert score(*words, data=f"part-{index}.npz").status == 0
    assert score("--batch-size", "16", "--threads", "1").status == 0
    return run_folder


def test_shards_become_one_file(shards, cli):
    result = cli("merge", "part-0.h5", "part-1.h5", "-o", "all.h5")
    assert result.status == 0, result.err
    assert result.out.startswith("48 examples of 2 files joined into all.h5.\nThe ids were positions inside of each")
    assert result.out.endswith("Look at it with: vogcore show all.h5\n")
    merged, whole = vogcore.open_scores("all.h5"), vogcore.open_scores("scores.h5")
    np.testing.assert_array_equal(merged.vog, whole.vog)
    np.testing.assert_array_equal(merged.ids, whole.ids)
    shown = cli("show", "all.h5").out
    assert "part-0.npz + part-1.npz" in shown


def test_order_by_id(shards, cli, tools):
    tools.refused(cli("merge", "part-0.h5", "part-1.h5", "-o", "all.h5", "--order", "id"), "Example 0 is in part-0.h5")
    x, y = tools.examples()
    for index, (first, last) in enumerate(CUTS):
        vogcore.score(
            "ckpt-*.onnx", x[first:last], y[first:last], ids=np.arange(first, last), provider="cpu", overwrite=True,
            out=f"part-{index}.h5",
        )  # fmt: skip
    result = cli("merge", "part-1.h5", "part-0.h5", "-o", "all.h5")
    assert "They are in the order of their ids." in result.out
    np.testing.assert_array_equal(vogcore.open_scores("all.h5").ids, np.arange(48))


def test_bad_input(shards, cli, score, tools):
    before = tools.listing(shards)
    tools.refused(cli("merge", "part-0.h5", "-o", "all.h5"), "at least two")
    tools.refused(cli("merge", "part-0.h5", "part-0.h5", "-o", "all.h5"), "scores of the same examples")
    tools.refused(cli("merge", "part-0.h5", "nope.h5", "-o", "all.h5"), "nope.h5")
    tools.refused(cli("merge", "part-0.h5", "part-1.h5", "-o", "scores.h5"), "scores.h5 exists already", "--overwrite")
    words = ["merge", "part-0.h5", "part-1.h5", "-o", "part-0.h5", "--overwrite"]
    tools.refused(cli(*words), "part-0.h5 is an input")
    assert tools.listing(shards) == before
    score("-o", "part-2.h5", "--reduction", "var", data="part-1.npz")
    tools.refused(
        cli("merge", "part-0.h5", "part-2.h5", "-o", "all.h5"),
        "part-2.h5 cannot be merged with part-0.h5: reduction is 'var' and not 'std'",
    )
