"""Rows of results that docs/reading-the-numbers.md repeats, written anew: python docs/_site/rows.py"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["PAGE", "RESULTS", "updated"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reading-the-numbers.md"
RESULTS = ROOT / "benchmarks" / "results" / "fashion_mnist.md"
ROW = re.compile(r"^\| (\w[^|]*) \|.*\|$", re.MULTILINE)


def updated(page: str, results: str) -> str:
    """The page with every row of a table whose first cell is that of a row of the results as it is there."""
    rows = {match[1]: match[0] for match in ROW.finditer(results)}
    return ROW.sub(lambda match: rows.get(match[1], match[0]), page)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), RESULTS.read_text(encoding="utf-8")), encoding="utf-8")
