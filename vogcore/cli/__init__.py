"""The command line: one module for each command.

Exit status: 0 done; 2 bad input or usage, said in one sentence on standard error; 130 interrupted. Results go to
standard output, progress and warnings to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from vogcore import __version__
from vogcore.errors import VogcoreError, VogcoreWarning

__all__ = ["main"]

_COMMANDS = ("score", "show", "gradient_model", "demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status (usage errors leave through ``SystemExit``, status 2).

    Args:
        arguments: words after the program's name; ``sys.argv[1:]`` by default.
    """
    parser = argparse.ArgumentParser(
        prog="vogcore",
        description="Find hard, atypical and mislabelled examples by the variance of gradients (VoG) of ONNX checkpoints.",
        epilog="Start with: vogcore demo",
    )
    parser.add_argument("--version", action="version", version=f"vogcore {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        import_module(f"vogcore.cli.{name}").add_parser(commands)
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", VogcoreWarning)
        warnings.showwarning = _show_warning
        try:
            return int(options.run(options) or 0)
        except VogcoreError as error:
            return _fail(str(error))
        except KeyboardInterrupt:
            print("vogcore: interrupted; no score file was written.", file=sys.stderr)
            return 130
        except MemoryError:
            return _fail("There is not enough memory; try a smaller --batch-size or --memory.")
        except BrokenPipeError:
            # The reader of a pipe (head, less) left early. Python would complain when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


def _fail(message: str) -> int:
    print(f"vogcore: error: {message}", file=sys.stderr)
    return 2


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    # Only what vogcore itself has to say: the user can do nothing about a deprecation inside a dependency.
    if issubclass(category, VogcoreWarning):
        print(f"vogcore: warning: {message}", file=sys.stderr)
