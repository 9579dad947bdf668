"""The tensors inside of a model: all of them, their content against their shape, and content that lies in other files.

Models come from strangers: nothing is allocated for a size that a header claims, and no file outside of the model's own
folder is opened.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from vogcore.errors import ModelError
from vogcore.graph.light import nbytes

__all__ = ["all_tensors", "is_external", "read_external", "require_content"]

_MOST_REPEATED = 4
"""Times that the bytes of data files may be used in all: tied weights share them, but no gigabytes come of a few."""
_REPEATED_BYTES = 16 << 20
_PACKED = {TensorProto.FLOAT: "float_data", TensorProto.INT64: "int64_data", TensorProto.DOUBLE: "double_data",
           TensorProto.UINT32: "uint64_data", TensorProto.UINT64: "uint64_data", TensorProto.STRING: "string_data",
           TensorProto.COMPLEX64: "float_data", TensorProto.COMPLEX128: "double_data"}  # fmt: skip
"""Field of the numbers of a tensor without raw_data; int32_data for all other types."""
_PAIRS = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the graph, of branches and loop bodies, of attributes and of local functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    attributes = [attribute for function in model.functions for attribute in function.attribute_proto]
    while graphs or nodes or attributes:
        while graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
        while nodes:
            attributes.extend(nodes.pop().attribute)
        while attributes:
            attribute = attributes.pop()
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse_tensors = [*attribute.sparse_tensors]
            if attribute.HasField("sparse_tensor"):
                sparse_tensors.append(attribute.sparse_tensor)
            for sparse in sparse_tensors:
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)


def is_external(tensor: TensorProto) -> bool:
    """Whether the content of a tensor lies in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def require_content(tensor: TensorProto) -> None:
    """The content of a tensor must be there and fill its shape.

    Raises:
        ModelError: it does not; the message names the tensor and not the model.
    """
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"the weight {tensor.name!r} has the shape {list(tensor.dims)}")
    if tensor.data_type == TensorProto.UNDEFINED or tensor.data_type not in TensorProto.DataType.values():
        raise ModelError(f"the weight {tensor.name!r} has the unknown type {tensor.data_type}")
    if tensor.raw_data:
        found, needed, unit = len(tensor.raw_data), nbytes(tensor), "bytes"
        if tensor.data_type == TensorProto.STRING:
            raise ModelError(f"the weight {tensor.name!r} holds text as raw bytes")
    else:
        # Types of less than 32 bits are packed as many to an entry as ONNX says for them; 4-bit ones two to a byte.
        found = len(getattr(tensor, _PACKED.get(tensor.data_type, "int32_data")))
        count = math.prod(tensor.dims) * (2 if tensor.data_type in _PAIRS else 1)
        narrow = tensor.data_type not in _PACKED and 0 < 8 * nbytes(tensor) < 8 * count
        needed, unit = (nbytes(tensor) if narrow else count), "values"
    if found != needed:
        raise ModelError(
            f"the weight {tensor.name!r} of shape {list(tensor.dims)} has {found} {unit} instead of {needed}"
        )


def read_external(model: onnx.ModelProto, folder: Path) -> None:
    """Read the content that lies in files beside the model into it.

    Args:
        model: changed in place; none of its tensors refers to a file afterwards.
        folder: the model's own folder. A file must be in it or below it, symbolic links followed.

    Raises:
        OSError: a file cannot be read.
        ModelError: a file is missing, lies outside of the folder or is none, a part of it is asked for that it does not
            have, or all parts together are far larger than the files; the message does not name the model.
    """
    sizes: dict[Path, int] = {}
    taken = 0
    for tensor in all_tensors(model):
        if not is_external(tensor):
            continue
        path, offset, length = _place(tensor, folder)
        size = sizes.get(path)
        if size is None:
            try:
                information = path.stat()
            except FileNotFoundError:
                raise ModelError(f"{path.name!r} does not exist") from None
            if not stat.S_ISREG(information.st_mode):
                raise ModelError(f"the external data {path.name!r} of the weight {tensor.name!r} is not a file")
            size = sizes[path] = information.st_size
        taken += length
        if offset + length > size:
            raise ModelError(
                f"the weight {tensor.name!r} of shape {list(tensor.dims)} needs {length} bytes from {offset} on, and "
                f"its external data {path.name!r} has {size}"
            )
        if taken > _MOST_REPEATED * sum(sizes.values()) + _REPEATED_BYTES:
            raise ModelError("its weights are the same few bytes of its external data over and over")
        with open(path, "rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _place(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    """File, offset and length of a tensor's content."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not isinstance(location, str) or not location or "\0" in location:
        raise ModelError(f"the external data of the weight {tensor.name!r} has no name")
    path = folder / location
    real = Path(os.path.realpath(path))
    parts = location.replace("\\", "/").split("/")
    if os.path.isabs(location) or ".." in parts or not real.is_relative_to(os.path.realpath(folder)):
        raise ModelError(
            f"the external data {location!r} of the weight {tensor.name!r} lies outside of the model's folder and is "
            "not opened"
        )
    if any(size < 0 for size in tensor.dims) or tensor.data_type == TensorProto.STRING:
        raise ModelError(f"the weight {tensor.name!r} of shape {list(tensor.dims)} cannot have external data")
    needed = nbytes(tensor)
    offset, length = (_number(tensor, entries, key) for key in ("offset", "length"))
    if length is not None and length != needed:
        raise ModelError(
            f"the weight {tensor.name!r} of shape {list(tensor.dims)} has {length} bytes of external data instead of "
            f"{needed}"
        )
    return path, offset or 0, needed


def _number(tensor: TensorProto, entries: dict[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelError(f"the external data of the weight {tensor.name!r} has the {key} {text!a}")
    return int(text)
