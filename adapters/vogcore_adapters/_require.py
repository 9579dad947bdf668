"""Optional packages, imported when an adapter is used, and what to say where one is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vogcore.errors import VogcoreError

__all__ = ["missing", "missing_keras", "require"]

_BACKENDS = {"tensorflow": "tensorflow", "jax": "'vogcore[jax]'", "torch": "'vogcore[torch]'"}
"""What installs a backend of Keras; the extra keras leaves the choice to the user."""


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
        raise missing(error, extra, what, module) from error


def missing(error: ImportError, extra: str, what: str, module: str | None = None) -> VogcoreError:
    """The error to raise from ``error``: ``what`` needs a package that the extra ``extra`` installs.

    Args:
        error: what the import raised.
        extra: extra of vogcore that brings the package.
        what: what needs it.
        module: name of the package where ``error`` does not tell it; that of the extra by default.
    """
    return VogcoreError(
        f"{what} needs {error.name or module or extra}, which cannot be imported here ({_reason(error)}): install it "
        f"with pip install 'vogcore[{extra}]'."
    )


def missing_keras(error: ImportError, what: str) -> VogcoreError:
    """As :func:`missing` for Keras, which is of no use without the backend that is chosen."""
    backend = (error.name or "").partition(".")[0]
    if backend not in _BACKENDS:
        return missing(error, "keras", what)
    return VogcoreError(
        f"{what} needs {backend}, the backend of Keras, which cannot be imported here ({_reason(error)}): install it "
        f"with pip install {_BACKENDS[backend]}, or choose another one by the environment variable KERAS_BACKEND."
    )


def _reason(error: ImportError) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
