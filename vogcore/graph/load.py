"""Read an ONNX model from a path, bytes or a proto, and say clearly why it cannot be read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError

from vogcore.errors import ModelError

__all__ = ["ModelLike", "describe", "load_model", "weights_digest"]

ModelLike: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"


def describe(model: ModelLike) -> str:
    """How messages call a model: its path, or "the model"."""
    return str(model) if isinstance(model, str | os.PathLike) else "the model"


def load_model(model: ModelLike) -> onnx.ModelProto:
    """Read and check a model; external weights are read from the model's own folder.

    Args:
        model: path of an .onnx file, its bytes, or a proto (returned as it is).

    Returns:
        The model with all its weights in memory.

    Raises:
        ModelError: the file is missing, unreadable, cut short, or not an ONNX model.
    """
    if isinstance(model, onnx.ModelProto):
        return model
    name = describe(model)
    try:
        if isinstance(model, bytes):
            proto = onnx.load_model_from_string(model)
        else:
            path = Path(model)
            if path.is_dir():
                raise ModelError(f"{name} is a folder; give the path of an .onnx file.")
            proto = onnx.load_model(path)
    except FileNotFoundError as error:
        missing = error.filename or name
        raise ModelError(f"{missing} does not exist; check the path of the model and of its external data.") from None
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}.") from None
    except DecodeError:
        raise ModelError(
            f"{name} is not an ONNX model, or the file is cut short ({_size(model)} bytes); export it again."
        ) from None
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{name} has external data that cannot be used: {_first_line(error)}.") from None
    if not proto.HasField("graph") or not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{name} is not an ONNX model: it holds no graph ({_size(model)} bytes); export it again.")
    try:
        # A 2 GB proto cannot be serialised for the checker; ONNX Runtime checks such a model itself.
        if proto.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:
            onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{name} is not a valid ONNX model: {_first_line(error)}.") from None
    return proto


def weights_digest(model: onnx.ModelProto) -> str:
    """Hex SHA-256 over the weights (types, shapes, values, in graph order), whatever the tensors are called.

    Two checkpoints with the same digest compute the same function if their graphs agree.
    """
    digest = hashlib.sha256()
    constants = [a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute]
    for tensor in [*model.graph.initializer, *constants]:
        digest.update(f"{tensor.data_type}{list(tensor.dims)}".encode())
        digest.update(onnx.numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _size(model: ModelLike) -> int:
    if isinstance(model, bytes):
        return len(model)
    return os.path.getsize(model) if isinstance(model, str | os.PathLike) else model.ByteSize()
