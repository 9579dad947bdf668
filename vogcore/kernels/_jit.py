"""How the CPU kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["compiled"]

# Never all of fastmath: "nnan" and "ninf" would let the compiler assume that gradients are finite, and a NaN could
# then vanish from a score. Without "arcp" and "afn" divisions and roots stay correctly rounded.
_FASTMATH = {"contract", "reassoc", "nsz"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile ``function`` on first use for each signature, without the GIL, cached on disk where that is possible.

    Numba looks for a writable cache folder when the function is decorated (beside the source, then the user's cache
    folder, or ``NUMBA_CACHE_DIR``) and raises RuntimeError where there is none, as in a read-only container: then the
    kernels are compiled anew in every process.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _FASTMATH}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
