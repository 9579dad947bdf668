"""Measure the gradient graphs of the zoo.

``python -m benchmarks.zoo`` builds every network whose framework is installed, and prints the table. Frameworks that
do not live beside torch are exported in an environment of their own (``--export DIR``) and measured here
(``--exported DIR``); ``make zoo`` does all of it.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.zoo.catalogue import FRAMEWORKS, available, entries, versions
from benchmarks.zoo.entry import Entry, load_folder, save

if TYPE_CHECKING:
    from benchmarks.zoo.table import Row

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parse(arguments)
    frameworks = options.framework or list(FRAMEWORKS)
    chosen = [entry for entry in entries(frameworks, options.short) if _matches(entry, options.match)]
    absent = {name: why for name in frameworks if (why := available(name)) is not None}
    if options.export:
        return _export(chosen, options.export, absent)
    found: dict[str, str] = {}
    for name in frameworks:
        found |= {} if name in absent else versions(name)
    for folder in options.exported:
        loaded = [entry for entry in load_folder(folder) if _matches(entry, options.match)]
        chosen += loaded
        for entry in loaded:
            absent.pop(entry.framework, None)
            found |= entry.build().notes
    # Imported here: exporting needs neither vogcore nor ONNX Runtime.
    from benchmarks.zoo.table import markdown, updated

    found |= versions_of_runtime()
    rows = [_measured(entry, not options.skip_float64) for entry in chosen]
    text = markdown(rows, found, absent)
    if options.table:
        options.table.write_text(updated(options.table.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        print(text)
    return 0


def versions_of_runtime() -> dict[str, str]:
    """What computed the gradients."""
    import onnx
    import onnxruntime

    return {"onnx": onnx.__version__, "ONNX Runtime": onnxruntime.__version__}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", type=Path, help="write the table between the markers of this document")
    parser.add_argument("--framework", action="append", choices=list(FRAMEWORKS), help="only this one (repeatable)")
    parser.add_argument("--match", default="", help="only entries whose model or exporter contains this text")
    parser.add_argument("--short", action="store_true", help="fewer blocks and opsets, as in the tests")
    parser.add_argument("--skip-float64", action="store_true", help="do not compute the gradient graphs in float64")
    parser.add_argument(
        "--export", type=Path, help="write models, inputs and true gradients into this folder, and stop"
    )
    parser.add_argument("--exported", type=Path, action="append", default=[], help="measure such a folder too")
    return parser.parse_args(arguments)


def _matches(entry: Entry, text: str) -> bool:
    return text.lower() in f"{entry.model} {entry.exporter}".lower()


def _export(chosen: Sequence[Entry], folder: Path, absent: dict[str, str]) -> int:
    for framework, why in absent.items():
        print(f"Skipped {framework}: {why}.", file=sys.stderr)
    failed = 0
    for entry in chosen:
        begun = time.perf_counter()
        try:
            exported = entry.build()
        except Exception as error:  # noqa: BLE001 - exporters raise anything; the others shall still be written
            print(f"{entry.slug}: {_sentence(error)}", file=sys.stderr)
            failed += 1
            continue
        exported.notes |= versions(entry.framework)
        save(entry, exported, folder)
        print(f"{entry.slug}: {len(exported.model) / 1e3:.0f} kB, {time.perf_counter() - begun:.1f} s", flush=True)
    return 1 if failed or not chosen else 0


def _measured(entry: Entry, in_float64: bool) -> Row:
    from benchmarks.zoo.measure import measure
    from benchmarks.zoo.table import Row
    from vogcore import VogcoreError

    try:
        exported = entry.build()
    except Exception as error:  # noqa: BLE001 - exporters raise anything
        row = Row(entry, None, f"the exporter fails: {_sentence(error)}")
    else:
        try:
            row = Row(entry, measure(exported, in_float64=in_float64))
        except VogcoreError as error:
            row = Row(entry, None, _sentence(error))
        except Exception as error:  # noqa: BLE001 - a row that fails shall not cost the others
            row = Row(entry, None, f"fails: {_sentence(error)}")
    shown = f"median {row.accuracy.median:.1e}" if row.accuracy else row.refusal
    print(f"{entry.model}, {entry.exporter}, opset {entry.opset}: {shown}", file=sys.stderr, flush=True)
    return row


def _sentence(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__  # exporters colour their text
    return text.splitlines()[0].partition("; ")[0][:200]


if __name__ == "__main__":
    sys.exit(main())
