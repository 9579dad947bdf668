"""The table of measured accuracy as Markdown, and its place in a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.zoo.entry import Entry
from benchmarks.zoo.measure import Accuracy

__all__ = ["BEGIN", "END", "Row", "markdown", "updated"]

BEGIN = "<!-- begin of the measured accuracy: python -m benchmarks.zoo --table docs/autodiff.md -->"
END = "<!-- end of the measured accuracy -->"
HEAD = "| model | exporter | opset | median | 99% | reference in float32 | graph in float64 |"


@dataclass(frozen=True)
class Row:
    """What came out for one entry."""

    entry: Entry
    accuracy: Accuracy | None
    refusal: str = ""
    """Why there is no accuracy: the error's sentence."""


def markdown(rows: Sequence[Row], versions: dict[str, str], absent: dict[str, str]) -> str:
    """The table, what was measured with, and what could not be built.

    Args:
        rows: in the order of the table.
        versions: distribution -> version.
        absent: framework -> why its entries are missing.
    """
    lines = [HEAD, "|---|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        entry = row.entry
        start = f"| {entry.model} | {entry.exporter} | {entry.opset} |"
        if row.accuracy is None:
            lines.append(f"{start} {row.refusal.replace('|', '/')} | | | |")
            continue
        accuracy = row.accuracy
        own = f"{accuracy.own[0]:.0e}, {accuracy.own[1]:.0e}" if accuracy.own else ""
        graph = "" if accuracy.graph is None else f"{accuracy.graph:.0e}"
        lines.append(f"{start} {accuracy.median:.1e} | {accuracy.p99:.1e} | {own} | {graph} |")
    done = sum(row.accuracy is not None for row in rows)
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    ending = [f"{done} of {len(rows)} differentiate. Measured with {named}."]
    ending += [f"Not built: {framework} ({why})." for framework, why in absent.items()]
    return "\n".join([*lines, "", " ".join(ending)])


def updated(document: str, text: str) -> str:
    """``document`` with ``text`` between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document must hold the two lines {BEGIN!r} and {END!r}, in this order")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
