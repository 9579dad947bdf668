"""Options of a command in a TOML file: read, checked as on the command line, and written."""

from __future__ import annotations

import argparse
import difflib
import glob
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vogcore._paths import reason
from vogcore.cli._parser import Parser, fail
from vogcore.errors import SettingsError

__all__ = ["ConfigurableParser", "as_toml", "read_config"]

_PATHS = ("checkpoints", "data", "labels", "gradients", "output", "keep_gradients", "statistics", "maps")
"""Options that hold paths, which are relative to the folder of the file."""
_NOT_IN_A_FILE = ("config", "print_config", "json", "help")
_LISTS = {"mean": ",", "std": ","}
"""Options that may be a list of numbers in the file, and what joins them on the command line."""
_STAGE = "stage"


class ConfigurableParser(Parser):
    """A parser that takes options from the file that ``--config`` names, where the command line does not have them.

    Without such an option it is a parser like any other.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, with the values of the file in place of the defaults."""
        path = self._named_file(args)
        if path is None:
            return super().parse_known_args(args, namespace)
        try:
            values = read_config(path, self)
        except SettingsError as error:
            raise SystemExit(fail(str(error))) from None
        stages = values.pop(_STAGE, None)
        required = [action for action in self._actions if action.required and action.dest in values]
        for action in required:
            action.required = False
        try:
            # What a namespace has already is no longer set to its default.
            result, rest = super().parse_known_args(args, argparse.Namespace(**values))
        finally:
            for action in required:
                action.required = True
        if stages is not None and result.stage is None:  # argparse would add to a list instead of replacing it
            result.stage = stages
        return result, rest

    def _named_file(self, args: Any) -> str | None:
        # A shell that asks for completions wants no errors, and knows the options without the file.
        if "_ARGCOMPLETE" in os.environ or not any(action.dest == "config" for action in self._actions):
            return None
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--config")
        try:
            path: str | None = first.parse_known_args(args)[0].config
        except argparse.ArgumentError:  # --config without a file, which is found again and said in our words
            return None
        return path


def read_config(path: str | os.PathLike[str], parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Options of a file by their ``dest``, as the command line would have made them.

    Keys are the long options without the dashes in front, with ``-`` or ``_``. Paths are relative to the folder of the
    file. ``stage`` is a table (name = "0:4" or a list of indices) or a list of texts as on the command line.

    Raises:
        SettingsError: the file cannot be read, a key is unknown or there twice, or a value is impossible.
    """
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise SettingsError(f"Cannot read {os.fspath(path)}: there is no such file.") from None
    except OSError as error:
        raise SettingsError(f"Cannot read {os.fspath(path)}: {reason(error)}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{os.fspath(path)} is not a TOML file ({error}).") from error
    known = {action.dest: action for action in _actions(parser)}
    values: dict[str, Any] = {}
    for key, value in content.items():
        dest = key.replace("-", "_")
        where = f"{os.fspath(path)}: {key}"
        if dest not in known:
            near = difflib.get_close_matches(dest, known, 1, 0.5)
            hint = f"the closest is {near[0].replace('_', '-')}" if near else f"{parser.prog} --help lists them"
            raise SettingsError(f"{where} is not an option of {parser.prog}; {hint}.")
        if dest in values:
            raise SettingsError(f"{where} is there twice, with - and with _; leave one of them out.")
        values[dest] = _value(where, known[dest], value)
        if dest in _PATHS:
            values[dest] = _beside(Path(path).parent, dest, values[dest])
    return values


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if a.option_strings and a.dest not in _NOT_IN_A_FILE]


def _value(where: str, action: argparse.Action, value: Any) -> Any:
    if isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise SettingsError(f"{where} must be true or false, not {_shown(value)}.")
        return value
    if action.dest == _STAGE:
        return _stages(where, value)
    if action.nargs == "+":
        items = value if isinstance(value, list) else [value]
        if not items or not all(isinstance(item, str) for item in items):
            raise SettingsError(f"{where} must be a text or a list of texts, not {_shown(value)}.")
        return items
    if action.dest in _LISTS and isinstance(value, list) and value:
        return _LISTS[action.dest].join(_text(where, item) for item in value)
    text = _text(where, value)
    try:
        parsed = action.type(text) if callable(action.type) else text
    except argparse.ArgumentTypeError as error:
        raise SettingsError(f"{where}: {error}.") from None
    if action.choices is not None and parsed not in action.choices:
        raise SettingsError(f"{where}: {_shown(value)} is not possible, choose one of {', '.join(action.choices)}.")
    return parsed


def _text(where: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SettingsError(f"{where} must be a text or a number, not {_shown(value)}.")
    return value if isinstance(value, str) else repr(value)


def _stages(where: str, value: Any) -> list[str]:
    """Stages as the command line has them: ``early=0:4``."""
    if isinstance(value, Mapping):
        windows = {
            name: ",".join(map(str, window)) if isinstance(window, list) else window for name, window in value.items()
        }
        value = [f"{name}={window}" for name, window in windows.items()]
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise SettingsError(f'{where} must be a table such as {{early = "0:4", ends = [0, 11]}}, not {_shown(value)}.')
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _beside(folder: Path, dest: str, value: Any) -> Any:
    """A path of a file that lies in ``folder``, as it is reached from the current folder."""
    if isinstance(value, list):
        return [_beside(folder, dest, item) for item in value]
    if str(folder) == "." or (dest == "maps" and value.isdecimal()):
        return value
    joined = os.path.join(folder, value)
    if dest != "checkpoints" or os.path.exists(joined):
        return joined
    return os.path.join(glob.escape(str(folder)), value)


def as_toml(options: argparse.Namespace) -> str:
    """The options of a parsed command line as a file that gives the same; those without a value are left out.

    Paths stay as they are, so the file is to be kept in the current folder.
    """
    lines, tables = [], []
    for name, value in sorted(vars(options).items()):
        if name in (*_NOT_IN_A_FILE, "run", "command") or value is None:
            continue
        key = name.replace("_", "-")
        if name == _STAGE:
            windows = [item.partition("=") for item in value]
            tables = ["", f"[{_STAGE}]", *(f"{_key(stage)} = {_toml(window)}" for stage, _, window in windows)]
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for the one character that only TOML escapes.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)
