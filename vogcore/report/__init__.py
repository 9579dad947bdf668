"""The report: one HTML file that shows what a score file says, with pictures of the examples where data are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.report.build import write_report as write_report

__all__ = ["write_report"]

_HOME = {"write_report": "vogcore.report.build"}

__getattr__, __dir__ = lazy(__name__, _HOME)
