"""GELU as one operator while a graph is differentiated.

Exporters write x Phi(x) out, as five operators around an Erf. Differentiated one by one they give ten more passes over
the largest activations of a transformer; as one operator they give six (rules/activation.py).

Requires: a prepared graph.
Ensures: after :func:`recognise_gelu` every such group is one node Gelu; after :func:`write_gelu_out` no Gelu node is
left that the graph's opset does not have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import constant, static_dims

__all__ = ["recognise_gelu", "write_gelu_out"]

FIRST_OPSET = 20
"""Opset that has Gelu."""


def recognise_gelu(graph: ir.Graph, keep: Collection[ir.Value] = ()) -> None:
    """Put one Gelu node in the place of x * 0.5 * (1 + erf(x / sqrt 2)), in whatever order the factors come.

    Args:
        graph: rewritten in place.
        keep: values that must stay.
    """
    for erf in [node for node in graph if _is(node, "Erf")]:
        x = _scaled(erf.inputs[0], 1 / math.sqrt(2))
        found = _end(erf.outputs[0], x) if x is not None else None
        if x is None or found is None:
            continue
        inner, last = found
        y = last.outputs[0]
        if any(value in keep or value.is_graph_output() for node in inner for value in node.outputs):
            continue
        gelu = ir.node("Gelu", [x], name=last.name, num_outputs=1)
        result = gelu.outputs[0]
        result.name, result.shape, result.type = y.name, y.shape, y.type
        if y in keep:
            continue
        graph.insert_before(last, gelu)
        y.replace_all_uses_with(result, replace_graph_outputs=True)
        graph.remove(last, safe=True)


def write_gelu_out(emit: Emitter) -> None:
    """Write Gelu nodes out where the opset of the graph is older than 20."""
    if emit.graph.opset_imports.get("", FIRST_OPSET) >= FIRST_OPSET:
        return
    for node in [node for node in emit.graph if _is(node, "Gelu")]:
        x = node.inputs[0]
        approximate = node.attributes.get("approximate")
        assert x is not None
        emit.scope = node.name or "vogcore"
        with emit.before(node):
            by_tanh = approximate is not None and approximate.as_string() == "tanh"
            factor = tanh_factor(emit, x)[1] if by_tanh else normal_cdf(emit, x)[1]
        become_product(node, x, factor)


def normal_cdf(emit: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """u = x / sqrt 2 and Phi(x) = (1 + erf u) / 2."""
    u = emit.op("Mul", x, emit.scalar(1 / math.sqrt(2), x), like=x)
    # (t + 1) / 2 in one pass; the bounds 0 and 1 of HardSigmoid are those of the function itself.
    return u, emit.op("HardSigmoid", emit.op("Erf", u, like=x), alpha=0.5, beta=0.5, like=x)


def tanh_factor(emit: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """t = tanh(sqrt(2/pi) (x + 0.044715 x³)) and (1 + t) / 2 (Hendrycks & Gimpel 2016, eq. 2)."""
    square = emit.op("Mul", x, x, like=x)
    c, k = math.sqrt(2 / math.pi), 0.044715
    inner = emit.op("Add", emit.op("Mul", square, emit.scalar(c * k, x), like=x), emit.scalar(c, x), like=x)
    t = emit.op("Tanh", emit.op("Mul", x, inner, like=x), like=x)
    return t, emit.op("HardSigmoid", t, alpha=0.5, beta=0.5, like=x)


def become_product(node: ir.Node, x: ir.Value, factor: ir.Value) -> None:
    """Turn a Gelu node into Mul(x, factor), so that what its gradient needs anyway is computed once."""
    node.op_type = "Mul"
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(0, x)
    node.replace_input_with(1, factor)


def _is(node: ir.Node | None, op: str) -> bool:
    return node is not None and node.op_type == op and node.domain in ("", "ai.onnx")


def _number(value: ir.Value | None) -> float | None:
    if value is None or static_dims(value) not in ((), (1,)):
        return None  # a weight, which is better not read: the graph would count as made for its values
    content = constant(value)
    return None if content is None else float(content.reshape(-1)[0])


def _close(number: float | None, wanted: float) -> bool:
    return number is not None and math.isclose(number, wanted, rel_tol=2e-3)


def _scaled(value: ir.Value | None, factor: float) -> ir.Value | None:
    """x where ``value`` is x * factor or x / (1 / factor)."""
    node = value.producer() if value is not None else None
    if _is(node, "Div") and _close(_number(node.inputs[1]), 1 / factor):  # type: ignore[union-attr]
        return node.inputs[0]  # type: ignore[union-attr]
    if _is(node, "Mul"):
        return next((x for x, other in _orders(node) if _close(_number(other), factor)), None)  # type: ignore[arg-type]
    return None


def _orders(node: ir.Node) -> Iterator[tuple[ir.Value | None, ir.Value | None]]:
    a, b = node.inputs
    yield a, b
    yield b, a


def _only_user(value: ir.Value, op: str) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and _is(uses[0].node, op) and not value.is_graph_output() else None


def _end(erf: ir.Value, x: ir.Value) -> tuple[list[ir.Node], ir.Node] | None:
    """The nodes behind erf and the last one, whose output is x * 0.5 * (1 + erf)."""
    plus = _only_user(erf, "Add")
    if plus is None or not any(other is erf and _close(_number(one), 1.0) for one, other in _orders(plus)):
        return None
    product = _only_user(plus.outputs[0], "Mul")
    if product is None:
        return None
    partner = next(other for other, mine in _orders(product) if mine is plus.outputs[0])
    producer = erf.producer()
    assert producer is not None
    inner = [producer, plus]
    if partner is not None and _scaled(partner, 0.5) is x:
        return inner, product
    for first_is_x in (True, False):
        if (partner is x) if first_is_x else _close(_number(partner), 0.5):
            last = _only_user(product.outputs[0], "Mul")
            if last is None:
                return None
            rest = next(other for other, mine in _orders(last) if mine is product.outputs[0])
            if _close(_number(rest), 0.5) if first_is_x else rest is x:
                return [*inner, product], last
    return None
