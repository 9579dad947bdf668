"""Plots of numbers: error rates, distributions, histories."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError
from vogcore.plots.canvas import BAR, FAINT, HARD, axes, ink, text
from vogcore.plots.numbers import deciles, place, values_of
from vogcore.store.words import class_name, hard_end, score_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vogcore.store import Scores

__all__ = ["check_position", "draw_deciles", "draw_distribution", "draw_history", "example_title", "figure", "subtitle"]

_MOST_CLASSES = 10
_BARS, _STEPS = 50, 20
"""Bars of one distribution; of several, which are to be told apart."""
_MOST_NAMES = 12
"""Class names on an axis, or beside a line."""


def subtitle(scores: Scores, stage: str, score: str) -> str:
    """``"raw VoG, stage late; high is hard (as measured)"``."""
    return f"{score_title(score)}, stage {text(stage)}; {hard_end(scores.stage(stage).direction(score))}"


def draw_deciles(scores: Scores, stage: str, score: str, bins: int, ax: Axes | None) -> Axes:
    """See :meth:`vogcore.plots.Plots.deciles`."""
    found = deciles(scores, stage, score, bins)
    ax = axes(ax)
    at = np.arange(1, bins + 1)
    rate, (low, high) = 100 * found.rate, found.interval()
    overall = 100 * found.errors.sum() / found.count.sum()
    # The hard half of the groups is marked by hatching as well, for print.
    hard_is_high = scores.stage(stage).direction(score).hard_is_high
    hard = at > (bins + 1) / 2 if hard_is_high else at < (bins + 1) / 2
    bars = ax.bar(at, rate, color=BAR, edgecolor="white")
    for bar in [bar for bar, marked in zip(bars, hard, strict=True) if marked]:
        bar.set(facecolor=HARD, hatch="//")
    whiskers = np.stack([rate - 100 * low, 100 * high - rate])
    ax.errorbar(at, rate, yerr=whiskers, fmt="none", ecolor=ink(), elinewidth=1, capsize=2)
    ax.axhline(overall, color=ink(), linestyle="--", linewidth=1)
    ax.annotate(
        f"all: {overall:.1f}%", (1, overall), xycoords=("axes fraction", "data"),
        xytext=(3, 0), textcoords="offset points", va="center", fontsize="small", annotation_clip=False,
    )  # fmt: skip
    name = "decile" if bins == 10 else f"group of {bins}"
    ends = ("easiest", "hardest") if hard_is_high else ("hardest", "easiest")
    ax.set_xlabel(f"{name} of {score_title(score)}, lowest (taken as {ends[0]}) to highest ({ends[1]})")
    ax.set_ylabel("errors at the last checkpoint (%)")
    ax.set_ylim(bottom=0)
    if bins <= 20:
        ax.set_xticks(at)
    ax.set_title(f"Errors by {score_title(score)}\n{subtitle(scores, stage, score)}", fontsize="medium")
    return ax


def draw_distribution(
    scores: Scores, by: str | None, stage: str, score: str, bins: int | None, ax: Axes | None
) -> Axes:
    """See :meth:`vogcore.plots.Plots.distribution`."""
    values = values_of(scores, stage, score)
    groups, note = _groups(scores, by)
    finite = np.isfinite(values)
    if not finite.any():
        raise SettingsError(f"No {score} of stage {stage!r} is a finite number, so there is nothing to draw.")
    if bins is None:
        bins = _BARS if by is None else _STEPS
    if bins < 1:
        raise SettingsError(f"bins={bins} is not possible; choose 1 or more.")
    edges = np.histogram_bin_edges(values[finite], bins)
    ax = axes(ax)
    if by is None:
        ax.stairs(np.histogram(values[finite], edges)[0], edges, fill=True, color=BAR)
        ax.set_ylabel("examples")
    else:
        styles = ["-", "--", "-.", ":"]
        for number, (name, members) in enumerate(groups):
            counts = np.histogram(values[members & finite], edges)[0]
            share = 100 * counts / max(int(counts.sum()), 1)
            label = f"{name} ({int(counts.sum()):,})"
            colour = (BAR, HARD)[number] if by == "correct" else f"C{number}"
            # matplotlib's ten colours do not stay apart for everybody, so the strokes differ too.
            ax.stairs(share, edges, label=label, color=colour, linestyle=styles[number % len(styles)], linewidth=1.5)
        ax.set_ylabel("share of the group's examples (%)")
        ax.legend(fontsize="small", title=note, title_fontsize="small")
    high = scores.stage(stage).direction(score).hard_is_high
    ax.set_xlabel(f"{score_title(score)} ({'taken as hard: right end' if high else 'taken as hard: left end'})")
    ax.set_title(f"Distribution of {score_title(score)}\n{subtitle(scores, stage, score)}", fontsize="medium")
    return ax


def _groups(scores: Scores, by: str | None) -> tuple[list[tuple[str, npt.NDArray[np.bool_]]], str | None]:
    """Names and members (N,) of the outlines, and what is said above the legend."""
    if by is None:
        return [], None
    if by == "correct":
        correct = scores.companions.get("correct")
        if correct is None:
            raise SettingsError(
                'by="correct" needs the companion "correct", which these scores do not have; score with labels, and '
                "gradients with logits."
            )
        labelled, right = scores.labels >= 0, correct.values.astype(bool)
        return [("right", right & labelled), ("wrong", ~right & labelled)], "last checkpoint"
    if by == "class":
        if not np.any(scores.labels >= 0):
            raise SettingsError('by="class" needs labels, which these scores do not have.')
        count = np.bincount(scores.labels[scores.labels >= 0], minlength=len(scores.classes))
        largest = np.sort(np.argsort(-count, kind="stable")[:_MOST_CLASSES])
        groups = [(text(class_name(scores, int(c))), scores.labels == c) for c in largest if count[c]]
        more = np.count_nonzero(count) - len(groups)
        return groups, f"the {len(groups)} largest classes" if more > 0 else None
    raise SettingsError(f"by={by!r} is not known; choose 'correct', 'class' or None.")


def check_position(scores: Scores, position: int) -> int:
    """The position of an example, checked.

    Raises:
        SettingsError: there is no such example.
    """
    position = operator.index(position)
    if not 0 <= position < len(scores):
        raise SettingsError(f"There is no example {position}; the examples are 0 to {len(scores) - 1}.")
    return position


def example_title(scores: Scores, position: int, stage: str, score: str) -> str:
    """Three lines that say which example it is, and how hard it is by its score."""
    own = float(values_of(scores, stage, score)[position])
    identity = "" if scores.ids[position] == position else f" (id {text(scores.ids[position])})"
    found = place(scores, position, stage, score)
    rank = f", {found[0]:,} of {found[1]:,} from the hard end" if found else ""
    return (
        f"Example {position}{identity}, label {text(class_name(scores, int(scores.labels[position])))}\n"
        f"{score_title(score)} {figure(scores, own, stage, score)}{rank}\n"
        f"stage {text(stage)}; {hard_end(scores.stage(stage).direction(score))}"
    )


def figure(scores: Scores, value: float, stage: str, score: str) -> str:
    """A score as it is written: with its sign and two digits where it was standardised, else three figures."""
    standardised = score == "vog" and scores.stage(stage).normalise != "none"
    return format(value, "+.2f" if standardised else ".3g")


def draw_history(scores: Scores, position: int, stage: str, score: str, ax: Axes | None) -> Axes:
    """See :meth:`vogcore.plots.Plots.history`."""
    position = check_position(scores, position)
    title = example_title(scores, position, stage, score)
    predicted, probability = scores.predictions_class, scores.predictions_label_probability
    if predicted is None:
        raise SettingsError(
            "A history needs the predictions of every checkpoint, which these scores do not have; score models, or "
            "gradients with logits."
        )
    chosen = scores.stage(stage).checkpoints
    guess, label = predicted[chosen, position], int(scores.labels[position])
    at, name = _times(scores, chosen)
    ax = axes(ax)
    if probability is None or label < 0:
        _predicted_classes(ax, scores, at, guess)
    else:
        p, right = probability[chosen, position], guess == label
        ax.plot(at, p, color=FAINT, linewidth=1, zorder=1)
        ax.plot(at[right], p[right], "o", color=BAR, label="predicts the label")
        ax.plot(at[~right], p[~right], "X", color=HARD, label="predicts another class")
        _name_changes(ax, scores, at, p, guess, label)
        ax.set_ylim(-0.05, 1.1)
        ax.set_ylabel("probability of the label")
        ax.legend(fontsize="small", loc="lower right" if p.mean() > 0.5 else "upper right")
    ax.set_xlabel(name)
    ax.set_title(title, fontsize="medium")
    return ax


def _times(scores: Scores, chosen: npt.NDArray[np.int64]) -> tuple[npt.NDArray, str]:
    """Where the checkpoints stand on the axis: by step or epoch where all of them have one that grows."""
    infos = [scores.checkpoints[i] for i in chosen]
    for name in ("step", "epoch"):
        times = [getattr(info, name) for info in infos]
        if None not in times and np.all(np.diff(np.array(times)) > 0):
            return np.array(times), name
    return np.asarray(chosen), "checkpoint (from 0)"


def _name_changes(ax: Axes, scores: Scores, at: npt.NDArray, p: npt.NDArray, guess: npt.NDArray, label: int) -> None:
    """Write the wrong class where another one is predicted than before, as long as there are few of them."""
    changes = [i for i in range(len(guess)) if guess[i] != label and (i == 0 or guess[i] != guess[i - 1])]
    for i in changes[:_MOST_NAMES]:
        ax.annotate(
            text(class_name(scores, int(guess[i]))), (at[i], p[i]), xytext=(0, 7), textcoords="offset points",
            ha="center", fontsize="small",
        )  # fmt: skip


def _predicted_classes(ax: Axes, scores: Scores, at: npt.NDArray, guess: npt.NDArray) -> None:
    ax.step(at, guess, where="mid", color=FAINT, linewidth=1)
    ax.plot(at, guess, "o", color=BAR)
    seen = np.unique(guess)
    if len(seen) <= _MOST_NAMES:
        ax.set_yticks(seen, [text(class_name(scores, int(c))) for c in seen])
    ax.set_ylabel("predicted class")
