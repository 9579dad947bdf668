"""How the CPU kernels are compiled and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import pickle
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic, overload

from vogcore.kernels._scalar import bfloat16_bits_to_float32, float16_bits_to_float32

__all__ = ["cache_folder", "compiled", "prefetch", "widened"]

# Never all of fastmath: "nnan" and "ninf" would let the compiler assume that gradients are finite, and a NaN could
# then vanish from a score. Without "arcp" and "afn" divisions and roots stay correctly rounded.
_FASTMATH = {"contract", "reassoc", "nsz"}


def _digest_of_sources() -> str:
    folder = importlib.resources.files("vogcore.kernels")
    sources = (folder.joinpath(name).read_bytes() for name in ("_cpu.py", "_cpu_block.py", "_jit.py", "_scalar.py"))
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


_SOURCES = _digest_of_sources()


def _identity(function: Any) -> tuple:
    """What tells closures of one function apart: their cells, and those of the kernels in them."""
    function = getattr(function, "py_func", function)
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return (function.__qualname__, *(_identity(cell) if callable(cell) else cell for cell in cells))


class _KernelCache(FunctionCache):
    """Numba's cache on disk, for functions that are built from several files, and never a reason to fail."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple:
        # Numba looks at the file of the function alone: a change of a formula in _scalar.py would go unnoticed. And it
        # tells closures apart by a pickle of their cells, which differs in every process where these hold kernels.
        return (sig, codegen.magic_tuple(), _identity(self._py_func), _SOURCES)

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


def _without_aliases(flags: Any) -> Any:
    """Arrays that a loop is given do not overlap; else it compares all their addresses each time it begins."""
    flags.noalias = True
    return flags


def compiled(function: Callable[..., Any], *, inline: bool = False) -> Any:
    """Compile ``function`` on first use for each signature, without the GIL, kept on disk where that is possible.

    Numba looks for a writable cache folder (``NUMBA_CACHE_DIR``, beside the source, the user's cache folder) and
    raises RuntimeError where there is none, as in a read-only container: kernels are then compiled in every process.
    With ``NUMBA_DISABLE_JIT`` the function is returned as it is.

    Args:
        function: the loop.
        inline: put it into its callers, where constant arguments become constants of its loop; the arrays it is
            given must not overlap.
    """
    dispatcher = numba.njit(
        function, nogil=True, error_model="numpy", fastmath=_FASTMATH, forceinline=inline, no_cpython_wrapper=inline
    )
    if dispatcher is not function:
        if inline:
            dispatcher._compiler._customize_flags = _without_aliases
        with contextlib.suppress(RuntimeError):
            dispatcher._cache = _KernelCache(function)
    return dispatcher


def cache_folder(function: Any) -> str | None:
    """Where the machine code of a loop is kept; None where no folder can be written, or nothing is compiled."""
    folder: str | None = getattr(getattr(function, "_cache", None), "cache_path", None)
    return folder


def prefetch(values: Any, index: Any) -> None:
    """Have the cache line of ``values[index]`` fetched while other work goes on; any index will do, it is only a hint.

    Args:
        values: one-dimensional contiguous array.
        index: unsigned integer.
    """


@intrinsic
def _prefetch(typing_context: Any, values: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # For reading, into the nearest cache, data.
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(values, types.uint64), generate


@overload(prefetch)
def _overload_prefetch(values, index):  # type: ignore[no-untyped-def]
    return lambda values, index: _prefetch(values, index)


def _converts_float16() -> bool:
    """Whether the code may leave binary16 to the processor; for others LLVM calls a function that need not exist."""
    if numba.config.CPU_NAME or numba.config.CPU_FEATURES is not None:
        return False  # compiled for some other processor
    if llvm.get_process_triple().startswith(("aarch64", "arm64")):
        return True
    return bool(llvm.get_host_cpu_features().get("f16c", False))


_CONVERTS_FLOAT16 = _converts_float16()


@intrinsic
def _hardware_float16(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(value), generate


_from_bfloat16 = compiled(bfloat16_bits_to_float32)
_from_float16 = compiled(float16_bits_to_float32)


def widened(value: Any) -> Any:
    """A gradient as float64: of float32 or float64, of bfloat16 as uint16 bits, or of binary16 as int16 bits."""
    if isinstance(value, np.uint16):
        return np.float64(bfloat16_bits_to_float32(value))
    if isinstance(value, np.int16):
        return np.float64(float16_bits_to_float32(value))
    return np.float64(value)


@overload(widened)
def _overload_widened(value):  # type: ignore[no-untyped-def]
    if value == types.uint16:
        return lambda value: np.float64(_from_bfloat16(value))
    if value == types.int16 and _CONVERTS_FLOAT16:
        return lambda value: np.float64(_hardware_float16(value))
    if value == types.int16:
        return lambda value: np.float64(_from_float16(np.uint16(value)))
    return lambda value: np.float64(value)
