"""An argument parser whose mistakes read like every other error, and the types of options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from vogcore.cli._text import printable

__all__ = ["Parser", "fail", "integer"]


def fail(message: str) -> int:
    """Say in one line on standard error what is wrong; the exit status of bad input and usage."""
    print(f"vogcore: error: {printable(message)}", file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """Says usage errors in one line, without the usage, and takes no abbreviations (they break when options come)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        text = message.removeprefix("argument ")
        raise SystemExit(fail(f"{text[:1].upper()}{text[1:]}; see {self.prog} --help."))


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """Type of an option that is a whole number of at least ``least`` and at most ``most``."""
    wanted = f"of {least} or more" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number") from None
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{value} is not possible, give a number {wanted}")
        return value

    return parse
