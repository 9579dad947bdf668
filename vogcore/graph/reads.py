"""Which weights a transformation looked into, so that its result can be reused for others.

While :func:`recording` is on, the initializers of a model under preparation are wrapped. Whoever asks for the content
of one, a rule through :func:`vogcore.graph.shapes.constant` or a C++ pass through serialisation, is recorded; types
and shapes can be read without. Sharing a weight with the result is no look into it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import onnx_ir as ir

__all__ = ["recording", "unwatch", "watch"]

_reads: ContextVar[set[str] | None] = ContextVar("reads", default=None)


class _Watched(ir.LazyTensor):
    """A tensor that reports when its content is asked for."""

    def __init__(self, tensor: ir.TensorProtocol, name: str, reads: set[str]) -> None:
        def read() -> ir.TensorProtocol:
            reads.add(name)
            return tensor

        super().__init__(read, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)
        self.inner = tensor


@contextlib.contextmanager
def recording() -> Iterator[set[str]]:
    """Collect the names of the initializers that are read inside of the block."""
    reads: set[str] = set()
    token = _reads.set(reads)
    try:
        yield reads
    finally:
        _reads.reset(token)


def watch(graph: ir.Graph) -> None:
    """Wrap the initializers of a graph, where a recording is on."""
    reads = _reads.get()
    if reads is not None:
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                value.const_value = _Watched(value.const_value, name, reads)


def unwatch(graph: ir.Graph) -> None:
    """Unwrap them again, before the graph is written."""
    for value in graph.initializers.values():
        if isinstance(value.const_value, _Watched):
            value.const_value = value.const_value.inner
