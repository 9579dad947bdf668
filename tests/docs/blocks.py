"""The code blocks of the documents, and what is to be run of them.

The words behind the language say it: ``run``: the tests run the block; ``run if a b.c``: where the modules ``a`` and
``b.c`` can be found; ``run in tests/...``: another test does it. Commands of blocks without a mark are parsed only.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__ = ["DOCUMENTS", "FENCE", "IDS", "ROOT", "Block", "blocks", "commands", "missing", "read"]

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block: its language, the words behind it, and what is in it."""

    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules without which the block cannot run."""
        return self.marks[2:] if self.marks[:2] == ("run", "if") else ()

    @property
    def wanted(self) -> bool:
        """Whether the tests of the documents run it."""
        return self.marks == ("run",) or bool(self.modules)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path) -> list[Block]:
    """All code blocks of a document, in order."""
    return [Block(language, tuple(marks.split()), text) for language, marks, text in FENCE.findall(read(path))]


def commands(block: str) -> list[list[str]]:
    """Arguments of every vogcore command in a shell block."""
    joined = block.replace("\\\n", " ")
    parts = [part for line in joined.splitlines() for part in line.split(" && ")]
    words = [shlex.split(part, comments=True) for part in parts]
    return [command[1:] for command in words if command[:1] == ["vogcore"]]


def missing(block: Block) -> list[str]:
    """The modules that it needs and that are not there."""

    def found(module: str) -> bool:
        try:
            return find_spec(module) is not None
        except ImportError:
            return False

    return [module for module in block.modules if not found(module)]
