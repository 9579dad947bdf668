"""Scores as a notebook shows them: HTML that stands by itself, in light and dark, with every name as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from vogcore.store.schema import ALL, NOT_MEASURED, SCORE_NAMES
from vogcore.store.words import class_name, clearest, hard_end, plain, score_title

if TYPE_CHECKING:
    from vogcore.store.scores import Direction, Scores

__all__ = ["to_html"]

_EXAMPLES, _DIRECTIONS, _WARNINGS = 5, 12, 3
"""How many lines of each kind are shown at the most."""

# No colour of its own but a grey that shows on white and on black: a notebook's theme is not known here.
_STYLE = """
.vogcore-scores { font-family: inherit; color: inherit; line-height: 1.4; max-width: 62em; }
.vogcore-scores table { border-collapse: collapse; margin: 0.3em 0 0.9em 0; color: inherit; background: none; }
.vogcore-scores caption { text-align: left; font-weight: bold; color: inherit; padding: 0 0 0.2em 0; }
.vogcore-scores th, .vogcore-scores td { padding: 0.15em 0.7em; text-align: right; white-space: nowrap; color: inherit;
  background: none; border: 0; border-bottom: 1px solid rgba(128, 128, 128, 0.35); font-variant-numeric: tabular-nums; }
.vogcore-scores .text { text-align: left; }
.vogcore-scores .lists { display: flex; flex-wrap: wrap; gap: 0 2.5em; }
.vogcore-scores p { margin: 0.2em 0 0.6em 0; }
"""


def to_html(scores: Scores) -> str:
    """Summary, measured directions, and the hardest and easiest examples; never raises.

    Where the scores are so broken that they cannot be described, what is left of their ``repr`` is shown.
    """
    try:
        return _html(scores)
    except Exception:  # noqa: BLE001 - a notebook shows what it is given; the scores may be somebody's half-made ones
        return f"<pre>{escape(_repr(scores))}</pre>"


def _repr(scores: Scores) -> str:
    try:
        return repr(scores)
    except Exception:  # noqa: BLE001
        return object.__repr__(scores)


def _html(scores: Scores) -> str:
    direction = scores.direction
    parts = [
        f"<p><strong>{escape(_heading(scores))}</strong><br>{escape(_how(scores))}</p>",
        f"<p>{escape(_sentence(direction))}{escape(_better(scores))}</p>",
        _directions(scores),
        f'<div class="lists">{_examples(scores, hard=True)}{_examples(scores, hard=False)}</div>'
        if len(scores)
        else "",
        _warnings(scores.warnings),
    ]
    return f'<div class="vogcore-scores"><style>{_STYLE}</style>{"".join(parts)}</div>'


def _heading(scores: Scores) -> str:
    n, k, c = len(scores), len(scores.checkpoints), len(scores.classes)
    return (
        f"vogcore scores: {n:,} {_plural(n, 'example')}, {c:,} {_plural(c, 'class', 'classes')}, "
        f"{k:,} {_plural(k, 'checkpoint')}"
    )


def _plural(number: int, one: str, more: str | None = None) -> str:
    return one if number == 1 else more or f"{one}s"


def _how(scores: Scores) -> str:
    settings, words = scores.settings, []
    if scores.checkpoints:
        words.append(f"{plain(scores.checkpoints[0].name)} to {plain(scores.checkpoints[-1].name)}")
    words += [f"{name} {plain(settings[name])}" for name in ("of", "target", "normalise", "scale") if name in settings]
    if scores.path:
        words.append(plain(scores.path, 80))
    return " · ".join(words)


def _sentence(direction: Direction) -> str:
    if direction.measured == NOT_MEASURED:
        return f"Which end is hard was not measured (that needs labels and logits); claimed: {direction.claimed}."
    figures = (
        f"rank correlation with the loss {_figure(direction.spearman_loss, '+.2f')} {_interval(direction)}, "
        f"AUROC for errors {_figure(direction.auroc_errors, '.2f')}, "
        f"{direction.n_errors:,} errors among {direction.n_examples:,}"
    )
    if not direction.decided:
        return f"Which end of VoG is hard is undecided on this run ({figures}): do not rank examples by it."
    against = ", the opposite of what the paper claims" if direction.contradicts else ""
    return f"On this run {direction.measured.replace(' is ', ' VoG is ')}{against} ({figures})."


def _better(scores: Scores) -> str:
    best = clearest(scores)
    if best is None or best[:2] == (ALL, "vog"):
        return ""
    stage, score, direction = best
    return (
        f" The score that goes with the loss most clearly is {score} at stage {plain(stage)} "
        f"({direction.spearman_loss:+.2f}, {direction.measured})."
    )


def _directions(scores: Scores) -> str:
    rows = []
    for stage in scores.stages.values():
        for score in SCORE_NAMES:
            d = stage.direction(score)
            if d.measured == NOT_MEASURED or getattr(stage, score) is None:
                continue
            note = "opposite of the claim" if d.contradicts else ""
            figures = [_figure(d.spearman_loss, "+.2f"), _interval(d), _figure(d.auroc_errors, ".2f")]
            rows.append([plain(stage.name), score, d.measured, note, *figures])
    if not rows:
        return ""
    header = ["stage", "score", "measured", "", "rank corr. with loss", "95% interval", "AUROC errors"]
    left_out = _left_out(len(rows), _DIRECTIONS, "score")
    return _table("Measured direction of each score", header, rows[:_DIRECTIONS], text=4) + left_out


def _examples(scores: Scores, *, hard: bool) -> str:
    order = (scores.hardest if hard else scores.easiest)(_EXAMPLES)
    end = "highest" if scores.direction.hard_is_high == hard else "lowest"
    predicted = scores.predictions_class
    loss = scores.companions.get("loss")
    header = ["position", "id", "label"]
    header += ["predicted"] if predicted is not None and len(predicted) else []
    text = len(header)
    header += ["VoG", "raw"] + (["loss"] if loss is not None else [])
    rows = []
    for i in order.tolist():
        row = [f"{i:,}", plain(scores.ids[i]), class_name(scores, int(scores.labels[i]))]
        if predicted is not None and len(predicted):
            guess = int(predicted[-1][i])
            row.append(class_name(scores, guess) + (" (wrong)" if 0 <= scores.labels[i] != guess else ""))
        row += [_figure(scores.vog[i], "+.2f"), _figure(scores.vog_raw[i], ".3g")]
        rows.append(row + ([_figure(loss.values[i], ".3f")] if loss is not None else []))
    title = f"{'Hardest' if hard else 'Easiest'}: {end} {score_title('vog')}; {hard_end(scores.direction)}"
    return f"<div>{_table(title, header, rows, text)}</div>"


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(plain(note, 400))}</li>" for note in warnings[:_WARNINGS])
    return f"<p>Warnings of the run:</p><ul>{items}</ul>{_left_out(len(warnings), _WARNINGS, 'warning')}"


def _left_out(number: int, most: int, what: str) -> str:
    more = number - most
    return f"<p>… and {more:,} more {_plural(more, what)}.</p>" if more > 0 else ""


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], text: int) -> str:
    """A table whose first ``text`` columns are flush left."""

    def cells(row: Sequence[str], tag: str) -> str:
        form = [' class="text"' if i < text else "" for i in range(len(row))]
        return "".join(f"<{tag}{f}>{escape(cell)}</{tag}>" for cell, f in zip(row, form, strict=True))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{cells(header, 'th')}</tr></thead>"
    return f"<table><caption>{escape(title)}</caption>{head}<tbody>{body}</tbody></table>"


def _interval(direction: Direction) -> str:
    if math.isnan(direction.spearman_low):
        return "-"
    return f"[{direction.spearman_low:+.2f}, {direction.spearman_high:+.2f}]"


def _figure(value: Any, form: str) -> str:
    number = float(np.asarray(value))
    return "-" if math.isnan(number) else format(number, form)
