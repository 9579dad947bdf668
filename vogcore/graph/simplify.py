"""Rewritings that make a prepared forward graph cheaper to run and to differentiate, in one place and order.

Requires: a prepared graph.
Ensures: the same outputs to rounding, the same gradients, and every value of ``keep`` still there under its name.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.gelu import recognise_gelu
from vogcore.graph.merge_transposes import merge_transposes
from vogcore.graph.narrow import narrow
from vogcore.graph.relu_after_pool import relu_after_pool

__all__ = ["simplify"]


def simplify(emit: Emitter, keep: Collection[ir.Value]) -> None:
    """Rewrite the graph of ``emit`` in place.

    Args:
        emit: emitter on a prepared graph.
        keep: values that somebody refers to: what is differentiated, and with respect to what.
    """
    relu_after_pool(emit.graph, keep)
    recognise_gelu(emit.graph, keep)
    merge_transposes(emit.graph, keep)
    _drop_unused(emit.graph, keep)  # what is left of a pattern would count as a use of its inputs
    narrow(emit, keep)
    _drop_unused(emit.graph, keep)


def _drop_unused(graph: ir.Graph, keep: Collection[ir.Value]) -> None:
    """Remove nodes that nothing reads; ``keep`` counts as a reader."""
    kept = set(keep)
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() or value in kept for value in node.outputs):
            graph.remove(node, safe=True)
