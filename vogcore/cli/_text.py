"""How results are put into words and columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from vogcore.store import Direction

__all__ = ["contradiction", "direction_sentence", "strength", "table", "timing_line", "wrap"]

_WIDTH = 100
_PARTS = ("gradients", "kernels", "storage", "data", "sessions")


def wrap(text: str) -> str:
    """A paragraph of lines that fit a terminal."""
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns padded to their widest entry; the first ``left`` columns flush left, the others flush right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return ("  " + "  ".join(padded)).rstrip()

    return "\n".join([line(header), *(line(row) for row in rows)])


def strength(rho: float) -> str:
    """A rank correlation in words (the bounds that Cohen 1988 gave for r: 0.1, 0.3, 0.5)."""
    size = abs(rho)
    return "hardly" if size < 0.1 else "weakly" if size < 0.3 else "moderately" if size < 0.5 else "strongly"


def direction_sentence(direction: Direction) -> str:
    """Which end of the score is the hard one on this run, and how strongly."""
    if direction.measured == "not measured":
        return wrap(
            f"Which end is hard was not measured (that needs labels and logits); the claim is: {direction.claimed}."
        )
    if math.isnan(direction.spearman_loss):
        return wrap("Which end is hard cannot be told on this run: the score or the loss is the same for all examples.")
    figures = (
        f"rank correlation with the loss {direction.spearman_loss:+.2f} "
        f"[{direction.spearman_low:+.2f}, {direction.spearman_high:+.2f}]"
    )
    if not math.isnan(direction.auroc_errors):
        figures += f", AUROC for errors {direction.auroc_errors:.2f}"
    figures += f", {direction.n_errors:,} errors among {direction.n_examples:,}"
    if not direction.decided:
        return wrap(f"Which end is hard is undecided on this run ({figures}); do not rank examples by this score.")
    return wrap(
        f"On this run {direction.measured.replace(' is ', ' VoG is ')}, {strength(direction.spearman_loss)} so "
        f"({figures}; measured against the labels at the last checkpoint)."
    )


def contradiction(direction: Direction) -> str | None:
    """A warning where the measured direction is not the claimed one."""
    if not direction.contradicts:
        return None
    return wrap(
        f"WARNING: this contradicts the paper (Agarwal et al. 2022), by which {direction.claimed}. The lists below "
        "follow the measurement."
    )


def timing_line(timings: dict[str, float]) -> str:
    """Seconds of a run, with their split."""
    if "total" not in timings:
        return ""
    parts = ", ".join(f"{name} {timings[name]:.1f}" for name in _PARTS if name in timings)
    return f"Time: {timings['total']:.1f} s ({parts})."
