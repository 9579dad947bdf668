"""Plots of scores for a notebook, by matplotlib (the extra ``report``); ``scores.plot`` is the way in.

matplotlib is imported when the first plot is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.plots.accessor import Plots as Plots

__all__ = ["Plots"]

__getattr__, __dir__ = lazy(__name__, {"Plots": "vogcore.plots.accessor"})
