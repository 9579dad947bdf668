"""``vogcore export``: scores as a table for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command
from vogcore.errors import SettingsError

__all__ = ["add_parser"]

_FORMATS = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "export",
        run,
        summary="write the scores as CSV or Parquet",
        description="Write one row for each example: id, label, class, every score of every stage, the companion\n"
        "metrics and the predicted class, in the order of the data set.",
        examples=[
            "vogcore export scores.h5 -o scores.csv",
            "vogcore export scores.h5 -o scores.parquet --overwrite",
            "vogcore export scores.h5 -o table.txt --format csv",
        ],
    )
    parser.add_argument("scores", metavar="H5", help="score file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="table to write: .csv, .parquet or .pq")
    parser.add_argument(
        "--format", choices=("csv", "parquet"), metavar="NAME", help="csv or parquet, where the name does not tell"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Write the table, and say what is in it."""
    import vogcore
    from vogcore.cli._text import printable, wrap
    from vogcore.cli.score import refuse_same_file
    from vogcore.store import check_output
    from vogcore.store.export import table_columns

    form = options.format or _FORMATS.get(Path(options.output).suffix.lower())
    if form is None:
        raise SettingsError(
            f"The name {options.output} does not say which kind of table to write; end it in .csv or .parquet, or give "
            "--format."
        )
    refuse_same_file(options.output, [options.scores])
    check_output(options.output, options.overwrite)
    scores = vogcore.open_scores(options.scores)
    write = scores.to_csv if form == "csv" else scores.to_parquet
    write(options.output, overwrite=options.overwrite)
    columns = list(table_columns(scores))
    if form == "csv":
        columns.insert(0, "position")
    if options.json:
        found = {"scores": options.scores, "output": options.output, "format": form, "rows": len(scores)}
        print_json("export", {**found, "columns": columns})
    else:
        print(f"{len(scores):,} examples written to {printable(options.output)} ({form}, {len(columns)} columns):")
        print(wrap(", ".join(columns), "  "))
    return 0
