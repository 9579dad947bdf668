"""Names and versions of the file formats; version 1 is frozen: names may be added, none may change.

docs/file-formats.md says in prose what these names hold.
"""

from __future__ import annotations

__all__ = [
    "ALL",
    "EASIER",
    "FORMAT_MAJOR",
    "FORMAT_VERSION",
    "GRADIENTS_FORMAT",
    "HARDER",
    "LIVE_FORMAT",
    "MEASURED",
    "NOT_MEASURED",
    "SCORES_FORMAT",
    "SCORE_NAMES",
    "UNDETERMINED",
    "UNKNOWN",
]

SCORES_FORMAT = "vogcore.scores"
GRADIENTS_FORMAT = "vogcore.gradients"
LIVE_FORMAT = "vogcore.live"
FORMAT_VERSION = "1.0"
FORMAT_MAJOR = 1

ALL = "all"
"""The stage that every score file has: the whole run."""
SCORE_NAMES = ("vog", "vog_raw", "vog_relative")
"""The per-example scores of a stage; the last one is optional."""

HARDER = "higher is harder"
EASIER = "lower is harder"
UNDETERMINED = "undetermined"
NOT_MEASURED = "not measured"
MEASURED = (HARDER, EASIER, UNDETERMINED, NOT_MEASURED)
"""The values that the measured direction of a score can have."""

UNKNOWN = -1
"""Stands for "none" in integer datasets: no label, no step, no epoch."""
