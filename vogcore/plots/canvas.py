"""What all plots share: matplotlib on use, a place to draw, colours, and names that are not read as formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vogcore.errors import VogcoreError
from vogcore.store.words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BAR", "FAINT", "HARD", "axes", "ink", "require_matplotlib", "text"]

# Colours that people with any kind of colour vision tell apart (Okabe & Ito 2008).
BAR, HARD, FAINT = "#0072B2", "#D55E00", "#8c8c8c"


def require_matplotlib() -> Any:
    """``matplotlib.pyplot``.

    Raises:
        VogcoreError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise VogcoreError("Plots need matplotlib: install it with pip install 'vogcore[report]'.") from error
    return plt


def axes(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """The axes to draw on: those given, or those of a new figure of that size in inches."""
    plt = require_matplotlib()
    if ax is not None:
        return ax
    made: Axes = plt.subplots(figsize=size, layout="constrained")[1]
    return made


def ink() -> str:
    """The colour of lines and words in the style that is set, which may have a dark ground."""
    colour: str = require_matplotlib().rcParams["text.color"]
    return colour


def text(value: Any, most: int = 24) -> str:
    """A name as plain text: matplotlib would set what stands between two dollar signs as a formula, or fail at it."""
    return plain(value, most).replace("$", r"\$")
