"""``scores.plot``: the plots by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from vogcore.store.schema import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vogcore.store import Scores

__all__ = ["Plots"]


class Plots:
    """Plots of one :class:`vogcore.Scores`, by matplotlib: ``scores.plot.deciles()``.

    Every method draws on ``ax``, or on a new figure, and returns the axes; ``.figure`` is the figure they belong to.
    All say which end of the score is the hard one, as the run measured it, or that it did not.

    Args:
        scores: what is plotted.

    Raises:
        VogcoreError: matplotlib is not installed (by every method).
        SettingsError: there is no stage or score of that name (by every method that takes them).
    """

    def __init__(self, scores: Scores) -> None:
        self._scores = scores

    def __repr__(self) -> str:
        return f"<plots of {self._scores!r}: deciles, distribution, grid, map, history>"

    def deciles(self, *, stage: str = ALL, score: str = "vog", bins: int = 10, ax: Axes | None = None) -> Axes:
        """Error rate of the last checkpoint in each tenth of the examples, lowest scores on the left.

        Were the score worthless, the bars would be level with the dashed line, the error rate of all examples. The
        whiskers are 95% intervals (Wilson 1927). Examples without a label or a score are left out; ties are cut in the
        order of the data.

        Args:
            stage: which window of checkpoints.
            score: ``"vog"``, ``"vog_raw"`` or ``"vog_relative"``.
            bins: number of groups.
            ax: axes to draw on.

        Raises:
            SettingsError: the scores do not say which examples are errors, or there are fewer examples than groups.
        """
        from vogcore.plots.charts import draw_deciles

        return draw_deciles(self._scores, stage, score, bins, ax)

    def distribution(
        self,
        *,
        by: Literal["correct", "class"] | None = None,
        stage: str = ALL,
        score: str = "vog",
        bins: int | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """How many examples have which score.

        Args:
            by: ``"correct"`` for two outlines, of the examples that the last checkpoint gets right and wrong, or
                ``"class"`` for one of each class (the ten largest), each as a share of its own examples.
            stage: which window of checkpoints.
            score: ``"vog"``, ``"vog_raw"`` or ``"vog_relative"``.
            bins: number of bars, equally wide, from the lowest to the highest score; 50 by default, 20 for outlines.
            ax: axes to draw on.

        Raises:
            SettingsError: no score is finite, ``by`` is not known, or what it needs is not in the scores.
        """
        from vogcore.plots.charts import draw_distribution

        return draw_distribution(self._scores, by, stage, score, bins, ax)

    def grid(
        self,
        source: Any,
        n: int = 5,
        *,
        classes: Sequence[str | int] | None = None,
        stage: str = ALL,
        score: str = "vog",
        ax: Axes | None = None,
    ) -> Axes:
        """The easiest and the hardest images of each class, with label, prediction and score (the paper's figure 1).

        Args:
            source: the examples that were scored, in the same order: what :func:`vogcore.score` takes as ``data``.
                Images (height, width), with or without 1, 3 or 4 channels; best as they are stored, before scale and
                mean.
            n: how many of each end.
            classes: names or indices of classes, one row each; by default the first ten that have examples. Without
                labels there is one row, of all examples.
            stage: which window of checkpoints.
            score: ``"vog"``, ``"vog_raw"`` or ``"vog_relative"``.
            ax: axes to draw on.

        Raises:
            SettingsError: the source is another one or holds no images, or there is no such class.
            DataError: the source cannot be read.
        """
        from vogcore.plots.pictures import draw_grid

        return draw_grid(self._scores, source, n, classes, stage, score, ax)

    def map(
        self, position: int, source: Any = None, *, stage: str = ALL, score: str = "vog", ax: Axes | None = None
    ) -> Axes:
        """Where in an example the gradient varies over the checkpoints, over its image where ``source`` is given.

        Maps are of the examples that were chosen by ``score(..., maps=)``, over all checkpoints. A map of one dimension
        (tabular data, tokens) becomes bars.

        Args:
            position: position of the example in the data set.
            source: as for :meth:`grid`.
            stage: ``"all"``, the only one that maps are of.
            score: the score that the title names.
            ax: axes to draw on; the colour bar takes a part of them.

        Raises:
            SettingsError: there is no map of that example, its shape cannot be drawn, or the source does not fit.
            DataError: the source cannot be read.
        """
        from vogcore.plots.pictures import draw_map

        return draw_map(self._scores, position, source, stage, score, ax)

    def history(self, position: int, *, stage: str = ALL, score: str = "vog", ax: Axes | None = None) -> Axes:
        """Probability of an example's label over the checkpoints, and what was predicted at each.

        A filled dot is a checkpoint that predicts the label, a cross one that predicts another class, whose name is
        written where it changes. Without labels, the predicted class itself is drawn.

        Args:
            position: position of the example in the data set.
            stage: whose checkpoints are drawn.
            score: the score that the title names.
            ax: axes to draw on.

        Raises:
            SettingsError: there is no such example, or the scores hold no predictions.
        """
        from vogcore.plots.charts import draw_history

        return draw_history(self._scores, position, stage, score, ax)
