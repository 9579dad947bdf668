"""Arrays that come by another protocol than NumPy's, and where their calls go; no GPU is needed."""

from __future__ import annotations

import gc
import importlib.util
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from vogcore import kernels
from vogcore.errors import GradientError, SettingsError
from vogcore.kernels import _dlpack, devices


class OnlyDlpack:
    """An array of a library that offers nothing but DLPack, of the old or the new kind."""

    def __init__(self, array, device=(1, 0), versioned=True):
        self.array, self.device, self.versioned = array, device, versioned

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        if not self.versioned and "max_version" in options:
            raise TypeError("unexpected keyword argument 'max_version'")
        return self.array.__dlpack__(**options)


class OnGpu:
    """What an array on a GPU shows of itself."""

    def __init__(self, shape=(2, 4), typestr="<f8"):
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (64, False), "version": 3}


@pytest.fixture
def no_numba_cuda(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba_cuda" else found(name))
    devices.problem.cache_clear()
    yield
    devices.problem.cache_clear()


@pytest.fixture
def device(monkeypatch):
    """A module that stands for the one with the functions for a GPU, and notes what it is asked."""
    calls = []

    def function(name):
        def call(*args, **kwargs):
            calls.append((name, args, kwargs))
            return name

        return call

    names = ["update_moments", "merge_moments", "score_from_moments", "class_statistics", "robust_statistics"]
    module = SimpleNamespace(**{name: function(name) for name in [*names, "normalise", "to_host", "empty"]})
    monkeypatch.setattr(devices, "_module", lambda kind: {"cuda": module}[kind])
    return calls


@pytest.mark.parametrize(
    ("array", "where"),
    [
        (np.zeros(3), "cpu"),
        ([1.0, 2.0], "cpu"),
        (torch.zeros(3), "cpu"),
        (OnlyDlpack(np.zeros(3)), "cpu"),
        (OnlyDlpack(None, (2, 1)), "cuda"),
        (OnlyDlpack(None, (3, 0)), "cpu"),
        (OnlyDlpack(None, (13, 0)), "cuda"),
        (OnGpu(), "cuda"),
        (SimpleNamespace(__cuda_ndarray__=True), "cuda"),
    ],
)
def test_where_an_array_lies(array, where):
    assert devices.place(array) == where


def test_other_devices_are_refused():
    with pytest.raises(GradientError, match="gradients lies on a device of DLPack type 10"):
        devices.place(OnlyDlpack(None, (10, 0)), "gradients")


def test_a_tensor_that_refuses_its_interface_is_still_on_the_gpu():
    class Refusing:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("requires grad")

    assert devices.place(Refusing()) == "cuda"


def test_every_function_goes_to_the_device_of_its_arrays(device):
    there = OnGpu()
    assert kernels.update_moments(there, there, m2=there, step=1) == "update_moments"
    assert kernels.merge_moments(there, there, 1, there, other_m2=there, other_n=2) == "merge_moments"
    assert kernels.score_from_moments(there, 3, reduction="var") == "score_from_moments"
    assert kernels.class_statistics(there, there, 4) == "class_statistics"
    assert kernels.robust_statistics(there, there, 4) == "robust_statistics"
    assert kernels.normalise(there, there, np.zeros(4), np.ones(4)) == "normalise"
    assert kernels.to_host(there) == "to_host"
    assert kernels.empty((2,), "float32", "cuda") == "empty"
    assert device[0] == ("update_moments", (there, there), {"m2": there, "step": 1})
    assert device[2] == ("score_from_moments", (there, 3), {"reduction": "var"})


def test_every_dispatched_function_has_a_counterpart():
    """By name and by arguments, read from the source: the module itself needs numba-cuda."""
    import ast
    import inspect
    from pathlib import Path

    tree = ast.parse(Path(devices.__file__).with_name("cuda.py").read_text())
    there = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
    dispatched = [
        name for name in kernels.__all__ if hasattr(getattr(kernels, name), "__wrapped__") and name[0].islower()
    ]
    assert len(dispatched) >= 6
    for name in dispatched:
        here = inspect.signature(getattr(kernels, name)).parameters
        assert name in there, name
        assert list(here) == [a.arg for a in there[name].args + there[name].kwonlyargs], name


def test_arrays_in_different_places(device):
    message = r"different places \(gradients on cuda, mean on cpu, m2 on cuda\): copy them to one"
    with pytest.raises(GradientError, match=message):
        kernels.update_moments(OnGpu(), np.zeros((2, 4)), OnGpu(), step=1)
    with pytest.raises(GradientError, match="scores on cpu, classes on cuda"):
        kernels.class_statistics(np.zeros(3), OnGpu(), 2)
    assert device == []


def test_without_numba_cuda_the_extra_is_named(no_numba_cuda):
    for call in (
        lambda: kernels.score_from_moments(OnGpu(), 2),
        lambda: kernels.to_host(OnGpu()),
        lambda: kernels.empty((2, 2), "float64", "cuda"),
    ):
        with pytest.raises(SettingsError, match=r"numba-cuda .* not installed: run pip install 'vogcore\[gpu\]'"):
            call()
    assert devices.problem("cuda") == "the package numba-cuda is not installed"


def test_what_keeps_the_gpu_from_working_is_told_in_a_line(monkeypatch):
    def fail():
        raise OSError("libnvvm.so is missing.\n\nlooked here\nand there.\n: ")

    monkeypatch.setattr(devices, "_installed", lambda kind: True)
    monkeypatch.setattr(devices, "_module", lambda kind: SimpleNamespace(self_check=fail))
    devices.problem.cache_clear()
    assert devices.problem("cuda") == "numba-cuda fails (libnvvm.so is missing. looked here and there)"
    devices.problem.cache_clear()
    monkeypatch.setattr(devices, "_module", lambda kind: SimpleNamespace(self_check=lambda: None))
    assert devices.problem("cuda") is None
    devices.problem.cache_clear()


def test_moments_of_another_library_are_updated_in_place():
    gradients = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    mean, m2 = torch.full((2, 4), torch.nan, dtype=torch.float64), torch.empty((2, 4), dtype=torch.float64)
    expected = [np.empty((2, 4)), np.empty((2, 4))]
    for k in range(2):
        found = kernels.update_moments(OnlyDlpack(gradients + k), mean, m2, step=k + 1, channel_axis=1)
        same = kernels.update_moments(gradients + k, *expected, step=k + 1, channel_axis=1)
        np.testing.assert_array_equal(found, same)
    np.testing.assert_array_equal(mean.numpy(), expected[0])
    np.testing.assert_array_equal(m2.numpy(), expected[1])


def test_bfloat16_of_torch():
    values = torch.randn((3, 8), generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    moments = [np.empty((3, 8)) for _ in range(4)]
    found = kernels.update_moments(values, *moments[:2], step=1)
    expected = kernels.update_moments(values.float().numpy(), *moments[2:], step=1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(moments[0], moments[2])


def test_a_tensor_that_requires_grad_is_refused_in_a_sentence():
    with pytest.raises(GradientError, match=r"^gradients cannot be read \(.*\): pass a NumPy array\.$"):
        kernels.update_moments(torch.zeros((2, 3), requires_grad=True), np.zeros((2, 3)), np.zeros((2, 3)), step=1)


@given(shape=array_shapes(max_dims=4, max_side=4), dtype=st.sampled_from(["f2", "f4", "f8", "i4", "u2"]))
@pytest.mark.parametrize("versioned", [True, False])
def test_borrowed_memory_is_the_memory(shape, dtype, versioned):
    array = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    for version in (array, array.T):
        view = np.asarray(_dlpack.borrow(OnlyDlpack(version, versioned=versioned), None))
        np.testing.assert_array_equal(view, version)
        assert view.dtype == version.dtype
        assert np.shares_memory(view, version)


def test_borrowed_memory_is_held_and_given_back():
    array = np.zeros(1000)
    alive = weakref.ref(array)
    borrowed = _dlpack.borrow(array, None)
    del array
    gc.collect()
    assert alive() is not None
    view = np.asarray(borrowed)
    del borrowed
    gc.collect()
    assert alive() is not None
    del view
    gc.collect()
    assert alive() is None


def test_memory_that_must_not_be_written():
    array = np.zeros(3)
    array.flags.writeable = False
    assert _dlpack.borrow(OnlyDlpack(array), None).__array_interface__["data"][1] is True


def test_types_that_numpy_lacks():
    with pytest.raises(BufferError, match="DLPack type 5 of 128 bits"):
        _dlpack.borrow(np.zeros(2, complex), None)


def test_a_capsule_is_used_once():
    capsule = np.zeros(3).__dlpack__()
    np.from_dlpack(SimpleNamespace(__dlpack__=lambda **options: capsule, __dlpack_device__=lambda: (1, 0)))
    with pytest.raises(BufferError, match="used before"):
        _dlpack.borrow(SimpleNamespace(__dlpack__=lambda **options: capsule), None)


def test_a_stream_is_passed_on():
    asked = []

    def dlpack(**options):
        asked.append(options)
        return np.zeros(3).__dlpack__()

    _dlpack.borrow(SimpleNamespace(__dlpack__=dlpack), 1)
    assert asked == [{"max_version": (1, 0), "stream": 1}]
