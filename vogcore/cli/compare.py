"""``vogcore compare``: two score files side by side."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command
from vogcore.cli._style import say

if TYPE_CHECKING:
    from vogcore.scoring.compare import Comparison, Difference, ScoreComparison

__all__ = ["add_parser", "report"]

_MOST_IDS = 5
_MOST_DIFFERENCES = 20
_LONGEST = 48
"""Characters of a setting that are shown."""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "compare",
        run,
        summary="say how far two score files agree",
        description="Join two score files by the ids of their examples, and print the rank correlation (Spearman) of\n"
        "every score that both have, how far their hard ends overlap, whether the measured directions\n"
        "agree, and which settings and checkpoints differ.",
        examples=["vogcore compare a.h5 b.h5", "vogcore compare a.h5 b.h5 -n 100", "vogcore compare a.h5 b.h5 -n 5%"],
    )
    parser.add_argument("first", metavar="H5", help="score file")
    parser.add_argument("second", metavar="H5", help="score file to set beside it")
    parser.add_argument(
        "-n",
        "--hardest",
        type=_amount,
        metavar="N|N%",
        help="how many of the hardest examples of each file are looked for in the other's: a number, or a share of "
        "the common examples (10%%)",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Compare and print."""
    from vogcore.scoring.compare import compare

    found = compare(options.first, options.second, hardest=options.hardest)
    if options.json:
        print_json("compare", _as_json(found))
    else:
        say(report(found))
    return 0


def _as_json(found: Comparison) -> dict[str, Any]:
    content = dataclasses.asdict(found)
    for which in ("first", "second"):
        content[f"n_only_{which}"] = len(content[f"only_{which}"])
    return content


def report(found: Comparison) -> str:
    """Everything that the command prints."""
    from vogcore.cli._text import printable, wrap

    first, second = printable(found.first), printable(found.second)
    lines = [
        f"A  {first}: {found.n_first:,} examples",
        f"B  {second}: {found.n_second:,} examples",
        f"{found.common:,} examples are in both, by their ids.",
    ]
    for name, ids in (("A", found.only_first), ("B", found.only_second)):
        if len(ids):
            shown = ", ".join(str(item) for item in ids[:_MOST_IDS])
            lines.append(wrap(f"Only in {name}: {len(ids):,} (ids {shown}{', ...' if len(ids) > _MOST_IDS else ''})."))
    if found.labels_differ:
        lines.append(f"WARNING: {found.labels_differ:,} of them have another label in B than in A.")
    lines += [wrap(f"WARNING: {note}") for note in found.notes]
    parts = ["\n".join(lines)]
    if found.scores:
        parts.append(f"Do the scores put the examples in the same order?\n{_correlations(found.scores)}")
        parts.append(f"Are the hardest the same? (each file read at its own measured hard end)\n{_hard(found.scores)}")
        parts += [wrap(text) for text in _directions(found.scores)]
    else:
        parts.append("The files have no score of the same name and stage in common.")
    if found.only_stages:
        names = ", ".join(f"{d.name} ({'A' if d.second is None else 'B'})" for d in found.only_stages)
        parts.append(wrap(f"Stages of one file only: {names}."))
    parts.append(_differences("Settings", found.settings))
    parts.append(_differences("Checkpoints", found.checkpoints))
    return "\n\n".join(parts)


def _correlations(scores: Sequence[ScoreComparison]) -> str:
    from vogcore.cli._text import table

    rows = [
        [s.stage, s.score, s.first.measured, s.second.measured, f"{s.n:,}", _figure(s.spearman), _interval(s)]
        for s in scores
    ]
    header = ["stage", "score", "measured in A", "measured in B", "examples", "rank correlation", "95% interval"]
    return table(header, rows, left=4)


def _hard(scores: Sequence[ScoreComparison]) -> str:
    from vogcore.cli._text import table

    rows = [
        [
            s.stage,
            s.score,
            f"{s.hardest:,}",
            f"{s.overlap:,} ({_share(s.overlap, s.hardest)})",
            f"{s.overlap_by_chance:,.1f} ({_share(s.overlap_by_chance, s.hardest)})",
            f"{s.jaccard:.2f}",
            f"{s.jaccard_by_chance:.2f}",
        ]
        for s in scores
    ]
    return table(["stage", "score", "hardest", "in both", "by chance", "Jaccard", "by chance"], rows, left=2)


def _directions(scores: Sequence[ScoreComparison]) -> list[str]:
    opposite = [f"{s.score} at stage {s.stage}" for s in scores if s.agree is False]
    if opposite:
        return [
            f"WARNING: the measured directions are opposite for {', '.join(opposite)}, so examples that both put at "
            "the same end are hard in one file and easy in the other; go by the overlap, not by the rank correlation."
        ]
    undecided = sum(s.agree is None for s in scores)
    if undecided == len(scores):
        return ["Whether the measured directions agree cannot be told: no score has one that is decided in both files."]
    more = f"; for {undecided} of {len(scores)} scores they are not decided in both" if undecided else ""
    return [f"The measured directions agree{more}."]


def _differences(what: str, found: Sequence[Difference]) -> str:
    from vogcore.cli._text import table

    if not found:
        return f"{what}: the same in both."
    rows = [[d.name, _said(d.first), _said(d.second)] for d in found[:_MOST_DIFFERENCES]]
    more = (
        f"\n  ... and {len(found) - _MOST_DIFFERENCES:,} more (--json has them all)" if len(rows) < len(found) else ""
    )
    return f"{what} that differ\n{table(['', 'A', 'B'], rows, left=3)}{more}"


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict) and set(value) == {"name", "sha256"}:
        return f"{value['name']} ({value['sha256'][:8] or 'no digest'})"
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}"


def _interval(score: ScoreComparison) -> str:
    return "-" if math.isnan(score.spearman_low) else f"[{score.spearman_low:+.3f}, {score.spearman_high:+.3f}]"


def _share(part: float, whole: int) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "-"


def _amount(text: str) -> float:
    """``100`` as a number of examples, ``5%`` as a share."""
    if re.fullmatch(r"[1-9]\d{0,11}", text):
        return int(text)
    found = re.fullmatch(r"(\d{1,2}(?:\.\d{1,6})?)%", text)
    if found and float(found[1]) > 0:
        return float(found[1]) / 100
    raise argparse.ArgumentTypeError(
        f"{text[:40]!r} is neither a number of examples, 1 or more, nor a share such as 5%"
    )
