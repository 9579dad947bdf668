"""What to say where a framework is missing."""

from __future__ import annotations

from vogcore.errors import VogcoreError

__all__ = ["missing"]


def missing(error: ImportError, extra: str, what: str) -> VogcoreError:
    """The error to raise from ``error``: ``what`` needs a package that the extra ``extra`` installs."""
    return VogcoreError(
        f"{what} needs {error.name or extra}, which is missing or too old here; install it with: "
        f"pip install --upgrade 'vogcore[{extra}]'"
    )
