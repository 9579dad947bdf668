"""Outputs that stay where ONNX Runtime computed them, and whether gradients can stay on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import VogcoreWarning
from vogcore.kernels.devices import INSTALL, problem
from vogcore.runtime.providers import Provider

__all__ = ["DeviceOutput", "keeps_gradients", "run_bound"]


class DeviceOutput:
    """An output of a session in the memory of the device that it was computed on, complete and contiguous.

    The functions of :mod:`vogcore.kernels` take it as an array: it has the CUDA array interface, or NumPy's where the
    device is the CPU. The memory lasts as long as this object.

    Attributes:
        shape: shape of the array.
        dtype: its type.
    """

    def __init__(self, value: Any, dtype: np.dtype, shape: tuple[int, ...], session: Any) -> None:
        """Take hold of an OrtValue, and of the session whose allocator its memory came from."""
        self._value, self._session = value, session
        self.dtype, self.shape = dtype, shape
        interface = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (value.data_ptr(), False),
            "strides": None,
            "version": 3,
        }
        if value.device_name() == "cpu":
            self.__array_interface__ = interface
        else:
            # No stream: run_bound has waited for the values.
            self.__cuda_array_interface__ = {**interface, "stream": None}

    def __len__(self) -> int:
        return self.shape[0]

    def first(self, n: int) -> DeviceOutput:
        """The first ``n`` rows of the same memory."""
        return DeviceOutput(self._value, self.dtype, (n, *self.shape[1:]), self._session)


def run_bound(
    session: Any,
    options: Any,
    outputs: Sequence[str],
    feeds: Mapping[str, npt.NDArray],
    kept: str,
    device: str,
    dtypes: Mapping[str, np.dtype],
) -> list[Any]:
    """Run an ONNX Runtime session with one output left on the device.

    Args:
        session: an ``onnxruntime.InferenceSession``.
        options: its run options.
        outputs: names of the outputs wanted.
        feeds: every input by name, in memory of the host.
        kept: the output that stays on the device.
        device: "cuda" or "cpu", the first of its kind.
        dtypes: ONNX Runtime's names of types to NumPy's.

    Returns:
        The outputs in the order asked for, NumPy arrays but for the one kept, a :class:`DeviceOutput`.
    """
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for name in outputs:
        binding.bind_output(name, device if name == kept else "cpu", 0)
    binding.synchronize_inputs()
    session.run_with_iobinding(binding, options)
    # ONNX Runtime has a stream of its own, and kernels run on another. A run ends with its stream drained unless told
    # otherwise, so that this returns at once; it is here to say what the next reader of the memory relies on. Sharing
    # a stream (user_compute_stream) would save one wait of some microseconds for each batch, and tie the session to a
    # stream of Numba's that has to outlive it.
    binding.synchronize_outputs()
    results: list[Any] = []
    for name, value in zip(outputs, binding.get_outputs()):
        if name == kept:
            shape = tuple(int(size) for size in value.shape())
            results.append(DeviceOutput(value, dtypes[value.data_type()], shape, session))
        else:
            results.append(value.numpy())
    return results


def keeps_gradients(provider: Provider) -> bool:
    """Whether gradients that are computed by ``provider`` can stay on its device and be scored there.

    Warns:
        VogcoreWarning: the provider works and Numba does not: gradients are then copied to the host, batch by batch.
    """
    if provider.name != "cuda":
        return False
    reason = problem("cuda")
    if reason is not None:
        warnings.warn(
            f"Gradients are copied from {provider.device} to the host, which is slower than scoring them there, "
            f"because {reason}: run {INSTALL}.",
            VogcoreWarning,
            stacklevel=3,
        )
    return reason is None
