"""Compute shape arithmetic before the model runs.

Requires: Constant nodes lifted to initializers; shapes inferred as far as ONNX can.
Ensures: an integer or boolean value that does not depend on the data, and a small floating-point one, is an
initializer; Identity nodes on initializers are gone; where the target of a Reshape or Expand is known in part, so is
the shape of the result. Values are never computed from the content of the model's inputs.

Exporters write sizes as arithmetic on shapes (Shape, Gather, Concat, ...), a legacy export of a transformer a thousand
nodes of it. Sizes are followed through that arithmetic as integers, or as the names of open sizes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from vogcore.graph.arithmetic import EVALUATE, FOLDED, INTEGERS, LARGEST, MOVES, PAIRS, TRUTHS
from vogcore.graph.onnx_passes import is_invented
from vogcore.graph.shapes import constant, dims

__all__ = ["fold_shape_arithmetic"]

_SCALES = 8
"""Most elements of a floating-point constant that is followed."""

Content = np.ndarray
"""An array of objects: numbers, names of open sizes (strings), or None for what is not known."""


def fold_shape_arithmetic(model: ir.Model) -> bool:
    """Fold in place; True when a constant or a shape was found that was not known."""
    known: dict[ir.Value, Content] = {}
    changed = False
    for node in list(model.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if _forward_initializer(node):
            changed = True
            continue
        content = _content(node, known)
        if content is not None and content.size <= LARGEST:
            known[node.outputs[0]] = content
            changed |= _replace(model.graph, node, content)
        changed |= _shape_of_result(node, known)
    return changed


def _forward_initializer(node: ir.Node) -> bool:
    """Let the users of Identity(initializer) read the initializer itself."""
    if node.op_type != "Identity" or node.inputs[0] is None or node.outputs[0].is_graph_output():
        return False
    source = node.inputs[0]
    if source.const_value is None or source.is_graph_input() or not node.outputs[0].uses():
        return False
    node.outputs[0].replace_all_uses_with(source)
    return True


def _get(value: ir.Value | None, known: dict[ir.Value, Content]) -> Content | None:
    """What is known of the content of a value."""
    if value is None:
        return None
    if value in known:
        return known[value]
    tensor = value.const_value
    if tensor is None or tensor.dtype not in FOLDED:
        return None
    # Floating-point numbers are followed where they can be scales of sizes, and left alone where they may be weights.
    if tensor.size > (LARGEST if tensor.dtype in INTEGERS else _SCALES):
        return None
    array = constant(value)
    if array is not None:
        known[value] = array.astype(object)
    return known.get(value)


def _content(node: ir.Node, known: dict[ir.Value, Content]) -> Content | None:
    """Content of the node's only output, as far as it follows from what is known."""
    if len(node.outputs) != 1:
        return None
    if node.op_type in ("Shape", "Size"):
        return _measure(node)
    evaluate = EVALUATE.get(node.op_type)
    if evaluate is None:
        return None
    inputs = [_get(value, known) for value in node.inputs]
    if any(content is None and value is not None for content, value in zip(inputs, node.inputs)):
        return None
    if node.op_type not in MOVES and any(_is_open(content) for content in inputs):
        return _arithmetic(node, inputs)
    with contextlib.suppress(Exception):  # a malformed node is for the checker and ONNX Runtime to name
        return np.asarray(evaluate(node, inputs), dtype=object)
    return None


def _is_open(content: Content | None) -> bool:
    return content is not None and any(isinstance(item, str) or item is None for item in content.reshape(-1))


def _measure(node: ir.Node) -> Content | None:
    sizes = dims(node.inputs[0]) if node.inputs[0] is not None else None
    if sizes is None:
        return None
    if node.op_type == "Size":
        numbers = [size for size in sizes if isinstance(size, int)]
        return np.asarray(math.prod(numbers), object) if len(numbers) == len(sizes) else None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(sizes))
    return _objects(sizes[start:end])


def _objects(items: Sequence[Any]) -> Content:
    result = np.empty(len(items), object)
    result[:] = list(items)
    return result


def _arithmetic(node: ir.Node, inputs: Sequence[Content | None]) -> Content | None:
    """What can be said with open sizes among the operands: element by element."""
    operands = [content for content in inputs if content is not None]
    if len(operands) < len(inputs):
        return None
    if node.op_type == "Cast":
        target = ir.DataType(node.attributes["to"].as_int())
        return inputs[0] if target in (ir.DataType.INT64, ir.DataType.INT32) else None
    function: Callable[..., Any]
    if node.op_type in _NEUTRAL:
        function = _with_neutral(node.op_type)
    elif node.op_type in ("Equal", "Where"):
        function = _equal if node.op_type == "Equal" else _chosen
    else:
        return None
    with contextlib.suppress(ValueError):  # shapes that do not broadcast
        return np.asarray(np.frompyfunc(function, len(inputs), 1)(*operands), dtype=object)
    return None


def _is_number(item: Any) -> bool:
    return item is not None and not isinstance(item, str)


