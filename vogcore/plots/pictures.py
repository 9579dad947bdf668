"""Plots of examples: the hardest and the easiest images, and per-pixel maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError
from vogcore.plots.canvas import BAR, HARD, axes, ink, require_matplotlib, text
from vogcore.plots.charts import check_position, example_title, figure, subtitle
from vogcore.plots.images import open_images, picture
from vogcore.plots.numbers import values_of
from vogcore.store.schema import ALL
from vogcore.store.words import class_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vogcore.store import Scores

__all__ = ["draw_grid", "draw_map"]

_MOST_ROWS = 10
_WORDS, _GAP, _BETWEEN = 0.42, 0.12, 0.6
"""In heights of an image: two lines of words below it, the gap beside it, the gap between the two ends."""


def draw_grid(
    scores: Scores,
    source: Any,
    n: int,
    classes: Sequence[str | int] | None,
    stage: str,
    score: str,
    ax: Axes | None,
) -> Axes:
    """See :meth:`vogcore.plots.Plots.grid`."""
    values = values_of(scores, stage, score)
    if n < 1:
        raise SettingsError(f"n={n} is not possible; choose 1 or more.")
    rows = _rows(scores, classes)
    opened = open_images(source, len(scores))
    hardest, easiest = (order(len(scores), stage=stage, score=score) for order in (scores.hardest, scores.easiest))
    width = 2 * n + _GAP * (2 * n - 2) + _BETWEEN
    height = len(rows) * (1 + _WORDS) + 0.3
    require_matplotlib()
    ax = axes(ax, (max(5.0, 1.1 + 0.95 * width), 0.8 + 0.95 * height))
    for row, (_, members) in enumerate(rows):
        top = row * (1 + _WORDS)
        # Easy to hard from left to right, so that the hard end is outside like the easy one.
        ends = (easiest[members[easiest]][:n], hardest[members[hardest]][:n][::-1])
        for start, positions in zip((0.0, n + _GAP * (n - 1) + _BETWEEN), ends, strict=True):
            for column, position in enumerate(positions.tolist()):
                left = start + column * (1 + _GAP)
                _thumbnail(ax, picture(opened, position), left, top)
                _caption(ax, scores, position, figure(scores, float(values[position]), stage, score), left, top)
    _headings(ax, scores, n, [name for name, _ in rows], width, stage, score)
    return ax


def _rows(scores: Scores, classes: Sequence[str | int] | None) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Heading and members (N,) of every row."""
    if not np.any(scores.labels >= 0):
        if classes is not None:
            raise SettingsError("Classes cannot be chosen, because these scores have no labels.")
        return [("all", np.ones(len(scores), bool))]
    present = np.unique(scores.labels[scores.labels >= 0])
    if classes is None:
        chosen = present[:_MOST_ROWS].tolist()
    else:
        chosen = [_class_index(scores, entry) for entry in classes]
    return [(text(class_name(scores, c), 16), scores.labels == c) for c in chosen]


def _class_index(scores: Scores, entry: str | int) -> int:
    found = [i for i, name in enumerate(scores.classes) if name == entry] if isinstance(entry, str) else [int(entry)]
    if len(found) != 1 or not 0 <= found[0] < len(scores.classes) or not np.any(scores.labels == found[0]):
        raise SettingsError(f"classes names {entry!r}, which is not one class with examples; give names or indices.")
    return found[0]


def _thumbnail(ax: Axes, image: npt.NDArray, left: float, top: float) -> None:
    """One image in a square of side 1, in its own proportions."""
    high, wide = image.shape[:2]
    w, h = (1.0, high / wide) if wide >= high else (wide / high, 1.0)
    x, y = left + (1 - w) / 2, top + (1 - h) / 2
    # Small images are shown pixel by pixel instead of blurred.
    ax.imshow(
        image, extent=(x, x + w, y + h, y), cmap="gray", vmin=0, vmax=1,
        interpolation="nearest" if max(high, wide) <= 64 else "antialiased",
    )  # fmt: skip


