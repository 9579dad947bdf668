"""Shapes of what loops carry, which ONNX's own inference leaves open because they may change between iterations.

By induction: suppose that a carried value has the shape of its initial value. Where inference on the body then gives
the same shape at the end of an iteration, it has it in every iteration; sizes that differ are given up, and the rest
is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from vogcore.graph.shapes import bodies, constant, dims

__all__ = ["trips", "with_loop_shapes"]

Infer = Callable[[ir.Model], ir.Model]

_SMALL = 1024
"""Constants of up to this many elements are known to the inference on a body: they may be shapes."""


def with_loop_shapes(model: ir.Model, infer: Infer) -> ir.Model:
    """``model`` with the shapes of carried values filled in where they stay the same, and those that follow from them.

    Args:
        model: a model whose shapes were inferred.
        infer: ONNX's shape inference.
    """
    if not any(node.op_type == "Loop" for node in model.graph.all_nodes()):
        return model
    done: set[int] = set()
    while True:
        for index, node in enumerate(model.graph):
            inside = list(bodies(node))
            if index in done or not inside:
                continue
            done.add(index)
            if node.op_type == "Loop":
                _settle(node, model, infer)
            else:
                for body in inside:
                    _infer_body(body, body.inputs, [value.shape for value in body.inputs], model, infer)
            model = infer(model)  # what follows may be the start of another loop
            break
        else:
            return model


def _settle(node: ir.Node, model: ir.Model, infer: Infer) -> None:
    body, count = node.attributes["body"].as_graph(), len(node.inputs) - 2
    carried = list(body.inputs)[2:]
    for value, initial in zip(carried, node.inputs[2:], strict=True):
        if initial is not None:
            value.type = value.type if value.type is not None else initial.type
    for value in list(body.inputs)[:2]:
        value.shape = ir.Shape([])
    guess = [None if initial is None else dims(initial) for initial in node.inputs[2:]]
    while True:
        shapes = [ir.Shape([]), ir.Shape([]), *(None if sizes is None else ir.Shape(sizes) for sizes in guess)]
        _infer_body(body, body.inputs, shapes, model, infer)
        after = [dims(value) for value in list(body.outputs)[1 : 1 + count]]
        common = [_common(first, second) for first, second in zip(guess, after, strict=True)]
        if common == guess:
            break
        guess = common
    for value, sizes in zip(node.outputs, guess):
        value.shape = None if sizes is None else ir.Shape(sizes)
    known_trips = trips(node, body)
    for value, row in zip(node.outputs[count:], list(body.outputs)[1 + count :], strict=True):
        value.shape = None if row.shape is None else ir.Shape([known_trips, *row.shape])


def _common(first: tuple | None, second: tuple | None) -> tuple | None:
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(a if a == b else None for a, b in zip(first, second))


def trips(node: ir.Node, body: ir.Graph) -> int | None:
    """Number of iterations where it is a constant: nothing but the trip count ends the loop."""
    count, start = constant(node.inputs[0]), constant(node.inputs[1])
    if count is None or (node.inputs[1] is not None and (start is None or not start.all())):
        return None
    goes_on: ir.Value | None = body.outputs[0]
    while goes_on is not None and (producer := goes_on.producer()) is not None and producer.op_type == "Identity":
        goes_on = producer.inputs[0]
    known = constant(goes_on)
    if goes_on is body.inputs[1] or (known is not None and known.all()):
        return max(int(count.reshape(())), 0)
    return None


def _infer_body(
    body: ir.Graph, inputs: Sequence[ir.Value], shapes: Sequence[ir.Shape | None], model: ir.Model, infer: Infer
) -> None:
    """Infer the shapes in a body from those of its inputs and of what it reads from outside, and write them into it."""
    for value, shape in zip(inputs, shapes, strict=True):
        value.shape = shape
    outside = dict.fromkeys(_read_from_outside(body))
    copy = body.clone(allow_outer_scope_values=True)
    for value in [v for node in copy.all_nodes() for v in node.outputs]:
        value.shape = None  # an earlier, more hopeful guess
    for number, value in enumerate(outside):
        known = constant(value)
        stand_in = ir.Value(name=f"outside_{number}", shape=value.shape, type=value.type)
        if known is not None and known.size <= _SMALL:
            stand_in.const_value = ir.tensor(known, name=stand_in.name)
            copy.register_initializer(stand_in)
        else:
            copy.inputs.append(stand_in)
        for node, index in [(use.node, use.idx) for use in value.uses() if _lies_in(use.node, copy)]:
            node.replace_input_with(index, stand_in)
    copy.opset_imports.update(model.opset_imports)
    alone = ir.Model(copy, ir_version=model.ir_version)
    alone = with_loop_shapes(infer(alone), infer)
    symbols = {size for value in [*inputs, *outside] for size in dims(value) or () if isinstance(size, str)}
    _copy_shapes(alone.graph, body, symbols)


def _copy_shapes(source: ir.Graph, target: ir.Graph, symbols: set[str]) -> None:
    """Sizes that are integers or known symbols; inference makes up names for others, which mean nothing elsewhere."""
    pairs = [
        (a, b) for first, second in zip(source, target, strict=True) for a, b in zip(first.outputs, second.outputs)
    ]
    for a, b in [*pairs, *zip(source.outputs, target.outputs)]:
        sizes = dims(a)
        b.type = b.type if b.type is not None else a.type
        known = [n if isinstance(n, int) or n in symbols else None for n in sizes or ()]
        b.shape = None if sizes is None else ir.Shape(known)
    for first, second in zip(source, target, strict=True):
        for inner, outer in zip(bodies(first), bodies(second), strict=True):
            for a, b in zip(inner.inputs, outer.inputs, strict=True):
                b.type, b.shape = b.type if b.type is not None else a.type, a.shape if b.shape is None else b.shape
            _copy_shapes(inner, outer, symbols)


def _read_from_outside(body: ir.Graph) -> Iterator[ir.Value]:
    """Values that a body and the bodies in it read from the graphs around it."""
    own: set[ir.Value] = {*body.inputs, *body.initializers.values()}
    for graph in body.subgraphs():
        own |= {*graph.inputs, *graph.initializers.values()}
    for node in body.all_nodes():
        own.update(node.outputs)
    for node in body.all_nodes():
        yield from (value for value in node.inputs if value is not None and value not in own)


def _lies_in(node: ir.Node, graph: ir.Graph) -> bool:
    return node.graph is graph or any(node.graph is inner for inner in graph.subgraphs())
