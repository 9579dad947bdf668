"""The charts of a report, each a function from numbers to SVG; their tables are made in ``tables.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.report.findings import Finding
from vogcore.report.measures import Bins
from vogcore.report.parts import plain
from vogcore.report.svg import BACK, FAINT, INK, MUTED, SERIES, new_figure, style, to_svg

__all__ = ["density_panels", "deciles", "directions", "distribution", "feature_bars", "history", "kept", "quantiles"]

Float64Array = npt.NDArray[np.float64]

_DASHES = ("-", (0, (5, 2)), (0, (2, 2)), (0, (7, 2, 2, 2)), (0, (1, 1.5)), (0, (9, 2, 1, 2)))
_LONGEST = 26
# Blue that can be seen on white and on black, stronger with more examples; a picture cannot follow the page's colours.
_CLOUD = (0x3B / 255, 0x8E / 255, 0xEA / 255)


def _look(index: int) -> dict[str, Any]:
    """Colour and dashes of a line: never told apart by the colour alone."""
    return {"color": SERIES[index % len(SERIES)], "linestyle": _DASHES[index % len(_DASHES)]}


def directions(found: Sequence[Finding], ident: str) -> str:
    """AUROC for errors and rank correlation with the loss of every score, with their intervals."""
    with style():
        fig = new_figure(6.6, 1.1 + 0.22 * len(found))
        left, right = fig.subplots(1, 2, sharey=True)
        fig.get_layout_engine().set(wspace=0.08)
        y = np.arange(len(found))
        for ax, middle, label in ((left, 0.5, "AUROC for errors"), (right, 0.0, "rank correlation with the loss")):
            ax.axvline(middle, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
            ax.set_xlabel(label)
            ax.set_xlim((0, 1) if middle else (-1, 1))
            ax.set_xticks([0, 0.25, 0.5, 0.75, 1] if middle else [-1, -0.5, 0, 0.5, 1])
            ax.grid(axis="y", visible=False)
        for at, f in enumerate(found):
            d, colour = f.direction, SERIES[0] if f.stage else SERIES[1]
            marker = "o" if f.stage else "s"
            for ax, value, low, high in (
                (left, d.auroc_errors, f.low, f.high),
                (right, d.spearman_loss, d.spearman_low, d.spearman_high),
            ):
                if not (math.isnan(low) or math.isnan(high)):
                    ax.plot([low, high], [at, at], color=colour, linewidth=2, solid_capstyle="butt")
                if not math.isnan(value):
                    ax.plot([value], [at], marker=marker, markersize=5, color=colour)
        left.set_yticks(y, [plain(f.title, _LONGEST) for f in found])
        left.set_ylim(len(found) - 0.4, -0.6)
        names = ", ".join(f"{f.title}: {f.direction.auroc_errors:.2f}" for f in found if f.stage)
        return to_svg(
            fig,
            ident,
            "How every score goes with errors and loss",
            f"AUROC for errors of the scores of VoG: {names}. Circles are scores of VoG, squares are companions; "
            "lines are 95% confidence intervals.",
        )


def distribution(curves: Mapping[str, tuple[npt.NDArray, Float64Array]], score: str, ident: str) -> str:
    """Share of the examples by score, a stepped line for each stage.

    Args:
        curves: counts and edges by the name of the stage.
        score: name of the score.
        ident: of the chart in the page.
    """
    with style():
        fig = new_figure()
        ax = fig.subplots()
        for at, (name, (count, edges)) in enumerate(curves.items()):
            share = count / max(count.sum(), 1) / np.diff(edges)
            ax.stairs(share, edges, label=plain(name, _LONGEST), linewidth=1.6, **_look(at))
        ax.set_xlabel(score)
        ax.set_ylabel("share of examples per unit")
        ax.set_ylim(bottom=0)
        if len(curves) > 1:
            ax.legend(title="stage")
        return to_svg(
            fig, ident, f"Distribution of {score}", f"Histogram of {score} over all examples, one line for each stage."
        )


def quantiles(names: Sequence[str], values: Float64Array, score: str, ident: str) -> str:
    """Median, middle half and middle 90% of a score in each class.

    Args:
        names: C names, in the order from top to bottom.
        values: (C, 5): 5%, 25%, 50%, 75% and 95% quantiles.
        score: name of the score.
        ident: of the chart in the page.
    """
    with style():
        fig = new_figure(6.6, 0.9 + 0.21 * len(names))
        ax = fig.subplots()
        for at, row in enumerate(values):
            if np.isnan(row).any():
                continue
            ax.plot([row[0], row[4]], [at, at], color=MUTED, linewidth=1)
            ax.plot([row[1], row[3]], [at, at], color=SERIES[0], linewidth=5, solid_capstyle="butt")
            ax.plot([row[2]], [at], marker="|", markersize=9, markeredgewidth=2, color=INK)
        ax.set_yticks(np.arange(len(names)), [plain(name, _LONGEST) for name in names])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(score)
        return to_svg(
            fig,
            ident,
            f"{score} by class",
            "For each class the median (tick), the middle half (bar) and the middle 90% (line) of the examples.",
        )


def deciles(panels: Mapping[str, Bins], overall: float, score: str, what: str, ident: str) -> str:
    """Error rate by decile of the score, a panel for each stage: the figure of the paper.

    Args:
        panels: bins by the name of the stage.
        overall: error rate of all examples.
        score: name of the score.
        what: name of the rate.
        ident: of the chart in the page.
    """
    columns = min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    with style():
        fig = new_figure(6.6, 0.5 + 1.9 * rows)
        axes = fig.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        for at, (ax, (name, bins)) in enumerate(zip(axes, panels.items(), strict=False)):
            rate = 100 * bins.rate
            low, high = (100 * side for side in bins.interval())
            x = np.arange(1, len(rate) + 1)
            ax.bar(x, rate, color=SERIES[0], width=0.8)
            ax.vlines(x, low, high, color=INK, linewidth=0.8)
            ax.axhline(100 * overall, color=SERIES[1], linewidth=1, linestyle=(0, (4, 2)))
            ax.set_title(plain(name, 18))
            lowest, *_, highest = ax.set_xticks([1, len(x)], ["lowest", "highest"])
            lowest.label1.set_horizontalalignment("left")
            highest.label1.set_horizontalalignment("right")
            ax.grid(axis="x", visible=False)
            if at % columns == 0:
                ax.set_ylabel(f"{what} (%)")
        shown = "; ".join(f"{name}: {_percents(bins.rate)}" for name, bins in panels.items())
        return to_svg(
            fig,
            ident,
            f"{what.capitalize()} by decile of {score}",
            f"From the lowest to the highest decile, in per cent: {shown}. The dashed line is the rate of all "
            "examples.",
        )


def _percents(rates: Float64Array) -> str:
    return " ".join(f"{100 * rate:.0f}" for rate in rates)


def kept(shares: Sequence[float], curves: Mapping[str, Float64Array], overall: float, ident: str) -> str:
    """Accuracy of what is kept, by the share of the hardest examples that is set aside."""
    with style():
        fig = new_figure(6.6, 3.2)
        ax = fig.subplots()
        x = 100 * np.asarray(shares)
        for at, (name, values) in enumerate(curves.items()):
            ax.plot(x, 100 * values, label=plain(name, _LONGEST), marker=".", markersize=4, **_look(at))
        ax.axhline(100 * overall, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), label="at random")
        ax.set_xlabel("hardest examples set aside (%)")
        ax.set_ylabel("accuracy of the rest (%)")
        ax.legend()
        ends = ", ".join(f"{name}: {100 * values[-1]:.1f}%" for name, values in curves.items())
        return to_svg(
            fig,
            ident,
            "Accuracy of the examples that are kept",
            f"With {x[-1]:.0f}% set aside the accuracy of the rest is, by score: {ends}.",
        )


def density_panels(
    panels: Sequence[tuple[str, str, npt.NDArray, Float64Array, Float64Array]],
    title: str,
    description: str,
    ident: str,
) -> str:
    """Two measures against each other, stronger where there are more examples; several of them side by side.

    Args:
        panels: name of the horizontal and of the vertical measure, counts (rows, columns), edges of both.
        title, description: what the chart shows.
        ident: of the chart in the page.
    """
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    size = (4.4, 3.8) if len(panels) == 1 else (6.6, 0.2 + 2.1 * rows)
    with style():
        fig = new_figure(*size)
        axes = fig.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        for ax, (across, up, count, x, y) in zip(axes, panels, strict=False):
            # The logarithm shows single examples beside thousands.
            strength = np.log1p(count) / max(np.log1p(count.max()), 1e-9)
            cloud = np.empty((*count.shape, 4))
            cloud[..., :3] = _CLOUD
            cloud[..., 3] = np.where(count > 0, 0.15 + 0.85 * strength, 0)
            ax.imshow(
                cloud, origin="lower", extent=(x[0], x[-1], y[0], y[-1]), aspect="auto", interpolation="none", zorder=2
            )
            ax.set_xlabel(plain(across, _LONGEST))
            ax.set_ylabel(plain(up, _LONGEST))
            ax.locator_params(nbins=5)
        return to_svg(fig, ident, title, description)


def history(
    steps: Sequence[float],
    probability: npt.NDArray | None,
    right: npt.NDArray[np.bool_] | None,
    axis: str,
    ident: str,
    title: str,
) -> str:
    """Probability of the label over the checkpoints; filled where the checkpoint predicts the label, a cross where not.

    Args:
        steps: (K,) where the checkpoints stand on the horizontal axis.
        probability: (K,) probability of the label.
        right: (K,) whether the label was predicted, or None where predictions are missing.
        axis: name of the horizontal axis.
        ident: of the chart in the page.
        title: what the chart shows.
    """
    with style():
        fig = new_figure(3.6, 1.9)
        ax = fig.subplots()
        values = np.zeros(len(steps)) if probability is None else np.asarray(probability, np.float64)
        ax.plot(steps, values, color=SERIES[0], linewidth=1.2)
        for chosen, marker, colour, label in ((True, "o", SERIES[0], "right"), (False, "X", SERIES[1], "wrong")):
            rows = np.zeros(len(steps), bool) if right is None else right == chosen
            if rows.any():
                ax.plot(
                    np.asarray(steps)[rows], values[rows], linestyle="none", marker=marker, color=colour, label=label,
                    markersize=6, clip_on=False,
                )  # fmt: skip
        ax.set_ylim(0, 1)
        ax.set_xlabel(axis)
        ax.set_ylabel("p of the label")
        if right is not None:
            fig.legend(loc="outside upper right", ncols=2, fontsize=8)
        said = ", ".join(f"{value:.2f}" for value in values)
        return to_svg(fig, ident, title, f"Probability of the label at each checkpoint: {said}.")


def feature_bars(names: Sequence[str], values: Float64Array, ident: str, title: str) -> str:
    """One bar for each feature, from the first name at the top."""
    with style():
        fig = new_figure(6.6, 0.8 + 0.21 * len(names))
        ax = fig.subplots()
        ax.barh(np.arange(len(names)), values, color=SERIES[0], edgecolor=BACK)
        ax.set_yticks(np.arange(len(names)), [plain(name, _LONGEST) for name in names])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("VoG of the feature")
        ax.axvline(0, color=FAINT, linewidth=0.8)
        said = ", ".join(f"{plain(n, 40)} {v:.3g}" for n, v in zip(names, values, strict=True))
        return to_svg(fig, ident, title, said)
