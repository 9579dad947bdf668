"""How the CPU kernels are compiled and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import pickle
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache

__all__ = ["compiled"]

# Never all of fastmath: "nnan" and "ninf" would let the compiler assume that gradients are finite, and a NaN could
# then vanish from a score. Without "arcp" and "afn" divisions and roots stay correctly rounded.
_FASTMATH = {"contract", "reassoc", "nsz"}


def _digest_of_sources() -> str:
    folder = importlib.resources.files("vogcore.kernels")
    sources = (folder.joinpath(name).read_bytes() for name in ("_cpu.py", "_jit.py", "_scalar.py"))
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


_SOURCES = _digest_of_sources()


class _KernelCache(FunctionCache):
    """Numba's cache on disk, for functions that are built from several files, and never a reason to fail."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple:
        # Numba looks at the file of the function alone: a change of a formula in _scalar.py would go unnoticed.
        return (*super()._index_key(sig, codegen), _SOURCES)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except (EOFError, pickle.UnpicklingError):
            with contextlib.suppress(OSError):
                self.flush()  # cut short by a crash or a full disk: start the index of this function afresh
        except OSError:
            pass
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except (OSError, EOFError, pickle.UnpicklingError):
            self.disable()  # disk full, quota, folder gone: what was compiled is in memory all the same


def compiled(function: Callable[..., Any]) -> Any:
    """Compile ``function`` on first use for each signature, without the GIL, kept on disk where that is possible.

    Numba looks for a writable cache folder (``NUMBA_CACHE_DIR``, beside the source, the user's cache folder) and
    raises RuntimeError where there is none, as in a read-only container: kernels are then compiled in every process.
    With ``NUMBA_DISABLE_JIT`` the function is returned as it is.
    """
    dispatcher = numba.njit(function, nogil=True, error_model="numpy", fastmath=_FASTMATH)
    if dispatcher is not function:
        with contextlib.suppress(RuntimeError):
            dispatcher._cache = _KernelCache(function)
    return dispatcher
