"""How results are put into words and columns."""

from __future__ import annotations

import math
import shlex
import textwrap
import unicodedata
from collections.abc import Sequence

from vogcore.store import Direction
from vogcore.store.schema import NOT_MEASURED

__all__ = [
    "bytes_in_words",
    "contradiction",
    "direction_sentence",
    "printable",
    "quoted",
    "strength",
    "table",
    "timing_line",
    "wrap",
]

_WIDTH = 100
_PARTS = ("gradients", "kernels", "storage", "data", "sessions")


def printable(text: str) -> str:
    """Text from a file or a path, with what a terminal would obey (escapes, line ends, direction marks) written out.

    Names come from files that somebody else wrote; an escape sequence in one could rewrite what is on the screen.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def quoted(path: str) -> str:
    """A path as it can be typed into a shell."""
    return printable(shlex.quote(path))


def wrap(text: str, indent: str = "", width: int = _WIDTH) -> str:
    """A paragraph of lines that fit a terminal, safe to print; lines after the first are indented a little further."""
    further = f"{indent}  " if indent else ""
    return textwrap.fill(
        printable(text), width, break_long_words=False, break_on_hyphens=False, initial_indent=indent,
        subsequent_indent=further,
    )  # fmt: skip


def bytes_in_words(count: int) -> str:
    """A size with its unit."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns padded to their widest entry; the first ``left`` columns flush left, the others flush right.

    Cells are made :func:`printable`.
    """
    lines = [[printable(cell) for cell in row] for row in [header, *rows]]
    widths = [max(_width(row[i]) for row in lines) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = []
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            blank = " " * (width - _width(cell))
            padded.append(cell + blank if i < left else blank + cell)
        return ("  " + "  ".join(padded)).rstrip()

    return "\n".join(line(row) for row in lines)


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: two for a wide (East Asian) character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def strength(rho: float) -> str:
    """A rank correlation in words (the bounds that Cohen 1988 gave for r: 0.1, 0.3, 0.5)."""
    size = abs(rho)
    return "very weakly" if size < 0.1 else "weakly" if size < 0.3 else "moderately" if size < 0.5 else "strongly"


def direction_sentence(direction: Direction) -> str:
    """Which end of the score is the hard one on this run, and how strongly."""
    if direction.measured == NOT_MEASURED:
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


def contradiction(direction: Direction, score: str, lists: bool) -> str | None:
    """A warning where the measured direction is not the claimed one; ``lists`` where lists of examples follow it."""
    if not direction.contradicts:
        return None
    return wrap(
        (
            # The paper knows no relative score; that one's claim is ours.
            f"WARNING: this is the opposite of what is claimed of the relative score, {direction.claimed}."
            if score == "vog_relative"
            else f"WARNING: this contradicts the paper (Agarwal et al. 2022), by which {direction.claimed}."
        )
        + (" The lists below follow the measurement." if lists else "")
    )


def timing_line(timings: dict[str, float]) -> str:
    """Seconds of a run, with their split."""
    if "total" not in timings:
        return ""
    parts = ", ".join(f"{name} {timings[name]:.1f}" for name in _PARTS if name in timings)
    other = timings["total"] - sum(timings.get(name, 0.0) for name in _PARTS)
    parts += f", other {max(other, 0.0):.1f}"
    return f"Time: {timings['total']:.1f} s ({parts})."
