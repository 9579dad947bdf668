"""What a page is made of: tables, charts, cards of examples, sections. The template knows nothing else."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from vogcore.errors import SettingsError

__all__ = [
    "DASH",
    "MINUS",
    "Cell",
    "Chart",
    "Example",
    "Group",
    "Row",
    "Section",
    "Table",
    "figure",
    "interval",
    "number",
    "percent",
    "plain",
]

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
"""What stands for a missing number, and in front of a negative one."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what is shown.
        value: what it is sorted by where that is a number; None sorts by the text.
        shade: -1 to 1: how strongly, and with which sign, the cell is coloured; 0 for not at all.
    """

    text: str
    value: float | None = None
    shade: float = 0.0


Row: TypeAlias = "list[Cell | str]"
"""A row of a table; text needs no cell around it."""


@dataclass
class Table:
    """A table of figures.

    Attributes:
        caption: what it shows.
        header: names of the columns.
        rows: as many cells each; text is taken as it is.
        left: how many columns, from the first, are text and set flush left.
        ident: unique in the page; for tables that can be sorted.
        sortable: whether its rows can be sorted and filtered.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    left: int = 1
    ident: str = ""
    sortable: bool = False

    def __post_init__(self) -> None:
        wrong = next((row for row in self.rows if len(row) != len(self.header)), None)
        if wrong is not None:
            raise SettingsError(f"A row of the table {self.caption!r} has {len(wrong)} cells, not {len(self.header)}.")

    def cells(self) -> list[list[Cell]]:
        """Every cell as a :class:`Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass
class Chart:
    """A chart, and the numbers that it draws.

    Attributes:
        ident: unique in the page.
        title: what it shows.
        svg: trusted SVG, made by :mod:`vogcore.report.svg`.
        table: its numbers, or None where it stands beside them.
        notes: how to read it, a sentence each.
    """

    ident: str
    title: str
    svg: str
    table: Table | None = None
    notes: Sequence[str] = ()


@dataclass
class Example:
    """One example of the data set on show.

    Attributes:
        ident: its id, as text.
        position: its place in the data set.
        label, predicted: names of classes, "" where there is none.
        wrong: whether the prediction is not the label.
        facts: more to say of it: pairs of a name and a value.
        picture: data URI of its picture, or "".
        overlay: data URI of the picture with its map of VoG, or "".
        tokens: pairs of a token and the share (0 to 1) of the largest VoG in the text.
        charts: its history and others.
        notes: sentences.
    """

    ident: str
    position: int
    label: str = ""
    predicted: str = ""
    wrong: bool = False
    facts: Sequence[tuple[str, str]] = ()
    picture: str = ""
    overlay: str = ""
    tokens: Sequence[tuple[str, float]] = ()
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Group:
    """Examples that belong together: one end of the score in one class, for example."""

    title: str
    examples: list[Example]


@dataclass
class Section:
    """A part of the page with a heading.

    Attributes:
        ident: unique in the page; what links lead to.
        title: its heading.
        notes: paragraphs above everything else.
        missing: what is not there and how to get it, a sentence each.
        warnings: what a reader must not overlook, a sentence each.
        tables, charts, groups, cards: its content, shown in this order: tables, charts, grids of examples, single
            examples in detail.
        facts: pairs of a name and a value.
    """

    ident: str
    title: str
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    cards: list[Example] = field(default_factory=list)


def plain(text: str, most: int | None = None) -> str:
    """Text from a file with its control characters and marks of direction written out, cut after ``most`` characters.

    HTML is escaped by the template; these would still turn a line around or break the XML of a chart.
    """
    shown = "".join(
        c if unicodedata.category(c)[0] != "C" else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )
    return shown if most is None or len(shown) <= most else shown[: most - 1] + "…"


def figure(value: float, form: str) -> Cell:
    """A number as a cell; NaN is a dash and sorts last."""
    if math.isnan(value):
        return Cell(DASH, math.nan)
    text = format(value, form)
    if form.startswith("+") and not text.strip("+-0."):
        text = text.lstrip("+-")  # what rounds to zero has no sign
    return Cell(text.replace("-", MINUS), value)


def number(value: float) -> Cell:
    """A number with four digits."""
    return figure(value, ".4g")


def percent(value: float) -> Cell:
    """A share in per cent with one decimal."""
    return Cell(DASH, math.nan) if math.isnan(value) else Cell(f"{100 * value:.1f}%", value)


def interval(low: float, high: float, form: str = ".2f") -> str:
    """A confidence interval, ``[0.10, 0.20]``."""
    if math.isnan(low) or math.isnan(high):
        return DASH
    return f"[{format(low, form)}, {format(high, form)}]".replace("-", MINUS)
