"""The table of gradient rules as Markdown, for docs/autodiff.md.

``python -m vogcore.autodiff.table`` prints it; with the path of a document it is written between the document's two
markers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vogcore.autodiff import rules as _rules  # noqa: F401 - fills the table
from vogcore.autodiff.registry import NO_GRADIENT, RULES, RuleFunction

__all__ = ["BEGIN", "END", "main", "markdown", "updated"]

BEGIN = "<!-- begin of the table: python -m vogcore.autodiff.table docs/autodiff.md -->"
END = "<!-- end of the table -->"


def markdown() -> str:
    """One row for each rule: its operators, its file, and what its docstring says; then the operators without one."""
    operators: dict[tuple[str, str], list[str]] = {}
    for op, entry in RULES.items():
        operators.setdefault((_family(entry.function), _formula(entry.function)), []).append(op)
    rows = sorted((family, sorted(ops), formula) for (family, formula), ops in operators.items())
    lines = ["| operator | file in `rules/` | gradient |", "|---|---|---|"]
    lines += [f"| {', '.join(ops)} | `{family}.py` | {formula} |" for family, ops, formula in rows]
    flat = ", ".join(sorted(NO_GRADIENT))
    return "\n".join(
        [f"{len(RULES)} operators have a rule.", "", *lines, "", f"{len(NO_GRADIENT)} have no gradient: {flat}."]
    )


def updated(document: str) -> str:
    """``document`` with the table between its markers replaced by the one of the running code.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document must hold the two lines {BEGIN!r} and {END!r}, in this order")
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into the documents that are named."""
    paths = list(sys.argv[1:] if arguments is None else arguments)
    if not paths:
        print(markdown())
    for path in map(Path, paths):
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def _family(function: RuleFunction) -> str:
    return function.__module__.rpartition(".")[2]


def _formula(function: RuleFunction) -> str:
    """The docstring in one line."""
    # A bare bar would end the cell of the table.
    return " ".join((function.__doc__ or "").replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    sys.exit(main())
