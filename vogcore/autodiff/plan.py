"""One transformation for all checkpoints of a run.

Checkpoints of one training run have the same graph and other weights. A gradient graph refers to the weights of the
forward graph by name and holds none of its own (docs/decisions.md, 7), so it serves every such checkpoint once its
weights are exchanged. What has to agree is what the transformation looked at: nodes, attributes, types and shapes,
and the content of those initializers that were read (:mod:`vogcore.graph.reads`), Reshape targets for example.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

from vogcore.graph.light import shell
from vogcore.graph.names import CHANNELS_KEY, LOGITS_KEY, OF_KEY, TARGET_KEY, WRT_KEY
from vogcore.graph.reads import recording

__all__ = ["GradientPlan"]

_SHAPES = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
"""Types of initializers whose content counts whether it was read or not: sizes, axes and indices."""

_OWN_KEYS = (OF_KEY, WRT_KEY, LOGITS_KEY, CHANNELS_KEY, TARGET_KEY)


class GradientPlan:
    """What :func:`vogcore.gradient_model` made of one checkpoint, ready for others."""

    def __init__(self, forward: onnx.ModelProto, make: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
        """Transform ``forward`` and remember how.

        Args:
            forward: the first checkpoint, with its weights in memory.
            make: the transformation. It must depend on the model alone, and look into weights through the graph
                layer only.

        Raises:
            What ``make`` raises.
        """
        with recording() as reads:
            model = make(forward)
        self._first: onnx.ModelProto | None = model
        self._reads = frozenset(reads)
        self._structure = _structure(forward, self._reads)
        weights = {tensor.name: tensor for tensor in forward.graph.initializer}
        self._exchanged: list[str] = []
        kept = []
        for tensor in model.graph.initializer:
            original = weights.get(tensor.name)
            if original is not None and tensor.name not in self._reads and _same(tensor, original):
                self._exchanged.append(tensor.name)
            else:
                kept.append(tensor)
        self._template = shell(model)
        self._template.graph.initializer.extend(kept)
        self._own = {p.key: p.value for p in model.metadata_props if p.key in _OWN_KEYS}

    def take(self) -> onnx.ModelProto:
        """The gradient model of the checkpoint that the plan was made from; handed out once, and not kept."""
        if self._first is None:
            raise ValueError("the model was taken already")
        model, self._first = self._first, None
        return model

    def apply(self, forward: onnx.ModelProto) -> onnx.ModelProto | None:
        """The gradient model of another checkpoint; None where its graph is not that of the first one.

        The result is what ``make`` would give for it, node for node.
        """
        if _structure(forward, self._reads) != self._structure:
            return None
        weights = {tensor.name: tensor for tensor in forward.graph.initializer}
        model = onnx.ModelProto()
        model.CopyFrom(self._template)
        model.graph.initializer.extend(weights[name] for name in self._exchanged)
        onnx.helper.set_model_props(model, {**{p.key: p.value for p in forward.metadata_props}, **self._own})
        return model


def _structure(model: onnx.ModelProto, reads: Iterable[str]) -> str:
    """Digest of all that a transformation can depend on, for one that read the initializers ``reads``."""
    digest = hashlib.sha256(f"{model.ir_version}".encode())
    digest.update(_images(model.opset_import))
    graph = model.graph
    for part in (graph.input, graph.output, graph.value_info, graph.sparse_initializer, model.functions):
        digest.update(_images(part))
    for node in graph.node:
        if node.metadata_props or node.doc_string:
            plain = onnx.NodeProto()
            plain.CopyFrom(node)
            plain.ClearField("metadata_props")
            plain.ClearField("doc_string")
            node = plain
        digest.update(_images([node]))
    read = set(reads)
    for tensor in graph.initializer:
        digest.update(repr((tensor.name, tensor.data_type, tuple(tensor.dims))).encode())
        if tensor.name in read or tensor.data_type in _SHAPES:
            content = numpy_helper.to_array(tensor)
            digest.update(content.tobytes() if content.dtype != object else repr(content.tolist()).encode())
    return digest.hexdigest()


def _images(parts: Iterable[Any]) -> bytes:
    """Protobuf messages as bytes, each with its length in front."""
    images = [part.SerializeToString(deterministic=True) for part in parts]
    return b"".join(len(image).to_bytes(8, "little") + image for image in images)


def _same(tensor: onnx.TensorProto, original: onnx.TensorProto) -> bool:
    """True when the transformation left a weight as it was."""
    if (tensor.data_type, list(tensor.dims)) != (original.data_type, list(original.dims)):
        return False
    return bool(numpy_helper.to_array(tensor).tobytes() == numpy_helper.to_array(original).tobytes())
