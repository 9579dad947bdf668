"""Pool first, then cut off: MaxPool(Relu(x)) as Relu(MaxPool(x)).

Requires: a prepared graph.
Ensures: the same values and gradients. Relu is monotonic, so both forms have the same maximum; where it is positive it
is at the same position, and where it is zero neither form passes a gradient. The Relu and its derivative then run on
the smaller map.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

__all__ = ["relu_after_pool"]


def relu_after_pool(graph: ir.Graph, keep: Collection[ir.Value] = ()) -> None:
    """Exchange the two in place, unless the Relu's output is used elsewhere, is an output, or is in ``keep``."""
    for pool in list(graph):
        if pool.op_type != "MaxPool" or pool.domain not in ("", "ai.onnx") or len(pool.outputs) != 1:
            continue
        value, pooled = pool.inputs[0], pool.outputs[0]
        relu = value.producer() if value is not None else None
        if value is None or relu is None or relu.op_type != "Relu" or relu.domain not in ("", "ai.onnx"):
            continue
        if len(value.uses()) > 1 or value.is_graph_output() or value in keep or pooled in keep:
            continue
        pool.replace_input_with(0, relu.inputs[0])
        # The pooled value keeps its name and users, which now are those of the Relu behind it.
        moved = ir.node("Relu", [pooled], name=relu.name, num_outputs=1)
        after = moved.outputs[0]
        after.name, after.shape, after.type = value.name, pooled.shape, pooled.type
        for user, index in list(pooled.uses()):
            if user is not moved:
                user.replace_input_with(index, after)
        outputs = [after if output is pooled else output for output in graph.outputs]
        if any(output is pooled for output in graph.outputs):
            graph.outputs.clear()
            graph.outputs.extend(outputs)
            pooled.name, after.name = f"{pooled.name}/before_{relu.name or 'Relu'}", pooled.name
        graph.remove(relu, safe=True)
        graph.insert_after(pool, moved)
