"""One model in ONNX Runtime, with vogcore's options and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from vogcore.errors import ModelError, SettingsError
from vogcore.runtime import _ort
from vogcore.runtime._serialise import serialise
from vogcore.runtime._shapes import shapes_left_out
from vogcore.runtime._threads import usable_cpus
from vogcore.runtime.device_output import run_bound
from vogcore.runtime.providers import Provider, choose_provider

__all__ = ["Session", "disabled_optimizers"]

_DTYPES: dict[str, np.dtype] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class Session:
    """A thin ONNX Runtime session: our options, our errors.

    Attributes:
        provider: the :class:`Provider` it runs on.
        threads: threads inside an operator.
        where: what messages call the model.
        input_names: in the model's order, without weights.
        input_shapes: name to shape, None for a dynamic dimension; a scalar and an undeclared shape are both ().
        input_dtypes: name to NumPy type, None for a type that NumPy lacks (bfloat16, strings, sequences).
        output_names: in the model's order.
        output_shapes: as `input_shapes`.
        metadata: the model's metadata_props.
    """

    def __init__(
        self,
        model: onnx.ModelProto | bytes,
        *,
        provider: Provider | str = "auto",
        threads: int | None = None,
        where: str = "model",
    ) -> None:
        """Load a model.

        Args:
            model: an ONNX model or its bytes. A model above protobuf's 2 GB goes in with its weights on the side.
            provider: from :func:`choose_provider`, or a request for it.
            threads: threads inside an operator; None means every CPU that this process may use.
            where: what messages call the model, for instance its path.

        Raises:
            ModelError: ONNX Runtime refuses the model, or memory does not hold it.
            ProviderError: the provider cannot run here, or the session quietly came up on another one.
            SettingsError: `threads` is not positive, or the provider is unknown.
        """
        if threads is not None and threads < 1:
            raise SettingsError(f"The number of threads is {threads}: give a positive number, or none for all CPUs.")
        ort = _ort.load()
        self.where = where
        self.provider = choose_provider(provider) if isinstance(provider, str) else provider
        self.threads = usable_cpus() if threads is None else threads
        options = _options(ort, self.threads)
        if isinstance(model, onnx.ModelProto):
            with shapes_left_out(model, self.provider.name):
                data, weights = serialise(model, where)
        else:
            data, weights = serialise(model, where)
        # Borrowed by the ONNX Runtime session, so they live as long as it does.
        self._weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        if weights:
            options.add_external_initializers(list(weights), self._weights)
        try:
            self._session = ort.InferenceSession(
                data,
                options,
                providers=self.provider.ort_providers,
                enable_fallback=0,
                disabled_optimizers=disabled_optimizers(model),
            )
        except _ort.failures() as error:
            if _ort.is_out_of_memory(error):
                raise ModelError(
                    f"{where}: memory ran out while loading the model ({_ort.sentence(error)})."
                ) from error
            raise ModelError(f"{where}: ONNX Runtime cannot load the model ({_ort.sentence(error)}).") from error
        self.provider.check(self._session.get_providers())
        self._quiet = ort.RunOptions()
        self._quiet.log_severity_level = 4  # a failed run raises; without this ONNX Runtime prints it as well
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.input_names: list[str] = [value.name for value in inputs]
        self.input_shapes = {value.name: _shape(value.shape) for value in inputs}
        self.input_dtypes: dict[str, np.dtype | None] = {value.name: _DTYPES.get(value.type) for value in inputs}
        self.output_names: list[str] = [value.name for value in outputs]
        self.output_shapes = {value.name: _shape(value.shape) for value in outputs}
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, npt.NDArray]) -> list[npt.NDArray]:
        """Run the model once.

        Args:
            outputs: names of the outputs wanted; None for all.
            feeds: every input by name, of the declared type and a shape that fits.

        Returns:
            The outputs in the order asked for.

        Raises:
            ModelError: ONNX Runtime fails, memory included.
        """
        with self._failures(feeds):
            result: list[npt.NDArray] = self._session.run(
                None if outputs is None else list(outputs), dict(feeds), self._quiet
            )
        return result

    def run_keeping(self, outputs: Sequence[str], feeds: Mapping[str, npt.NDArray], kept: str) -> list[Any]:
        """Run the model once and leave one output where it was computed.

        Args:
            outputs: names of the outputs wanted.
            feeds: as for :meth:`run`.
            kept: the output that stays on the provider's device, of a type that NumPy has.

        Returns:
            The outputs in the order asked for, NumPy arrays but for the one kept, a
            :class:`vogcore.runtime.device_output.DeviceOutput`.

        Raises:
            ModelError: ONNX Runtime fails, memory included.
        """
        with self._failures(feeds):
            return run_bound(self._session, self._quiet, outputs, feeds, kept, self.provider.name, _DTYPES)

    @contextmanager
    def _failures(self, feeds: Mapping[str, npt.NDArray]) -> Iterator[None]:
        """Errors of ONNX Runtime in a sentence."""
        try:
            yield
        except _ort.failures() as error:
            if _ort.is_out_of_memory(error):
                shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in feeds.items())
                raise ModelError(
                    f"{self.where}: memory ran out on inputs of shape {shapes} ({_ort.sentence(error)}): "
                    "use a smaller batch size."
                ) from error
            raise ModelError(f"{self.where}: ONNX Runtime cannot run the model ({_ort.sentence(error)}).") from error


def disabled_optimizers(model: onnx.ModelProto | bytes) -> list[str]:
    """Optimisers of ONNX Runtime that a model had better do without.

    With half precision, making a session has crashed the process (a vision transformer in float16) in the one that
    gives convolutions a blocked channel layout. It is left out there, which makes convolutions about a third slower.
    """
    try:
        proto = model if isinstance(model, onnx.ModelProto) else onnx.ModelProto.FromString(model)
    except DecodeError:
        return []  # ONNX Runtime says what is wrong with it
    return ["NchwcTransformer"] if _has_half(proto.graph) else []


def _has_half(graph: onnx.GraphProto) -> bool:
    half = onnx.TensorProto.FLOAT16
    if any(tensor.data_type == half for tensor in graph.initializer):
        return True
    if any(value.type.tensor_type.elem_type == half for value in [*graph.input, *graph.output]):
        return True
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                return True
            if attribute.type == onnx.AttributeProto.GRAPH and _has_half(attribute.g):
                return True
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == half:
                return True
    return False


def _options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = False  # saves memory, costs no time
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Reruns must give the same bits; on CUDA this keeps atomic additions out.
    options.use_deterministic_compute = True
    # Threads that wait without spinning. Three-layer CNN forward, 2 threads on 2 cores, ms (medians of 5 and 3
    # processes), without : with spinning. Quiet machine: batch 1 0.55 : 0.50, 8 3.57 : 3.53, 64 28.0 : 27.9. One
    # other busy process: 0.82 : 0.71, 5.2 : 7.6, 46.6 : 49.1. Spinning wins only in batches too small to matter, and
    # would take the cores from NumPy, the kernels and other processes between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _shape(shape: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) and size > 0 else None for size in shape)
