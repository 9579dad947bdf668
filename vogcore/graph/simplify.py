"""Rewritings that make a prepared forward graph cheaper to run and to differentiate, in one place and order.

Requires: a prepared graph.
Ensures: the same outputs to rounding, the same gradients, and every value of ``keep`` still there under its name.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.gelu import recognise_gelu
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
    narrow(emit, keep)
