"""``vogcore merge``: the score files of the shards of a data set as one."""

from __future__ import annotations

import argparse
from typing import Any

from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command
from vogcore.cli._style import say

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "merge",
        run,
        summary="join the score files of disjoint examples of one run",
        description="Join score files over disjoint examples that were scored with the same settings, checkpoints,\n"
        "stages and classes. Class statistics, normalised scores and measured directions are computed\n"
        "anew over all examples, with the bits of a single run over all of them.",
        examples=[
            "vogcore merge shard-0.h5 shard-1.h5 shard-2.h5 -o scores.h5",
            "vogcore merge shard-*.h5 -o scores.h5 --order id",
        ],
    )
    parser.add_argument("files", nargs="+", metavar="H5", help="score files, at least two")
    parser.add_argument("-o", "--output", required=True, metavar="H5", help="score file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument(
        "--order",
        default="auto",
        choices=("auto", "given", "id"),
        metavar="HOW",
        help="of the examples: given (as the files are given), id, or auto (default): by id where the ids together are "
        "the positions 0, 1, 2, ... of a data set, else as given",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Join, write, and say what came of it."""
    import vogcore
    from vogcore.cli._text import direction_sentence, printable, quoted, wrap
    from vogcore.cli.score import refuse_same_file
    from vogcore.scoring.merge import merge
    from vogcore.store import check_output

    refuse_same_file(options.output, options.files)
    check_output(options.output, options.overwrite)
    parts = [vogcore.open_scores(path) for path in options.files]
    merged = merge(parts, order=options.order)
    order = merged.settings["merged"]["order"]
    merged.save(options.output, overwrite=options.overwrite)
    if options.json:
        files = [{"path": path, "examples": len(part)} for path, part in zip(options.files, parts, strict=True)]
        content = {"output": options.output, "files": files, "examples": len(merged), "order": order}
        print_json("merge", {**content, "direction": merged.direction, "warnings": merged.warnings})
        return 0
    lines = [f"{len(merged):,} examples of {len(parts)} files joined into {printable(options.output)}.", _ORDERS[order]]
    lines += [direction_sentence(merged.direction), f"Look at it with: vogcore show {quoted(options.output)}"]
    say("\n".join(wrap(line) if line in _ORDERS.values() else line for line in lines))
    return 0


_ORDERS = {
    "given": "They are in the order in which the files were given.",
    "id": "They are in the order of their ids.",
    "numbered": "The ids were positions inside of each file, so the examples were numbered anew, from 0, in the order "
    "in which the files were given.",
}
