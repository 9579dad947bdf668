"""A model as bytes for ONNX Runtime, with the large weights on the side where protobuf's limit of 2 GB asks for it."""

from __future__ import annotations

import numpy.typing as npt
import onnx
from google.protobuf.message import EncodeError
from onnx import numpy_helper

from vogcore.errors import ModelError
from vogcore.graph.light import LARGE, nbytes, shell, weights_nbytes

__all__ = ["serialise"]

# Weights above this total leave the protobuf message: the rest of a model needs room too.
_INLINE_LIMIT = 1_900_000_000


def serialise(model: onnx.ModelProto | bytes, where: str) -> tuple[bytes, dict[str, npt.NDArray]]:
    """Bytes of a model, and the weights that ONNX Runtime must be handed beside them (mostly none).

    Raises:
        ModelError: the model is too large for protobuf in parts other than its top-level weights.
    """
    if isinstance(model, bytes):
        return model, {}
    weights: dict[str, npt.NDArray] = {}
    if weights_nbytes(model) > _INLINE_LIMIT:
        model, weights = _split(model)
    try:
        return bytes(model.SerializeToString()), weights
    except (EncodeError, ValueError) as error:
        raise ModelError(
            f"{where}: the model without its top-level weights exceeds the 2 GB that protobuf can hold, "
            "export it with its weights as initializers of the main graph."
        ) from error


def _split(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, npt.NDArray]]:
    """A model whose large weights are references, and those weights, without a second copy of them in protobuf."""
    light = shell(model)
    weights = {}
    for tensor in model.graph.initializer:
        if nbytes(tensor) < LARGE:
            light.graph.initializer.append(tensor)
            continue
        weights[tensor.name] = numpy_helper.to_array(tensor)
        reference = light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        reference.data_location = onnx.TensorProto.EXTERNAL
        # ONNX Runtime wants a well-formed reference; the file is never opened, because the weights are handed over.
        for key, value in (("location", "in-memory"), ("offset", "0"), ("length", str(nbytes(tensor)))):
            reference.external_data.add(key=key, value=value)
    return light, weights
