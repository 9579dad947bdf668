"""``vogcore completion``: the script that makes a shell complete commands, options and file names."""

from __future__ import annotations

import argparse
from typing import Any

from vogcore.cli._parser import add_command
from vogcore.errors import VogcoreError

__all__ = ["add_parser"]

SHELLS = ("bash", "zsh", "fish")


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "completion",
        run,
        summary="print the script that makes a shell complete vogcore's commands and options",
        description="Print a script for bash, zsh or fish. It needs argcomplete: pip install 'vogcore[completion]'.",
        examples=[
            'eval "$(vogcore completion bash)"    # in ~/.bashrc',
            'eval "$(vogcore completion zsh)"     # in ~/.zshrc, after compinit',
            "vogcore completion fish > ~/.config/fish/completions/vogcore.fish",
        ],
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import argcomplete
    except ImportError as error:
        raise VogcoreError(
            "Shell completion needs argcomplete: install it with pip install 'vogcore[completion]'."
        ) from error
    # argcomplete has one script for bash and zsh, and tells them apart when it runs.
    print(argcomplete.shellcode(["vogcore"], shell=options.shell))
    return 0
