"""Max pooling as jax2onnx writes it, rewritten to what ONNX Runtime can run.

``lax.reduce_window`` has a window over every axis, batch and channels included, and jax2onnx 0.17 makes each of them a
spatial axis of MaxPool: images are pooled over four, and ONNX Runtime has kernels for up to three. The two axes whose
window is 1 become the batch and the channels that MaxPool has anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["pool_over_windows_only"]

MOST_AXES = 3
"""Spatial axes of MaxPool that ONNX Runtime has kernels for."""


def pool_over_windows_only(model: onnx.ModelProto) -> None:
    """Rewrite, in place, every MaxPool over more than three spatial axes, two of which have no window.

    Requires: as jax2onnx writes it, the input is (1, 1, ...), all of whose further axes are spatial.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    nodes = []
    for node in model.graph.node:
        axes = _window_axes(node) if node.op_type == "MaxPool" else None
        if axes is None:
            nodes.append(node)
            continue
        plain, windows = axes
        order = [*plain, *windows]
        back = [order.index(axis) for axis in range(len(order))]
        name = node.output[0]
        leading = numpy_helper.from_array(np.array([0, 1]), f"{name}/axes")
        model.graph.initializer.append(leading)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for key, values in attributes.items():
            if key in ("kernel_shape", "strides", "dilations", "pads"):
                both = [values[i : i + len(order)] for i in range(0, len(values), len(order))]  # pads: begin and end
                attributes[key] = [part[axis] for part in both for axis in windows]
        nodes += [
            helper.make_node("Squeeze", [node.input[0], leading.name], [f"{name}/squeezed"]),
            helper.make_node("Transpose", [f"{name}/squeezed"], [f"{name}/into"], perm=order),
            helper.make_node("MaxPool", [f"{name}/into"], [f"{name}/pooled"], **attributes),
            helper.make_node("Transpose", [f"{name}/pooled"], [f"{name}/back"], perm=back),
            helper.make_node("Unsqueeze", [f"{name}/back", leading.name], [name]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _window_axes(node: onnx.NodeProto) -> tuple[list[int], list[int]] | None:
    """Axes without and with a window; None where the node can stay or cannot be helped."""
    attributes = {a.name: list(a.ints) for a in node.attribute}
    kernel = attributes["kernel_shape"]
    count = len(kernel)
    pads = attributes.get("pads", [0] * 2 * count)
    strides = attributes.get("strides", [1] * count)
    plain = [i for i in range(count) if kernel[i] == strides[i] == 1 and pads[i] == pads[count + i] == 0]
    if count <= MOST_AXES or len(plain) < 2:
        return None
    plain = [plain[0], plain[-1]]  # the batch comes first, and the channels last or beside it
    windows = [i for i in range(count) if i not in plain]
    return (plain, windows) if len(windows) <= MOST_AXES else None
