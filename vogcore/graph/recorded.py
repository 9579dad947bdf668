"""Shapes that an exporter recorded beside the nodes, which need not be true.

Requires: a graph before shape inference.
Ensures: inference works from the inputs and weights alone. ONNX's inference believes what is recorded, and so do
gradient rules; runtimes do not. jax2onnx drops pairs of transposes, and leaves the shapes of what lay between them as
they were (0.17). What was recorded is used where inference finds nothing, behind operators that it does not know.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["forget_shapes", "recall_shapes"]


def forget_shapes(graph: ir.Graph) -> dict[str, ir.Shape]:
    """Take the shapes away from all values that nodes compute, but the outputs; returns them by name."""
    recorded = {}
    for node in graph:
        for value in node.outputs:
            if value.shape is not None and value.name and not value.is_graph_output():
                recorded[value.name] = value.shape
                value.shape = None
    return recorded


def recall_shapes(graph: ir.Graph, recorded: dict[str, ir.Shape]) -> bool:
    """Give back the shapes of values that inference found none for; True if there were any."""
    found = False
    for node in graph:
        for value in node.outputs:
            if value.shape is None and value.name in recorded:
                value.shape = recorded[value.name]
                found = True
    return found
