"""A transposition of matrices behind a detour over merged axes, as one Transpose.

torch's exporter writes the transposed keys of an attention as Reshape (batch and heads merged), Transpose, Reshape
(taken apart again). ONNX Runtime joins a single Transpose with the product behind it; the detour hides it.

Requires: a prepared graph, shapes inferred.
Ensures: the same values, with a Transpose in the place of Reshape, Transpose, Reshape where the two Reshapes merge the
leading axes and take them apart in the same way.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from vogcore.graph.shapes import dims, rank

__all__ = ["merge_transposes"]


def merge_transposes(graph: ir.Graph, keep: Collection[ir.Value] = ()) -> None:
    """Rewrite in place; values in ``keep`` stay."""
    for node in list(graph):
        before, after = _around(node, keep)
        if before is None or after is None:
            continue
        x, y = before.inputs[0], after.outputs[0]
        assert x is not None
        n = rank(x)
        assert n is not None
        transposed = ir.node("Transpose", [x], {"perm": [*range(n - 2), n - 1, n - 2]}, name=node.name, num_outputs=1)
        result = transposed.outputs[0]
        result.name, result.shape, result.type = y.name, y.shape, y.type
        graph.insert_before(after, transposed)
        y.replace_all_uses_with(result, replace_graph_outputs=True)
        graph.remove(after, safe=True)


def _around(node: ir.Node, keep: Collection[ir.Value]) -> tuple[ir.Node | None, ir.Node | None]:
    """The two Reshapes around a Transpose of the last two axes of three, where the pattern holds."""
    nothing = (None, None)
    permutation = node.attributes.get("perm")
    if node.op_type != "Transpose" or permutation is None or tuple(permutation.as_ints()) != (0, 2, 1):
        return nothing
    merged, turned = node.inputs[0], node.outputs[0]
    before = merged.producer() if merged is not None else None
    uses = list(turned.uses())
    after = uses[0].node if len(uses) == 1 else None
    if merged is None or before is None or after is None or before.op_type != "Reshape" or after.op_type != "Reshape":
        return nothing
    if turned in keep or turned.is_graph_output() or after.outputs[0] in keep or before.inputs[0] is None:
        return nothing
    x, inner, y = dims(before.inputs[0]), dims(merged), dims(after.outputs[0])
    if x is None or inner is None or y is None or len(x) != len(y) or len(x) < 3:
        return nothing
    *lead, rows, columns = x
    last = (rows, columns, *inner[1:], *y[-2:])
    if any(not isinstance(size, int) for size in last) or (rows, columns) != inner[1:] or (columns, rows) != y[-2:]:
        return nothing
    # The number of elements leaves one leading size open; the others must agree.
    open_sizes = sum(a != b or a is None for a, b in zip(lead, y[:-2]))
    known = [a == b for a, b in zip(lead, y[:-2]) if isinstance(a, int) and isinstance(b, int)]
    return (before, after) if open_sizes <= 1 and all(known) else nothing
