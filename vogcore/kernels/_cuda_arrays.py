"""Arrays on a CUDA device as Numba sees them, and how kernels are launched on them."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import config, cuda
from numba.cuda.cudadrv.driver import CudaAPIError

from vogcore.errors import GradientError, SettingsError
from vogcore.kernels import _dlpack
from vogcore.kernels._cuda_pixel import THREADS

__all__ = ["Call", "DeviceArray", "call", "empty", "scratch", "threads_for", "to_host"]

# Numba warns of grids of fewer than 128 blocks, which small input cannot help having; blocks without work cost
# microseconds, and threads of a warp without work nothing. In the simulator they would cost seconds.
_FEWEST_BLOCKS, _FEWEST_THREADS = (1, 1) if config.ENABLE_CUDASIM else (128, 32)
_MOST_BLOCKS = 2**31 - 1
_LEGACY_STREAM, _THREAD_STREAM = 1, 2


class DeviceArray(NamedTuple):
    """An array on the device, with what Numba's view of it does not tell."""

    view: Any
    is_bfloat16: bool
    read_only: bool


class Call:
    """The arrays of one call by name, and the stream that its kernels run on."""

    def __init__(self) -> None:
        self.stream: Any = 0
        self._borrowed = False

    def array(self, name: str, array: Any) -> DeviceArray:
        """An array of the caller.

        Raises:
            GradientError: it cannot be read on the device.
        """
        try:
            found = self._view(array)
        except (AttributeError, BufferError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise GradientError(
                f"{name} cannot be read on the GPU ({str(error).rstrip('.')}): pass a dense array without gradient."
            ) from error
        if not found.view.is_c_contiguous():
            raise GradientError(f"{name} lies on the GPU and is not C-contiguous: pass a contiguous copy.")
        self._follow(found.view.stream)
        return found

    def _view(self, array: Any) -> DeviceArray:
        if getattr(array, "__cuda_ndarray__", False):
            return DeviceArray(array, False, False)
        if hasattr(array, "__dlpack_device__"):
            per_thread = config.CUDA_PER_THREAD_DEFAULT_STREAM
            borrowed = _dlpack.borrow(array, _THREAD_STREAM if per_thread else _LEGACY_STREAM)
            self._borrowed = True
            read_only = borrowed.__cuda_array_interface__["data"][1]
            return DeviceArray(cuda.as_cuda_array(borrowed, sync=False), borrowed.is_bfloat16, read_only)
        interface = dict(array.__cuda_array_interface__)
        is_bfloat16 = interface["typestr"] == "<V2"  # as torch and ml_dtypes call it
        if is_bfloat16:
            interface["typestr"] = "<u2"
        owner = SimpleNamespace(__cuda_array_interface__=interface, owner=array)
        return DeviceArray(cuda.as_cuda_array(owner, sync=False), is_bfloat16, bool(interface["data"][1]))

    def _follow(self, stream: Any) -> None:
        """Kernels run on the first stream that an array names; what others name has to be done before."""
        if not stream or stream is self.stream:
            return
        if not self.stream:
            self.stream = stream
        else:
            stream.synchronize()

    def launch(self, kernel: Any, n_blocks: int, n_threads: int, *args: Any) -> None:
        """Run a kernel on ``n_blocks`` blocks of threads (more do no harm), each of ``n_threads``."""
        if self.stream and self._borrowed:
            # Their libraries were told of the default stream, which a non-blocking stream does not wait for.
            cuda.default_stream().synchronize()
            self._borrowed = False
        blocks = min(max(n_blocks, _FEWEST_BLOCKS), _MOST_BLOCKS)
        kernel[blocks, n_threads, self.stream](*args)

    def elementwise(self, kernel: Any, n: int, *args: Any) -> None:
        """Run a kernel that has a thread for each of ``n`` items."""
        n_threads = threads_for(n)
        self.launch(kernel, -(-n // n_threads), n_threads, *args)

    def upload(self, array: npt.NDArray) -> Any:
        """A copy of an array of the host on the device."""
        return cuda.to_device(np.ascontiguousarray(array), stream=self.stream)

    def fetch(self, view: Any) -> npt.NDArray:
        """A copy of an array of the device on the host, complete when this returns."""
        out: npt.NDArray = view.copy_to_host(stream=self.stream)
        if self.stream:
            self.stream.synchronize()
        return out

    def wait(self) -> None:
        """Return when everything that was launched is done."""
        (self.stream or cuda.default_stream()).synchronize()


@contextmanager
def call(*arrays: Any) -> Iterator[Call]:
    """A call whose kernels run on the device that the arrays lie on.

    Raises:
        GradientError: they lie on different devices.
    """
    devices = {
        int(array.__dlpack_device__()[1])
        for array in arrays
        if not getattr(array, "__cuda_ndarray__", False) and hasattr(array, "__dlpack_device__")
    }
    if len(devices) > 1:
        raise GradientError(f"The arrays lie on the GPUs {sorted(devices)}: copy them to one.")
    with cuda.gpus[devices.pop()] if devices else contextlib.nullcontext():
        yield Call()


def threads_for(n: int) -> int:
    """Threads of a block for ``n`` items: a power of two, at least a warp, never more than needed."""
    return min(THREADS, max(_FEWEST_THREADS, 1 << (n - 1).bit_length()))


class _Scratch(threading.local):
    """Memory for partial sums, kept: allocating takes longer than a kernel on one batch."""

    def __init__(self) -> None:
        self.buffers: dict[int, Any] = {}


_scratch = _Scratch()


def scratch(*shapes: tuple[int, ...]) -> list[Any]:
    """Arrays of float64 with any contents, valid until this thread asks again.

    A call returns only when its kernels are done, so the memory is free by then.
    """
    sizes = [math.prod(shape) for shape in shapes]
    device = cuda.current_context().device.id if not config.ENABLE_CUDASIM else 0
    buffer = _scratch.buffers.get(device)
    if buffer is None or buffer.size < sum(sizes):
        _scratch.buffers.pop(device, None)
        buffer = _scratch.buffers[device] = empty((sum(sizes),), np.float64)
    arrays, start = [], 0
    for shape, size in zip(shapes, sizes):
        arrays.append(buffer[start : start + size].reshape(shape))
        start += size
    return arrays


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    """A new array on the device with any contents.

    Raises:
        SettingsError: device memory does not hold it.
    """
    try:
        return cuda.device_array(shape, np.dtype(dtype))
    except (CudaAPIError, MemoryError) as error:
        if "OUT_OF_MEMORY" not in str(error) and not isinstance(error, MemoryError):
            raise
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raise SettingsError(
            f"The memory of the GPU does not hold {size:,} bytes more: give a smaller memory or batch size."
        ) from error


def to_host(array: Any) -> npt.NDArray:
    """A copy of a device array; bfloat16 as its uint16 bits.

    Raises:
        GradientError: it cannot be read.
    """
    with call(array) as here:
        return here.fetch(here.array("array", array).view)
