"""``vogcore doctor``: does the installation work on this machine?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command
from vogcore.cli._style import say

if TYPE_CHECKING:
    from vogcore.diagnose import Finding

__all__ = ["add_parser", "report"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "doctor",
        run,
        summary="look whether the installation works on this machine, and say what to do where it does not",
        description="Look at versions, ONNX Runtime, CUDA, processors and folders, compare the compiled kernels with\n"
        "plain NumPy and the gradient of a small network with finite differences.",
        examples=["vogcore doctor", "vogcore doctor --json > doctor.json    # to go with a report of a problem"],
        own_statuses={0: "nothing is broken", 1: "something is broken"},
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Look, and say what was found."""
    from vogcore.diagnose import examine

    if sys.stderr.isatty():
        print("Looking; the first time it takes up to a minute, while kernels are compiled ...", file=sys.stderr)
    findings = examine()
    broken = any(finding.status == "broken" for finding in findings)
    if options.json:
        print_json("doctor", {"ok": not broken, "findings": findings})
    else:
        say(report(findings))
    return 1 if broken else 0


def report(findings: Sequence[Finding]) -> str:
    """Everything that the command prints."""
    from vogcore.cli._text import printable, wrap

    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        remedy = f". To do: {finding.remedy}." if finding.remedy else ""
        text = f"{finding.text}{remedy}"
        head = f"  {finding.status:<6}  {finding.name:<{width}}  "
        first, *rest = wrap(text, width=100 - len(head)).splitlines()
        lines.append(head + first)
        lines += [" " * len(head) + printable(line) for line in rest]
    broken = [finding.name for finding in findings if finding.status == "broken"]
    notes = [finding.name for finding in findings if finding.status == "note"]
    if broken:
        verdict = f"BROKEN: {', '.join(broken)}."
    elif notes:
        verdict = f"OK, but see the notes on: {', '.join(notes)}."
    else:
        verdict = "OK: nothing is broken."
    return "\n".join([*lines, "", verdict])
