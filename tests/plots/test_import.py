"""matplotlib is loaded when something is drawn, and asked for in one sentence where it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vogcore.errors import VogcoreError


def test_nothing_is_loaded_before_a_plot_is_drawn():
    code = (
        "import sys, vogcore.plots, vogcore.store.scores as s; s.Scores.plot; vogcore.plots.Plots(None); "
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "draw",
    [
        lambda p, x: p.deciles(),
        lambda p, x: p.distribution(),
        lambda p, x: p.grid(x),
        lambda p, x: p.map(3),
        lambda p, x: p.history(3),
    ],
)
def test_without_matplotlib(scores, images, monkeypatch, draw):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with pytest.raises(VogcoreError, match=r"^Plots need matplotlib: .* pip install 'vogcore\[report\]'\.$"):
        draw(scores.plot, images)


def test_the_accessor_says_what_there_is(scores):
    assert "deciles, distribution, grid, map, history" in repr(scores.plot)
