"""Outputs that stay on the device: the binding for real on the CPU, and what CUDA would be asked for."""

from __future__ import annotations

import gc
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from vogcore import kernels
from vogcore.errors import DataError, ModelError, VogcoreWarning
from vogcore.kernels.devices import place
from vogcore.runtime import GradientSession, Provider, Session, device_output
from vogcore.runtime.device_output import DeviceOutput, keeps_gradients, run_bound

from .models import CLASSES, FEATURES, examples, expected, gradient
from .test_session import _huge, _reshape_to_3x4

CPU = {"provider": "cpu", "threads": 1}
CUDA = Provider("cuda", [], "cuda:0 (a GPU)")


def test_the_same_logits_and_gradients_as_from_run():
    x, target = examples(7)
    session = GradientSession(gradient(), **CPU)
    logits, gradients = session.run_on_device(x, target)
    same_logits, same_gradients = session.run(x, target)
    assert isinstance(gradients, DeviceOutput)
    assert (gradients.shape, gradients.dtype, len(gradients)) == ((7, FEATURES), np.float32, 7)
    np.testing.assert_array_equal(logits, same_logits)
    np.testing.assert_array_equal(np.asarray(gradients), same_gradients)
    np.testing.assert_allclose(np.asarray(gradients), expected(x, target)[1], rtol=1e-5, atol=1e-6)


def test_memory_is_shared_and_lasts_without_the_session():
    x, target = examples(300)
    session = GradientSession(gradient(), **CPU)
    _, first = session.run_on_device(x, target)
    view = np.asarray(first)
    assert view.ctypes.data == first._value.data_ptr()
    before = view.copy()
    _, second = session.run_on_device(-x, target)
    assert not np.shares_memory(view, np.asarray(second))
    del session, second
    gc.collect()
    np.testing.assert_array_equal(view, before)


def test_kernels_take_it_as_an_array():
    x, target = examples(5)
    session = GradientSession(gradient(), **CPU)
    _, gradients = session.run_on_device(x, target)
    assert place(gradients) == "cpu"
    mean, m2 = np.empty((5, FEATURES)), np.empty((5, FEATURES))
    magnitudes = kernels.update_moments(gradients, mean, m2, step=1)
    np.testing.assert_allclose(magnitudes, np.abs(expected(x, target)[1]).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_a_fixed_batch_is_filled_up_and_cut(n):
    x, target = examples(n)
    session = GradientSession(gradient(4), **CPU)
    logits, gradients = session.run_on_device(x, target)
    assert logits.shape == (n, CLASSES)
    np.testing.assert_allclose(np.asarray(gradients), expected(x, target)[1], rtol=1e-5, atol=1e-6)


def test_more_than_a_fixed_batch_is_refused():
    with pytest.raises(DataError, match=r"got 5 examples at once .* takes 4; pass them in parts"):
        GradientSession(gradient(4), where="g.onnx", **CPU).run_on_device(*examples(5))


def test_bad_input_is_refused_as_by_run():
    session = GradientSession(gradient(), **CPU)
    with pytest.raises(DataError, match="takes examples of shape"):
        session.run_on_device(np.zeros((2, FEATURES + 1), np.float32), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="no class"):
        session.run_on_device(np.zeros((2, FEATURES), np.float32), np.array([0, CLASSES]))


def test_failures_are_sentences():
    with pytest.raises(ModelError, match=r"f\.onnx: ONNX Runtime cannot run the model"):
        Session(_reshape_to_3x4(), where="f.onnx", **CPU).run_keeping(["y"], {"x": np.zeros(5, np.float32)}, "y")
    with pytest.raises(ModelError, match=r"h\.onnx: memory ran out on inputs of shape x \(9,\)"):
        Session(_huge(), where="h.onnx", **CPU).run_keeping(["y"], {"x": np.zeros(9, np.float32)}, "y")


class FakeBinding:
    """Records what an I/O binding is asked for, in order."""

    def __init__(self, log):
        self.log = log

    def bind_cpu_input(self, name, value):
        self.log.append(("input", name))

    def bind_output(self, name, device_type, device_id):
        self.log.append(("output", name, device_type, device_id))

    def synchronize_inputs(self):
        self.log.append("inputs ready")

    def synchronize_outputs(self):
        self.log.append("outputs ready")

    def get_outputs(self):
        self.log.append("taken")
        there = SimpleNamespace(
            data_ptr=lambda: 0x7F0000,
            data_type=lambda: "tensor(float)",
            device_name=lambda: "cuda",
            shape=lambda: [4, 2],
        )
        return [SimpleNamespace(numpy=lambda: np.ones((4, 3), np.float32)), there]


def test_cuda_is_asked_for_the_gradient_alone_and_waited_for():
    log = []
    session = SimpleNamespace(
        io_binding=lambda: FakeBinding(log), run_with_iobinding=lambda binding, options: log.append("run")
    )
    dtypes = {"tensor(float)": np.dtype(np.float32)}
    feeds = {"x": np.zeros((4, 2))}
    logits, gradients = run_bound(session, None, ["logits", "gradient"], feeds, "gradient", "cuda", dtypes)
    assert log == [
        ("input", "x"),
        ("output", "logits", "cpu", 0),
        ("output", "gradient", "cuda", 0),
        "inputs ready",
        "run",
        "outputs ready",
        "taken",
    ]
    assert logits.shape == (4, 3)
    assert not hasattr(gradients, "__array_interface__")  # NumPy would read memory of the device as its own
    assert gradients.__cuda_array_interface__ == {
        "shape": (4, 2),
        "typestr": "<f4",
        "data": (0x7F0000, False),
        "strides": None,
        "version": 3,
        "stream": None,
    }
    assert place(gradients) == "cuda"
    assert gradients.first(3).__cuda_array_interface__["shape"] == (3, 2)


def test_gradients_stay_on_the_gpu_where_numba_works_there(monkeypatch):
    monkeypatch.setattr(device_output, "problem", lambda kind: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keeps_gradients(CUDA)
        assert not keeps_gradients(Provider("cpu", [], "cpu"))


def test_without_numba_on_the_gpu_they_are_copied_and_a_warning_says_how_to_be_faster(monkeypatch):
    monkeypatch.setattr(device_output, "problem", lambda kind: "the package numba-cuda is not installed")
    with pytest.warns(VogcoreWarning) as caught:
        assert not keeps_gradients(CUDA)
    assert str(caught[0].message) == (
        "Gradients are copied from cuda:0 (a GPU) to the host, which is slower than scoring them there, because the "
        "package numba-cuda is not installed: run pip install 'vogcore[gpu]'."
    )
