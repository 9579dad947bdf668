"""Arrays of other libraries on a device: the CUDA array interface and DLPack, with host memory for the device's.

Not collected by itself: `test_cuda_simulator.py` runs it in a process of its own with Numba's simulator, which lacks
the import of arrays; a view of the memory at the given address stands in for it.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from numba import cuda
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

from vogcore import kernels
from vogcore.errors import GradientError, SettingsError
from vogcore.kernels import _cuda_arrays, _dlpack
from vogcore.kernels import cuda as on_device

from .cuda_comparisons import encoded, gradients_like


@pytest.fixture(autouse=True)
def importing(monkeypatch):
    def as_cuda_array(owner, sync):
        assert not sync  # streams are waited for by the call, not by Numba
        interface = {**owner.__cuda_array_interface__}
        stream = interface.pop("stream", None)
        view = FakeCUDAArray(np.asarray(SimpleNamespace(__array_interface__=interface, owner=owner)))
        view.stream = stream or 0
        return view

    monkeypatch.setattr(cuda, "as_cuda_array", as_cuda_array, raising=False)


class Interface:
    """An array with the CUDA array interface."""

    def __init__(self, array, stream=None, read_only=False, typestr=None):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": typestr or array.dtype.str,
            "data": (array.ctypes.data, read_only),
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            "stream": stream,
        }


class Dlpack:
    """An array with DLPack that says it lies on a GPU."""

    def __init__(self, array, device=0, code=None):
        self.array, self.device, self.code, self.streams = array, device, code, []

    def __dlpack_device__(self):
        return _dlpack.CUDA, self.device

    def __dlpack__(self, *, stream, max_version=None):
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        managed = ctypes.cast(_dlpack._get_pointer(capsule, b"dltensor"), ctypes.POINTER(_dlpack._Managed)).contents
        managed.tensor.device.type = _dlpack.CUDA
        if self.code is not None:
            managed.tensor.dtype.code = self.code
        return capsule


class Stream:
    def __init__(self):
        self.waited = 0

    def synchronize(self):
        self.waited += 1


def expected_of(gradients):
    mean, m2 = np.empty((2, 4)), np.empty((2, 4))
    return kernels.update_moments(gradients, mean, m2, step=1, channel_axis=1), mean


@pytest.mark.parametrize("wrap", [Interface, Dlpack])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_gradients_and_moments_of_another_library(wrap, dtype):
    gradients = gradients_like((2, 3, 4), dtype)
    mean, m2 = np.full((2, 4), np.nan), np.full((2, 4), np.nan)
    found = kernels.update_moments(wrap(gradients), wrap(mean), wrap(m2), step=1, channel_axis=1)
    magnitudes, expected = expected_of(gradients)
    np.testing.assert_allclose(found, magnitudes, rtol=1e-13)
    np.testing.assert_allclose(mean, expected, rtol=1e-13)
    assert (m2 == 0).all()


def test_bfloat16_by_either_name():
    bits = encoded(np.random.default_rng(0).standard_normal((3, 2, 5)), "bfloat16")
    score, _ = on_device.block_score(cuda.to_device(bits))
    for array in (Interface(bits, typestr="<V2"), Dlpack(bits, code=4)):
        np.testing.assert_array_equal(on_device.block_score(array)[0], score)


def test_dlpack_is_told_the_stream():
    gradients = Dlpack(np.zeros((3, 2, 5), np.float32))
    on_device.block_score(gradients)
    assert gradients.streams == [1]


def test_kernels_run_on_the_stream_of_the_first_array_and_wait_for_others():
    first, second = Stream(), Stream()
    arrays = [np.zeros((2, 4)) for _ in range(2)]
    with _cuda_arrays.call() as here:
        here.array("a", Interface(arrays[0], stream=first))
        here.array("b", Interface(arrays[1], stream=second))
        assert here.stream is first
        assert (first.waited, second.waited) == (0, 1)
        here.fetch(here.upload(arrays[0]))
        assert first.waited == 1  # the copy is complete


def test_memory_that_must_not_be_written():
    gradients, moments = cuda.to_device(np.zeros((2, 4), np.float32)), np.zeros((2, 4))
    with pytest.raises(GradientError, match="mean is updated in place"):
        kernels.update_moments(gradients, Interface(moments, read_only=True), Interface(moments.copy()), step=1)
    kernels.score_from_moments(Interface(moments, read_only=True), 2)


def test_arrays_that_are_not_dense():
    array = np.zeros((4, 2))
    with pytest.raises(GradientError, match="m2 lies on the GPU and is not C-contiguous: pass a contiguous copy"):
        kernels.score_from_moments(Interface(array.T), 2)


def test_arrays_on_different_gpus():
    array = np.zeros((2, 4))
    with pytest.raises(GradientError, match=r"lie on the GPUs \[0, 1\]: copy them to one"):
        kernels.update_moments(Dlpack(array), Dlpack(array, 1), Dlpack(array), step=1)


def test_a_library_that_refuses():
    class Refusing:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("Can't get it on Variable that requires grad.")

    with pytest.raises(GradientError, match=r"m2 cannot be read on the GPU \(Can't .* grad\): pass a dense array"):
        kernels.score_from_moments(Refusing(), 2)


def test_memory_of_the_device_that_runs_out(monkeypatch):
    def device_array(*args):
        raise _cuda_arrays.CudaAPIError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(cuda, "device_array", device_array)
    with pytest.raises(SettingsError, match="does not hold 8,000,000 bytes more: give a smaller memory"):
        kernels.empty((1000, 1000), "float64", "cuda")


def test_the_check_of_the_device(monkeypatch):
    on_device.self_check()
    monkeypatch.setattr(on_device, "update_moments", lambda gradients, mean, m2, **options: np.zeros(2))
    with pytest.raises(RuntimeError, match="wrong results"):
        on_device.self_check()
