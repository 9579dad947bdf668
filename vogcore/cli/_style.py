"""Colour, used sparingly and on terminals only: errors, warnings, and which end of a score is the hard one."""

from __future__ import annotations

import os
import re
import sys
from typing import IO

__all__ = ["coloured", "highlight", "paint", "say"]

_CODES = {"bold": "1", "red": "1;31", "yellow": "33", "green": "32"}
_PATTERNS = [
    (re.compile(r"^(?:WARNING|NOT CONFIRMED)\b", re.MULTILINE), "yellow"),
    (re.compile(r"^(?:WRONG|NO GRADIENT|BROKEN)\b|^  broken\b", re.MULTILINE), "red"),
    (re.compile(r"^  note\b", re.MULTILINE), "yellow"),
    (re.compile(r"^  ok\b|^OK\b", re.MULTILINE), "green"),
    (re.compile(r"(?<=On this run )(?:higher|lower)\sVoG\sis\sharder"), "bold"),
    (re.compile(r"^Hardest examples|^ hardest(?= \()", re.MULTILINE), "bold"),
]


def coloured(stream: IO[str]) -> bool:
    """Whether a stream takes colour.

    ``NO_COLOR`` (https://no-color.org, any value but the empty one) forbids it, then ``FORCE_COLOR`` asks for it
    (any value but the empty one and 0), and else a terminal gets it that is not called ``dumb``.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    if os.environ.get("TERM") == "dumb":
        return False
    # The old console of Windows shows escape sequences as they are.
    return stream.isatty() and (sys.platform != "win32" or "WT_SESSION" in os.environ)


def paint(text: str, colour: str, stream: IO[str]) -> str:
    """The text in a colour ("bold", "red", "yellow" or "green") where the stream takes it."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if text and coloured(stream) else text


def highlight(text: str, stream: IO[str]) -> str:
    """The text with what matters in it coloured, where the stream takes that; it is wrapped and padded before."""
    if coloured(stream):
        for pattern, colour in _PATTERNS:
            text = pattern.sub(lambda found, colour=colour: paint(found[0], colour, stream), text)  # type: ignore[misc]
    return text


def say(text: str) -> None:
    """Print a result on standard output."""
    print(highlight(text, sys.stdout))
