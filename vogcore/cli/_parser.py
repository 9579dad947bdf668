"""An argument parser whose mistakes read like every other error, how a command is added, and the types of options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from vogcore.cli._style import paint
from vogcore.cli._text import printable

__all__ = ["STATUSES", "Parser", "add_command", "fail", "integer", "statuses"]

STATUSES = {
    0: "done",
    2: "bad input or usage, said in one sentence on standard error",
    130: "interrupted (Ctrl-C)",
    141: "the reader of standard output went away",
    143: "terminated",
}
"""Exit statuses that every command has; 1 is for commands that answer a question with no."""


def fail(message: str) -> int:
    """Say in one line on standard error what is wrong; the exit status of bad input and usage."""
    print(f"vogcore: {paint('error:', 'red', sys.stderr)} {printable(message)}", file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """Says usage errors in one line, without the usage, and takes no abbreviations (they break when options come)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        text = message.removeprefix("argument ")
        raise SystemExit(fail(f"{text[:1].upper()}{text[1:]}; see {self.prog} --help."))


def statuses(own: Mapping[int, str] | None = None) -> str:
    """The exit statuses of a command, for the end of its help."""
    lines = [f"  {number:<3} {meaning}" for number, meaning in sorted({**STATUSES, **(own or {})}.items())]
    return "\n".join(["exit status:", *lines])


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str,
    examples: Sequence[str],
    own_statuses: Mapping[int, str] | None = None,
) -> Any:
    """Add a command, with examples and exit statuses at the end of its help.

    Args:
        commands: what ``add_subparsers`` gave.
        name: as it is typed.
        run: does the work and returns the exit status.
        summary: for the list of commands.
        description: for the head of its help, in lines that fit a terminal.
        examples: commands.
        own_statuses: exit statuses that mean something else, or more, than those of every command.
    """
    shown = "\n".join(f"  {example}" for example in examples)
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{shown}\n\n{statuses(own_statuses)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


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
