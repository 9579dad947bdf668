"""Optional packages, imported when an adapter is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vogcore.errors import VogcoreError

__all__ = ["require"]


def require(module: str, extra: str, what: str) -> Any:
    """Import a package that is not one of vogcore's own requirements.

    Args:
        module: name to import.
        extra: extra of vogcore that brings it.
        what: what needs it, for the message: "Reading Parquet".

    Raises:
        VogcoreError: it is not installed, or too broken to be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise VogcoreError(
            f"{what} needs {error.name or module}, which cannot be imported here ({error}): install it with "
            f"pip install 'vogcore[{extra}]'."
        ) from error
