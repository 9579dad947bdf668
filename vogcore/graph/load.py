"""Read an ONNX model from a path, bytes or a proto, and say clearly why it cannot be read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from vogcore.errors import ModelError
from vogcore.graph.light import LARGE, nbytes, shell
from vogcore.graph.mend import mend
from vogcore.graph.tensors import all_tensors, is_external, read_external, require_content

__all__ = ["ModelLike", "constant_tensor", "first_line", "load_model", "naming", "weights_digest"]

ModelLike: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"


def _describe(model: ModelLike) -> str:
    """How messages call a model: its path, or "the model"."""
    return str(model) if isinstance(model, str | os.PathLike) else "the model"


@contextlib.contextmanager
def naming(model: ModelLike) -> Iterator[None]:
    """Put the name of a model (its path, or how the user calls it) in front of a message that does not have it.

    What onnx-ir raises on a damaged model, which the checker of ONNX did not find, becomes a ModelError.
    """
    try:
        yield
    except (ir.serde.SerdeError, ir.passes.InvariantError, ir.passes.PassError, UnicodeDecodeError) as error:
        raise ModelError(f"{_describe(model)} is damaged ({first_line(error)}); export it again.") from error
    except ModelError as error:
        if isinstance(model, str | os.PathLike) and str(model) not in str(error):
            error.args = (f"{model}: {error}",)
        raise


def load_model(model: ModelLike) -> onnx.ModelProto:
    """Read and check a model; external weights are read from the model's own folder.

    Args:
        model: path of an .onnx file, its bytes, or a proto (returned as it is, unless it needs
            :func:`vogcore.graph.mend.mend`).

    Returns:
        The model with all its weights in memory.

    Raises:
        ModelError: the file is missing, unreadable, cut short, or not an ONNX model; or its weights lie in another
            file that cannot be found from bytes or a proto.
    """
    if isinstance(model, onnx.ModelProto):
        _require_weights(model)
        return mend(model)
    name = _describe(model)
    try:
        if isinstance(model, bytes):
            proto = onnx.load_model_from_string(model, format="protobuf")
            _require_weights(proto)
        else:
            path = Path(model)
            if path.is_dir():
                raise ModelError(f"{name} is a folder; give the path of an .onnx file.")
            # Without the format, onnx would take a path that ends in .json or .txt for another encoding.
            proto = onnx.load_model(path, format="protobuf", load_external_data=False)
            _read_external(proto, path.parent, name)
    except FileNotFoundError as error:
        missing = error.filename or name
        raise ModelError(f"{missing} does not exist; check the path of the model and of its external data.") from None
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}.") from None
    except DecodeError:
        raise ModelError(
            f"{name} is not an ONNX model, or the file is cut short ({_size(model)} bytes); export it again."
        ) from None
    if not proto.HasField("graph") or not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ModelError(
            f"{name} is not an ONNX model: it holds no complete graph ({_size(model)} bytes); export it again."
        )
    try:
        for tensor in all_tensors(proto):
            require_content(tensor)
        proto = mend(proto)
        onnx.checker.check_model(_checkable(proto))
    except (ModelError, UnicodeDecodeError) as error:
        raise ModelError(f"{name} is not a valid ONNX model: {first_line(error)}.") from None
    except onnx.checker.ValidationError as error:
        # Functions may have an opset of their own; the checker wants the model's, the preparation converts them. And
        # GroupNormalization of opset 18, with one scale for each group, is refused by the checker and runs in runtimes.
        tolerated = proto.functions and "Opset import for domain" in str(error)
        if not tolerated and "GroupNormalization is deprecated" not in str(error):
            raise ModelError(f"{name} is not a valid ONNX model: {first_line(error)}.") from None
    return proto


def _read_external(proto: onnx.ModelProto, folder: Path, name: str) -> None:
    try:
        read_external(proto, folder)
    except ModelError as error:
        raise ModelError(
            f"{name} has external data that cannot be used ({error}); keep the data file beside the model, or export "
            "it again."
        ) from None


def _checkable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights as inputs: the checker would copy all it is given, and holds 2 GB at most."""
    light = shell(proto)
    inputs = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if not tensor.HasField("raw_data") or nbytes(tensor) < LARGE:
            light.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def weights_digest(model: onnx.ModelProto) -> str:
    """Hex SHA-256 over the weights (types, shapes, values, in graph order), whatever the tensors are called.

    Constants count as weights, also those of branches, loop bodies and local functions. Two checkpoints with the same
    digest compute the same function if their graphs agree.
    """
    digest = hashlib.sha256()
    for tensor in _weights(model):
        digest.update(f"{tensor.data_type}{list(tensor.dims)}".encode())
        content = numpy_helper.to_array(tensor)
        # Strings come as Python objects, whose bytes would be addresses.
        digest.update(repr(content.tolist()).encode() if content.dtype == np.object_ else content.tobytes())
    return digest.hexdigest()


def _weights(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_weights(model.graph)
    for function in model.functions:
        yield from _node_weights(function.node)


def _graph_weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_weights(graph.node)


_NUMBERS = (onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS)


def _node_weights(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graph_weights(attribute.g)
            elif node.op_type == "Constant" or (node.domain == "ai.onnx.ml" and attribute.type in _NUMBERS):
                # Numbers without a tensor around them: value_float, value_ints, ..., a linear model's coefficients.
                yield constant_tensor(attribute)


def constant_tensor(attribute: onnx.AttributeProto) -> onnx.TensorProto:
    """The value of a Constant node as a tensor, whichever of its attributes holds it."""
    if attribute.type == onnx.AttributeProto.TENSOR:
        return attribute.t
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        return attribute.sparse_tensor.values
    value = onnx.helper.get_attribute_value(attribute)
    kind = {
        onnx.AttributeProto.FLOAT: np.float32, onnx.AttributeProto.FLOATS: np.float32,
        onnx.AttributeProto.INT: np.int64, onnx.AttributeProto.INTS: np.int64,
    }.get(attribute.type, np.object_)  # fmt: skip
    return numpy_helper.from_array(np.asarray(value, kind))


def _require_weights(model: onnx.ModelProto) -> None:
    """Bytes and protos have no folder in which weights kept in another file could be found."""
    for tensor in all_tensors(model):
        if is_external(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            raise ModelError(
                f"The weights of the model (first {tensor.name!r}) lie in another file, {location!r}; give the path of "
                "the model instead of its bytes, or load it with its external data."
            )


def first_line(error: Exception) -> str:
    """What an error of another package says, as a part of a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _size(model: ModelLike) -> int:
    if isinstance(model, bytes):
        return len(model)
    return os.path.getsize(model) if isinstance(model, str | os.PathLike) else model.ByteSize()
