"""The command line: one module for each command.

Exit status: 0 done; 1 checked, and the answer is no (check-model, doctor, inspect --verify); 2 bad input or usage, said
in one sentence on standard error; 130 interrupted; 141 the reader of standard output went away; 143 terminated. Results
go to standard output, progress and warnings to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from vogcore import __version__
from vogcore.cli._config import ConfigurableParser
from vogcore.cli._parser import Parser, fail, statuses
from vogcore.cli._style import paint
from vogcore.cli._text import printable
from vogcore.errors import VogcoreError, VogcoreWarning

__all__ = ["main"]

_COMMANDS = (
    "score",
    "show",
    "report",
    "export",
    "compare",
    "merge",
    "inspect",
    "check_model",
    "gradient_model",
    "demo",
    "doctor",
    "completion",
)
"""Modules of this package with ``add_parser``, in the order of the help; a command more is a name more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status (usage errors leave through ``SystemExit``, status 2).

    Args:
        arguments: words after the program's name; ``sys.argv[1:]`` by default.
    """
    if arguments is None:
        _prepare_streams()
    command = None
    try:
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:
            _complete(parser)
        options = parser.parse_args(arguments)
        command = options.command
        if command is None:
            parser.print_help(sys.stderr)
            return 2
        with warnings.catch_warnings():
            warnings.simplefilter("always", VogcoreWarning)
            warnings.showwarning = _show_warning
            with _terminable():
                status = int(options.run(options) or 0)
        sys.stdout.flush()  # here, where a reader that went away is not yet an error at exit
        return status
    except VogcoreError as error:
        return fail(_with_notes(str(error), error))
    except KeyboardInterrupt as error:
        what = "terminated" if isinstance(error, _Terminated) else "interrupted"
        what += "; no score file was written." if command == "score" else "."
        print(f"vogcore: {printable(_with_notes(what, error))}", file=sys.stderr)
        return 143 if isinstance(error, _Terminated) else 130
    except MemoryError as error:
        return fail(_with_notes("There is not enough memory; try a smaller --batch-size or --memory.", error))
    except BrokenPipeError:
        # The reader of a pipe (head, less) left early. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers send before they kill: it ends a command as Ctrl-C does."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    def end(number: int, frame: Any) -> None:
        raise _Terminated

    # Handlers can be set in the main thread alone, and one that a program has set is its own business.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _parser() -> Parser:
    parser = Parser(
        prog="vogcore",
        description="Find hard, atypical and mislabelled examples by the variance of gradients (VoG) of ONNX\n"
        "checkpoints.",
        epilog="Start with: vogcore demo\nEvery command has examples in its --help.\n\n"
        + statuses({1: "checked, and the answer is no (check-model, doctor, inspect --verify)"}),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vogcore {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", parser_class=ConfigurableParser
    )
    for name in _COMMANDS:
        import_module(f"vogcore.cli.{name}").add_parser(commands)
    return parser


def _complete(parser: Parser) -> None:
    """Answer a shell that asks for completions (docs/command-line.md), and leave."""
    with contextlib.suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


def _prepare_streams() -> None:
    # Numba would colour errors that nobody gets to see, and for that write an escape sequence at exit, NO_COLOR or not.
    os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # By lines, so that results and warnings keep their order in a log; and a name that the terminal's encoding
            # lacks is no reason to fail.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _with_notes(message: str, error: BaseException) -> str:
    """The message, and what was noted on the error's way up (where an unfinished archive is kept)."""
    return " ".join([message, *getattr(error, "__notes__", [])])


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    # Only what vogcore itself has to say: the user can do nothing about a deprecation inside a dependency.
    if issubclass(category, VogcoreWarning):
        print(f"vogcore: {paint('warning:', 'yellow', sys.stderr)} {printable(str(message))}", file=sys.stderr)
