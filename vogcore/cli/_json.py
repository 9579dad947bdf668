"""Results as JSON: one object on standard output and nothing else; docs/command-line.md describes the keys."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["SCHEMA", "add_json_option", "plain", "print_json"]

SCHEMA = 1
"""Version of the keys: later ones add keys and keep those that there are, or this number goes up."""


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text, and nothing else")


def plain(value: Any) -> Any:
    """What JSON can hold: data classes as objects, NumPy's types as Python's, NaN and infinity as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def print_json(command: str, content: Mapping[str, Any]) -> None:
    """Print the result of a command."""
    print(json.dumps({"command": command, "schema": SCHEMA, **plain(content)}, indent=2))