def _caption(ax: Axes, scores: Scores, position: int, value: str, left: float, top: float) -> None:
    """Prediction and score below an image; its label stands at the row."""
    predicted, label = scores.predictions_class, int(scores.labels[position])
    words, colour = "", ink()
    if predicted is not None and len(predicted):
        guess = int(predicted[-1][position])
        wrong = 0 <= label != guess
        words = f"{text(class_name(scores, guess), 12)}{' (wrong)' if wrong else ''}\n"
        colour = HARD if wrong else colour
    ax.text(left + 0.5, top + 1.04, f"{words}{value}", ha="center", va="top", fontsize=7, color=colour, linespacing=1.1)


def _headings(ax: Axes, scores: Scores, n: int, names: list[str], width: float, stage: str, score: str) -> None:
    high = scores.stage(stage).direction(score).hard_is_high
    half = n + _GAP * (n - 1)
    for centre, end, place in ((half / 2, "easiest", not high), (width - half / 2, "hardest", high)):
        ax.text(centre, -0.12, f"{end} ({'highest' if place else 'lowest'})", ha="center", va="bottom", fontsize=9)
    ax.set_xlim(-0.05, width + 0.05)
    ax.set_ylim(len(names) * (1 + _WORDS), -0.45)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([row * (1 + _WORDS) + 0.5 for row in range(len(names))], names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    below = "below each image: prediction, score" if scores.predictions_class is not None else "below each image: score"
    ax.set_title(f"{subtitle(scores, stage, score)}\nrows: label; {below}", fontsize="medium")


def draw_map(scores: Scores, position: int, source: Any, stage: str, score: str, ax: Axes | None) -> Axes:
    """See :meth:`vogcore.plots.Plots.map`."""
    position = check_position(scores, position)
    title = example_title(scores, position, stage, score)
    if stage != ALL:
        raise SettingsError(f"Maps are over all checkpoints, not those of stage {stage!r}; leave stage out.")
    if scores.maps is None:
        raise SettingsError("These scores have no maps; ask for them when scoring: score(..., maps=50).")
    drawn = _flat(scores.maps.of(position))
    opened = None if source is None else open_images(source, len(scores))
    reduction = "variance" if scores.settings.get("reduction") == "var" else "standard deviation"
    label = f"{reduction} of the gradient over the checkpoints"
    ax = axes(ax, (6.4, 4.0) if drawn.ndim == 1 else (5.6, 4.6))
    if drawn.ndim == 1:
        ax.bar(np.arange(len(drawn)), drawn, color=BAR)
        ax.set_xlabel("feature or token (from 0)")
        ax.set_ylabel(label)
    else:
        over = opened is not None
        extent = (-0.5, drawn.shape[1] - 0.5, drawn.shape[0] - 0.5, -0.5)
        if opened is not None:
            image = picture(opened, position)
            grey = image if image.ndim == 2 else image[..., :3] @ np.array([0.299, 0.587, 0.114])
            ax.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        # Over an image, a map that is opaque where it is low would hide everything.
        most = max(float(drawn.max(initial=0.0)), float(np.finfo(np.float32).tiny))
        alpha = 0.8 * drawn / most if over else None
        shown = ax.imshow(drawn, cmap="inferno", alpha=alpha, extent=extent, interpolation="nearest", vmin=0)
        bar = ax.figure.colorbar(shown, ax=ax, label=label)
        bar.set_alpha(1)  # of the map alone; the bar shows what the colours stand for
        ax.set_xticks([])
        ax.set_yticks([])
    ax.set_title(title, fontsize="medium")
    return ax


def _flat(vog: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """A map of one or two dimensions; channels that were not reduced in the run are averaged.

    Raises:
        SettingsError: it has other dimensions.
    """
    values = vog.astype(np.float64)
    if values.ndim == 3 and min(values.shape[0], values.shape[-1]) <= 4:
        values = values.mean(axis=0 if values.shape[0] <= 4 else 2)
    if values.ndim not in (1, 2):
        raise SettingsError(
            f"A map of shape {vog.shape} cannot be drawn, only one with a value for each feature or each pixel; take "
            "it from scores.maps.of(position)."
        )
    return values