def _equal(left: Any, right: Any) -> bool | None:
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    if isinstance(left, str) and left == right:
        return True
    number, name = (left, right) if _is_number(left) else (right, left)
    return False if _is_number(number) and number < 0 and isinstance(name, str) else None  # a size is never negative


def _chosen(condition: Any, yes: Any, no: Any) -> Any:
    if condition is None:
        return yes if yes == no else None
    return yes if condition else no


def _with_neutral(op: str) -> Callable[[Any, Any], Any]:
    """Sums and products: adding nothing and multiplying by one leave a size as it is."""
    neutral, function = _NEUTRAL[op], PAIRS[op][0]

    def combine(left: Any, right: Any) -> Any:
        if _is_number(left) and _is_number(right):
            return function(left, right)
        if _is_number(right) and right == neutral:
            return left
        return right if op in ("Add", "Mul") and _is_number(left) and left == neutral else None

    return combine


_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}


def _replace(graph: ir.Graph, node: ir.Node, content: Content) -> bool:
    """Put a constant in the place of the node's output where its content is known completely."""
    value = node.outputs[0]
    dtype = value.dtype if value.dtype is not None else _result_type(node)
    if dtype not in FOLDED or _is_open(content) or value.is_graph_output() or not value.uses() or not value.name:
        return False
    try:
        array = content.astype(dtype.numpy())
    except (OverflowError, ValueError):  # beyond the type, where the model would wrap around
        return False
    name, value.name = value.name, None
    tensor = ir.tensor(array, name=name)
    fixed = ir.Value(name=name, const_value=tensor, shape=ir.Shape(content.shape), type=ir.TensorType(dtype))
    graph.register_initializer(fixed)
    value.replace_all_uses_with(fixed)
    return True


def _result_type(node: ir.Node) -> ir.DataType | None:
    if node.op_type in ("Shape", "Size"):
        return ir.DataType.INT64
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int())
    if node.op_type in TRUTHS:
        return ir.DataType.BOOL
    source = node.inputs[1 if node.op_type == "Where" else 0] if node.inputs else None
    return source.dtype if source is not None else None


# -- shapes of results -----------------------------------------------------------------------------------------------


def _shape_of_result(node: ir.Node, known: dict[ir.Value, Content]) -> bool:
    """Give the output of a Reshape, Expand or ConstantOfShape the shape that its target tells."""
    position = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}.get(node.op_type)
    if position is None or position >= len(node.inputs):
        return False
    target = _get(node.inputs[position], known)
    output = node.outputs[0]
    if target is None or target.ndim != 1:
        return False
    sizes: list[Any] | None = list(target)
    if node.op_type == "Reshape":
        sizes = _reshaped(node, sizes or [])
    elif node.op_type == "Expand":
        sizes = _broadcast(node.inputs[0], sizes or [])
    if sizes is None:
        return False
    # Names that inference made up serve to cancel sizes above, but tell nothing that it does not know itself.
    sizes = [None if is_invented(s) else int(s) if isinstance(s, int | np.integer) else s for s in sizes]
    old = dims(output)
    if old is not None and len(old) == len(sizes):
        sizes = [
            new if new is not None and (before is None or is_invented(before) or isinstance(new, int)) else before
            for before, new in zip(old, sizes)
        ]
    if old == tuple(sizes):
        return False
    output.shape = ir.Shape(sizes)
    return True


def _reshaped(node: ir.Node, target: list[Any]) -> list[Any]:
    before = dims(node.inputs[0]) if node.inputs[0] is not None else None
    copies = not node.attributes.get_int("allowzero", 0)
    sizes = [
        (before[i] if before is not None and i < len(before) else None) if copies and size == 0 else size
        for i, size in enumerate(target)
    ]
    if -1 not in sizes:
        return sizes
    rest = [size for size in sizes if not (isinstance(size, int) and size == -1)]
    free: Any = None
    if before is not None:
        # Sizes on both sides cancel, open ones by their names.
        left = list(before)
        for size in [size for size in rest if isinstance(size, str)]:
            if size in left:
                left.remove(size)
                rest.remove(size)
        numbers = math.prod(size for size in left if isinstance(size, int))
        names = [size for size in left if not isinstance(size, int)]
        known = [int(size) for size in rest if isinstance(size, int)]
        if len(known) == len(rest):
            part = math.prod(known)
            if not names:
                free = numbers // part if part else None
            elif len(names) == 1 and numbers == part:
                free = names[0]
    return [free if isinstance(size, int) and size == -1 else size for size in sizes]


def _broadcast(value: ir.Value | None, target: list[Any]) -> list[Any] | None:
    before = dims(value) if value is not None else None
    if before is None:
        return None
    width = max(len(before), len(target))
    padded = [1] * (width - len(before)) + list(before)
    wanted = [1] * (width - len(target)) + target
    return [
        b if t == 1 else t if b == 1 or b == t else (b if isinstance(b, int) else t) for b, t in zip(padded, wanted)
    ]
