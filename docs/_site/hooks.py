"""What mkdocs is told beside mkdocs.yml: files from outside of docs/, results of benchmarks, help of the commands.

A page is written so that it reads well as a file of the repository, too; what differs on the site is done here:

* a link to a file that lies beside docs/ (a change log, a result, an example) leads to a copy of it in the site;
* the mark behind the language of a code block, by which the tests know what to run, is taken away;
* ``<!-- results: gradients -->`` becomes the tables of benchmarks/results/gradients.md, so that no figure is copied;
* ``<!-- help of the commands -->`` becomes what ``vogcore COMMAND --help`` prints;
* ``<!-- reference of the adapters -->`` becomes the reference of every module of ``vogcore_adapters``.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

__all__ = ["helps", "on_files", "on_page_markdown", "outside"]

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^(```.*?^```[^\S\n]*$)", re.MULTILINE | re.DOTALL)
MARKED = re.compile(r"^```(\w+)[^\S\n]+\S.*$", re.MULTILINE)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
RESULTS = re.compile(r"^<!-- results: (\w+) -->$", re.MULTILINE)
HELP = "<!-- help of the commands -->"
ADAPTERS = "<!-- reference of the adapters -->"
COPIED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "vogcore/demo/README.md",
    "benchmarks/results/*.md",
    "examples/*.py",
)
"""Files beside docs/ that the site has a copy of, under the same path."""
WIDTH = 86


def outside() -> list[str]:
    """Paths of the copied files, from the root of the repository."""
    return sorted(path.relative_to(ROOT).as_posix() for pattern in COPIED for path in ROOT.glob(pattern))


def on_files(files: Files, config: Any) -> Files:
    """Add the copied files to those of docs/."""
    for name in outside():
        # A licence without a suffix would be sent as something to be saved.
        target = name if "." in posixpath.basename(name) else f"{name}.txt"
        added = File.generated(config, target, abs_src_path=str(ROOT / name))
        added.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(added)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn what was written for the repository into what the site needs."""
    where = page.file.src_uri
    source = where if where in outside() else f"docs/{where}"
    markdown = RESULTS.sub(lambda match: _results(match[1]), markdown)
    if HELP in markdown:
        markdown = markdown.replace(HELP, _help_page())
    markdown = markdown.replace(ADAPTERS, _adapters())
    parts = FENCED.split(markdown)
    for i, part in enumerate(parts):
        parts[i] = MARKED.sub(r"```\1", part) if i % 2 else LINK.sub(lambda m: _link(m, source, where), part)
    return "".join(parts)


def _link(match: re.Match[str], source: str, where: str) -> str:
    """A link of the file ``source`` of the repository, from the page ``where`` of the site."""
    target, _, anchor = match[3].partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path == "README.md":
        path = "docs/index.md"
    if path.startswith("docs/"):
        path = path.removeprefix("docs/")
    elif path not in outside():
        return match[2]  # the site does not have it
    elif "." not in posixpath.basename(path):
        path += ".txt"
    relative = os.path.relpath(path, posixpath.dirname(where) or ".").replace(os.sep, "/")
    return f"{match[1]}[{match[2]}]({relative}{'#' + anchor if anchor else ''})"


def _results(name: str) -> str:
    """The results of a benchmark, below a heading of the page: its own title goes, its headings move down."""
    text = (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8")
    body = re.sub(r"\A# .*\n", "", text)
    return re.sub(r"^#", "##", body, flags=re.MULTILINE)


def helps() -> Iterator[tuple[str, str]]:
    """Name and help of the program and of every command."""
    from vogcore import cli

    # argparse breaks lines at the width of the terminal.
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        parser = cli._parser()
        yield "vogcore", parser.format_help()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, command in action.choices.items():
                    yield f"vogcore {name}", command.format_help()
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _help_page() -> str:
    return "\n".join(f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in helps())


def _adapters() -> str:
    modules = sorted(path.stem for path in (ROOT / "adapters" / "vogcore_adapters").glob("[a-z]*.py"))
    return "\n\n".join(f"::: vogcore_adapters.{name}" for name in modules)
