"""Write a model to a file, and its weights to a second one beside it where protobuf's 2 GB do not hold them.

Requires: a model with its weights in memory.
Ensures: under the final name there is a complete model or none. Where there is a second file, ``<name>.data``, it is
complete before the model appears; a model that is replaced disappears before its weights do. So an interruption
leaves no model behind, but never one with weights that are not its own.

The weights are written out even where the forward model keeps them in a file in the same folder: a gradient model
must stay right when that file is replaced by the next checkpoint's.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import onnx
from onnx import numpy_helper

from vogcore._paths import check_output, publish, reason, write_whole
from vogcore.errors import ModelError, StoreError
from vogcore.graph.light import LARGE, nbytes, shell, weights_nbytes

__all__ = ["save_model"]

INLINE_LIMIT = 1_900_000_000
"""Bytes of weights up to which they go into the model's own file; the rest of a model needs room too."""

_ALIGNMENT = 4096
"""Offsets are multiples of a page, so that runtimes can map the file."""


def save_model(model: onnx.ModelProto, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write a model.

    Args:
        model: the model; it is left as it is.
        path: the file to write.
        overwrite: replace an existing file, and the file of its weights.

    Returns:
        The files written: the model, and its weights where they lie apart.

    Raises:
        ModelError: the model is larger than 2 GB without the weights of its main graph.
        OutputExistsError: a file exists, and ``overwrite`` is False.
        StoreError: the system refused.
    """
    target = Path(path)
    check_output(target, overwrite)
    if weights_nbytes(model) <= INLINE_LIMIT:
        write_whole(target, _encode(model, target), overwrite)
        return [target]
    data = target.with_name(f"{target.name}.data")
    check_output(data, overwrite)
    temporary = data.with_name(f".{data.name}.{os.getpid()}.partial")
    try:
        light = _write_weights(model, temporary, data.name)
        image = _encode(light, target)
        if overwrite:
            target.unlink(missing_ok=True)
        publish(temporary, data, overwrite)
    except OSError as error:
        raise StoreError(f"Cannot write {data}: {reason(error)}.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    try:
        write_whole(target, image, overwrite)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(data)
        raise
    return [target, data]


def _write_weights(model: onnx.ModelProto, path: Path, location: str) -> onnx.ModelProto:
    """Write the large weights one after the other; a model that refers to them at ``location``."""
    light = shell(model)
    with open(path, "wb") as file:
        for tensor in model.graph.initializer:
            if nbytes(tensor) < LARGE or tensor.data_type == onnx.TensorProto.STRING:
                light.graph.initializer.append(tensor)
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT))
            content = tensor.raw_data or _raw(tensor)
            reference = light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            reference.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", file.tell()), ("length", len(content))):
                reference.external_data.add(key=key, value=str(value))
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return light


def _raw(tensor: onnx.TensorProto) -> bytes:
    """Content that protobuf holds as a list of numbers."""
    return bytes(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)


def _encode(model: onnx.ModelProto, target: Path) -> bytes:
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # which class it is depends on protobuf's implementation
        raise ModelError(
            f"The model {target.name} cannot be written: without the weights of its main graph it is larger than the "
            "2 GiB that protobuf holds."
        ) from error
