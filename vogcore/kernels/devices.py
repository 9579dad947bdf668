"""Where arrays lie, and which module computes there: the one table that every function of this package goes by."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from vogcore.errors import GradientError, SettingsError
from vogcore.kernels import _dlpack

__all__ = ["INSTALL", "empty", "on_any_device", "place", "problem", "to_host"]

INSTALL = "pip install 'vogcore[gpu]'"
"""What brings the packages that compute on a GPU."""

_MODULES = {"cuda": "vogcore.kernels.cuda"}
"""Kind of device to the module with the functions of the same names for arrays that lie there."""

_PLACES = {
    _dlpack.CPU: "cpu",
    _dlpack.CUDA_HOST: "cpu",
    _dlpack.CUDA: "cuda",
    _dlpack.CUDA_MANAGED: "cuda",
}

_LONGEST = 300
"""Characters of a message of Numba's that are passed on."""

P = ParamSpec("P")
R = TypeVar("R")


def place(array: Any, name: str = "array") -> str:
    """Where an array lies: "cpu" or "cuda". Lists and the like, which NumPy makes arrays of, lie on the CPU.

    Raises:
        GradientError: on another kind of device.
    """
    if isinstance(array, np.ndarray):
        return "cpu"
    if getattr(array, "__cuda_ndarray__", False):  # Numba's own arrays, and those of its simulator
        return "cuda"
    device = getattr(array, "__dlpack_device__", None)
    if device is not None:
        kind = int(device()[0])
        if kind not in _PLACES:
            raise GradientError(
                f"{name} lies on a device of DLPack type {kind}, where vogcore cannot read it: pass a copy on the host."
            )
        return _PLACES[kind]
    try:
        return "cuda" if hasattr(array, "__cuda_array_interface__") else "cpu"
    except RuntimeError:  # torch, for a tensor that requires grad; reading it gives the reason
        return "cuda"


def on_any_device(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function on NumPy arrays take arrays that lie anywhere.

    Arrays of the host that come by another protocol reach the function as NumPy arrays on the same memory. Where the
    arrays lie on a device, the function of the same name in that device's module is called instead.

    Args:
        names: the arguments that must lie in one place. All others are passed on as they are.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = list(inspect.signature(function).parameters)
        at = [(name, parameters.index(name)) for name in names]

        @functools.wraps(function)
        def dispatch(*args: P.args, **kwargs: P.kwargs) -> R:
            given: list[tuple[str, Any]] = [
                (name, args[i] if i < len(args) else kwargs[name]) for name, i in at if i < len(args) or name in kwargs
            ]
            if all(type(array) is np.ndarray for _, array in given):
                return function(*args, **kwargs)
            places = {name: place(array, name) for name, array in given}
            if len(set(places.values())) > 1:
                lying = ", ".join(f"{name} on {where}" for name, where in places.items())
                raise GradientError(f"The arrays lie in different places ({lying}): copy them to one.")
            kind = next(iter(places.values()), "cpu")
            if kind != "cpu":
                return getattr(_module(kind), function.__name__)(*args, **kwargs)
            host = {name: _on_host(array, name) for name, array in given}
            new = [host.get(name, value) for name, value in zip(parameters, args)]
            return function(*new, **{key: host.get(key, value) for key, value in kwargs.items()})

        return dispatch

    return decorate


def _module(kind: str) -> Any:
    """The module for a kind of device.

    Raises:
        SettingsError: its packages are not installed.
    """
    if not _installed(kind):
        raise SettingsError(
            f"The arrays lie on a GPU, and the package numba-cuda that computes there is not installed: run {INSTALL}, "
            "or pass NumPy arrays."
        )
    return importlib.import_module(_MODULES[kind])


def _installed(kind: str) -> bool:
    # Numba itself has a module numba.cuda, which is out of date; with numba-cuda that name leads to the new one.
    return kind != "cuda" or importlib.util.find_spec("numba_cuda") is not None


@functools.cache
def problem(kind: str) -> str | None:
    """Why arrays on a kind of device cannot be computed with, found by trying it once; None where they can."""
    if not _installed(kind):
        return "the package numba-cuda is not installed"
    try:
        _module(kind).self_check()
    except Exception as error:  # noqa: BLE001  (drivers, compilers and loaders have errors of many kinds)
        said = " ".join(str(error).split()).rstrip(".: ") or type(error).__name__
        return f"numba-cuda fails ({said[:_LONGEST]})"
    return None


def _on_host(array: Any, name: str) -> Any:
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__"):
        return array
    try:
        if hasattr(array, "__array__"):
            return np.asarray(array)
        return np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError):
        pass  # bfloat16 above all, which NumPy lacks
    try:
        borrowed = _dlpack.borrow(array, None)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise GradientError(f"{name} cannot be read ({str(error).rstrip('.')}): pass a NumPy array.") from error
    return np.asarray(borrowed)


def to_host(array: Any) -> npt.NDArray:
    """An array as NumPy array: itself, a view of memory of the host, or a copy from a device.

    Raises:
        GradientError: it cannot be read.
        SettingsError: it lies on a device whose packages are not installed.
    """
    kind = place(array)
    if kind == "cpu":
        return np.asarray(_on_host(array, "array"))
    copy: npt.NDArray = _module(kind).to_host(array)
    return copy


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike, kind: str = "cpu") -> Any:
    """A new array with any contents, in memory of the host ("cpu") or of a device ("cuda").

    Raises:
        SettingsError: device memory does not hold it, or its packages are not installed.
    """
    return np.empty(shape, dtype) if kind == "cpu" else _module(kind).empty(shape, dtype)
