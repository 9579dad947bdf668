"""``vogcore inspect``: what a file is, and whether it is complete."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vogcore.cli._json import add_json_option, plain, print_json
from vogcore.cli._parser import add_command
from vogcore.cli._style import say

if TYPE_CHECKING:
    from vogcore.store.overview import FileReport

__all__ = ["add_parser", "report"]

_MOST = 12
"""Checkpoints, and what is missing, that are listed."""
_LONGEST = 300
"""Characters of a value that are shown."""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "inspect",
        run,
        summary="say what a file is, whether it is complete, and how it was made",
        description="Tell what one of vogcore's files is: a score file, a gradient archive (also one under way,\n"
        ".partial), the journal of an unfinished score run (.partial), the folder of a live run, or an\n"
        "ONNX checkpoint. Nothing is changed, and a run that writes the file is not disturbed.",
        examples=[
            "vogcore inspect scores.h5",
            "vogcore inspect scores.h5.partial         # how far an interrupted run is",
            "vogcore inspect gradients.h5 --verify     # compare every block with its digest",
            "vogcore inspect ckpt-12.onnx --json",
        ],
        own_statuses={0: "nothing that was looked at is damaged (the file need not be complete)", 1: "it is damaged"},
    )
    parser.add_argument("file", metavar="FILE", help="file, or the folder of a live run")
    parser.add_argument(
        "--verify", action="store_true", help="read everything, and compare it with the digests in the file"
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Look, and say what is there."""
    import vogcore

    found = vogcore.inspect_file(options.file, verify=options.verify)
    if options.json:
        print_json("inspect", {"ok": found.ok, **dataclasses.asdict(found)})
    else:
        say(report(found))
    return 0 if found.ok else 1


def report(found: FileReport) -> str:
    """Everything that the command prints."""
    from vogcore.cli._text import bytes_in_words, printable, wrap

    state = "complete" if found.complete else "NOT COMPLETE"
    version = f", format {found.format} {found.format_version}" if found.format != "onnx" else ""
    lines = [f"{printable(found.path)}: {found.kind}, {bytes_in_words(found.bytes)}{version}, {state}"]
    if found.vogcore_version:
        when = f"{found.created}, " if found.created else ""
        lines.append(printable(f"  created: {when}vogcore {found.vogcore_version}"))
    parts = ["\n".join(lines)]
    parts += [_listed(title, sentences) for title, sentences in (("Missing", found.missing), ("Notes", found.notes))]
    facts = {key: value for key, value in found.facts.items() if key != "checkpoints"}
    parts.append(f"Contents\n{_pairs(facts)}")
    checkpoints = found.facts.get("checkpoints")
    if checkpoints:
        parts.append(f"Checkpoints ({len(checkpoints):,})\n{_checkpoints(checkpoints)}")
    if found.settings:
        parts.append(f"Settings\n{_pairs(found.settings)}")
    if found.problems:
        parts.append(_listed("WARNING: damaged", found.problems))
    elif found.verified:
        parts.append("Everything was read; nothing is damaged.")
    else:
        parts.append(wrap("Blocks were not compared with their digests; --verify does that."))
    return "\n\n".join(part for part in parts if part)


def _listed(title: str, sentences: tuple[str, ...]) -> str:
    from vogcore.cli._text import wrap

    if not sentences:
        return ""
    lines = [wrap(f"- {sentence}", "  ") for sentence in sentences[:_MOST]]
    if len(sentences) > _MOST:
        lines.append(f"  ... and {len(sentences) - _MOST:,} more (--json has them all)")
    return "\n".join([title, *lines])


def _pairs(values: Mapping[str, Any]) -> str:
    from vogcore.cli._text import printable, wrap

    rows = [(printable(key), _said(value)) for key, value in _flat(values).items()]
    width = max((len(key) for key, _ in rows), default=0) + 4
    lines = []
    for key, text in rows:
        first, *rest = wrap(text, width=100 - width).splitlines() or [""]
        lines += [f"  {key}".ljust(width) + first, *(" " * width + line for line in rest)]
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested settings by their path; what says nothing is left out, and windows of checkpoints are counted."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "stages" and isinstance(value, Mapping) and all(isinstance(item, list) for item in value.values()):
            value = ", ".join(f"{name} ({len(item)})" for name, item in value.items())
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{where}{key}.")
        elif value is not None and value not in ("", []):
            flat[f"{where}{key}"] = value
    return flat


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        text = value
    elif isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        text = ", ".join(map(str, value))
    else:
        text = json.dumps(plain(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _checkpoints(checkpoints: list[dict[str, Any]]) -> str:
    from vogcore.cli._text import table

    shown = checkpoints if len(checkpoints) <= _MOST else [*checkpoints[: _MOST - 1], checkpoints[-1]]
    rows = []
    for entry in shown:
        if len(shown) < len(checkpoints) and entry is checkpoints[-1]:
            rows.append(["...", "", "", ""])
        step, epoch = ("-" if entry.get(key) is None else f"{entry[key]:,}" for key in ("step", "epoch"))
        rows.append([entry["name"], str(entry.get("sha256", ""))[:12] or "-", step, epoch])
    return table(["name", "weights (SHA-256)", "step", "epoch"], rows, left=2)
