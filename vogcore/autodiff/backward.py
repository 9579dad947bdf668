"""The reverse sweep. It knows no operator: it walks the path, adds cotangents, and undoes broadcasting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from vogcore.autodiff.registry import (
    EXPLAINED,
    NO_GRADIENT,
    RULES,
    STRAIGHT_THROUGH,
    Call,
    Deferred,
    Options,
    inputs_with_gradient,
    outputs_with_gradient,
    qualified_name,
)
from vogcore.errors import ModelError, UnsupportedOpError
from vogcore.graph.emit import Emitter
from vogcore.graph.prepare import node_name
from vogcore.graph.shapes import dims, is_float, same_dim

__all__ = ["backward", "path_nodes", "unbroadcast"]


def path_nodes(graph: ir.Graph, sources: Sequence[ir.Value], sinks: Sequence[ir.Value]) -> list[ir.Node]:
    """Nodes through which a floating-point change of ``sources`` reaches ``sinks``, in graph order."""
    active = set(sources)
    forward = []
    for node in graph:
        outputs = _active_outputs(node, active)
        if outputs:
            active.update(outputs)
            forward.append(node)
    needed = set(sinks)
    path = []
    for node in reversed(forward):
        if any(value in needed for value in node.outputs):
            needed.update(value for value in inputs_with_gradient(node) if value in active)
            path.append(node)
    return path[::-1]


def _active_outputs(node: ir.Node, active: set[ir.Value]) -> list[ir.Value]:
    """Outputs that change with the active values."""
    carried = [value for value in inputs_with_gradient(node) if value in active]
    if not carried:
        return []
    name = qualified_name(node)
    if (name not in NO_GRADIENT or name in RULES) and not all(_can_change(value) for value in carried):
        return list(node.outputs)  # of quantised integers, which stand for real numbers; so does what is made of them
    return list(outputs_with_gradient(node))


def backward(
    emit: Emitter,
    seeds: Mapping[ir.Value, ir.Value],
    sources: Sequence[ir.Value],
    options: Options = Options(),  # noqa: B008 - frozen
) -> dict[ir.Value, ir.Value]:
    """Append the reverse sweep from ``seeds`` to ``sources``.

    Reverse-mode accumulation (Griewank & Walther 2008, section 3.2): the cotangent of a value is the sum over its
    uses of the cotangents that the rules of those uses return.

    Args:
        emit: emitter on the forward graph.
        seeds: output -> its cotangent, of the same shape.
        sources: the values whose cotangents are wanted.
        options: what rules may depend on.

    Returns:
        source -> cotangent, of the same shape and type.

    Raises:
        UnsupportedOpError: an operator on the path has no rule.
        ModelError: an output does not depend on a source.
    """
    path = path_nodes(emit.graph, sources, list(seeds))
    _require_rules(path, options)
    active = set(sources)
    for node in path:
        active.update(_active_outputs(node, active))
    pending: dict[ir.Value, list[ir.Value | Deferred]] = {value: [seed] for value, seed in seeds.items()}
    gradients: dict[ir.Value, ir.Value] = {}
    for node in reversed(path):
        cotangents = tuple(_collect(emit, pending, value) for value in node.outputs)
        # A source in the middle of the graph may lie on the path to another one.
        gradients |= {v: total for v, total in zip(node.outputs, cotangents) if v in sources and total is not None}
        if all(cotangent is None for cotangent in cotangents):
            continue
        carriers = set(inputs_with_gradient(node)) & active
        inputs = tuple(node.inputs)  # a rule may rewrite its node
        wanted = tuple(value in carriers for value in inputs)
        if not any(wanted):
            continue
        emit.scope = f"vogcore/{node_name(node)}"
        entry = RULES[qualified_name(node)]
        call = Call(node, emit, cotangents, wanted, options)
        if not entry.all_outputs and any(cotangent is not None for cotangent in cotangents[1:]):
            raise call.unsupported("an output other than its first lies between the input and the logits")
        if any(want and not _can_change(value) for value, want in zip(inputs, wanted)):
            _require_dequantisation(call)
        results = [*entry.function(call)]
        results += [None] * (len(inputs) - len(results))
        for index, (value, want, result) in enumerate(zip(inputs, wanted, results, strict=True)):
            if value is None or not want:
                continue
            if result is None:
                raise call.unsupported(f"its input {index} depends on the model's input, which its rule does not cover")
            if not isinstance(result, ir.Value):
                pending.setdefault(value, []).append(result)
                continue
            if entry.broadcasts:
                result = unbroadcast(emit, result, node.outputs[0], value)
            # A rule may hand on a cotangent it was given, whose shape is known already.
            result.shape = result.shape if result.shape is not None else value.shape
            result.type = result.type if result.type is not None else value.type
            pending.setdefault(value, []).append(result)
    emit.scope = "vogcore"
    for source in sources:
        total = gradients.get(source) or _collect(emit, pending, source)
        if total is None:
            sinks = ", ".join(repr(value.name) for value in seeds)
            raise ModelError(
                f"The output {sinks} does not depend on {source.name!r}, so there is nothing to score; choose another "
                "tensor to differentiate with respect to."
            )
        gradients[source] = total
    return gradients


def unbroadcast(emit: Emitter, cotangent: ir.Value, output: ir.Value, target: ir.Value) -> ir.Value:
    """Sum a cotangent of the shape of ``output`` over the axes along which ``target`` was broadcast to it."""
    wide, narrow = dims(output), dims(target)
    if wide is None or narrow is None:
        return _unbroadcast_at_run_time(emit, cotangent, output, target)
    lead = len(wide) - len(narrow)
    axes = list(range(lead))
    for offset, size in enumerate(narrow):
        other = wide[lead + offset]
        if same_dim(size, other) or (isinstance(size, int) and size != 1):
            continue
        if size != 1:  # a symbol against something else: it may be one or not
            return _unbroadcast_at_run_time(emit, cotangent, output, target)
        axes.append(lead + offset)
    if not axes:
        return cotangent
    if lead == 0:
        return emit.op("ReduceSum", cotangent, emit.ints(*axes), keepdims=1, like=target)
    if len(axes) == lead:
        return emit.op("ReduceSum", cotangent, emit.ints(*axes), keepdims=0, like=target)
    return emit.reshape_like(emit.op("ReduceSum", cotangent, emit.ints(*axes), keepdims=1), target)


def _unbroadcast_at_run_time(emit: Emitter, cotangent: ir.Value, output: ir.Value, target: ir.Value) -> ir.Value:
    """The same when sizes are only known at run time: the axes to sum over are computed in the graph."""
    wide, narrow = emit.shape(output), emit.shape(target)
    missing = emit.op("Sub", emit.shape(wide), emit.shape(narrow))
    ones = emit.filled(missing, 1, ir.DataType.INT64)
    aligned = emit.op("Concat", ones, narrow, axis=0)
    differs = emit.typed(ir.DataType.BOOL, "Not", emit.compare("Equal", aligned, wide))
    axes = emit.op("Reshape", emit.typed(ir.DataType.INT64, "NonZero", differs), emit.ints(-1))
    summed = emit.op("ReduceSum", cotangent, axes, keepdims=1, noop_with_empty_axes=1)
    return emit.op("Reshape", summed, narrow, like=target)


def _collect(emit: Emitter, pending: dict[ir.Value, list[ir.Value | Deferred]], value: ir.Value) -> ir.Value | None:
    parts = pending.pop(value, [])
    if not parts:
        return None
    total, *rest = _tensors(emit, parts)
    for part in rest:
        total = emit.op("Add", total, part, like=value if _can_change(value) else total)
    return total


def _tensors(emit: Emitter, parts: Sequence[ir.Value | Deferred]) -> list[ir.Value]:
    """The parts as tensors, with deferred ones that fit together added up first."""
    tensors: list[ir.Value] = []
    sums: list[Deferred] = []
    for part in parts:
        if isinstance(part, ir.Value):
            tensors.append(part)
            continue
        for index, total in enumerate(sums):
            joined = total.plus(emit, part)
            if joined is not None:
                sums[index] = joined
                break
        else:
            sums.append(part)
    return tensors + [total.value(emit) for total in sums]


def _can_change(value: ir.Value | None) -> bool:
    return value is None or value.type is None or is_float(value)


def _require_dequantisation(call: Call) -> None:
    if qualified_name(call.node) != "DequantizeLinear":
        raise call.unsupported(
            "it works on quantised integers; quantise the model with QuantizeLinear and DequantizeLinear around "
            "operators on floating-point numbers (QDQ)"
        )


def _require_rules(path: Sequence[ir.Node], options: Options) -> None:
    rounding = next((node for node in path if qualified_name(node) in STRAIGHT_THROUGH), None)
    if rounding is not None and not options.straight_through:
        op, name = qualified_name(rounding), node_name(rounding)
        raise UnsupportedOpError(
            f"{op} node {name!r} rounds, so the gradient of what lies behind it is zero everywhere; ask for the "
            "straight-through gradient (straight_through=True, on the command line --straight-through).",
            op=op,
            node=name,
        )
    unknown = [node for node in path if qualified_name(node) not in RULES]
    if not unknown:
        return
    node = unknown[0]
    op, name = qualified_name(node), node_name(node)
    if op in EXPLAINED:
        raise UnsupportedOpError(f"{op} node {name!r} cannot be differentiated: {EXPLAINED[op]}.", op=op, node=name)
    others = sorted({qualified_name(other) for other in unknown} - {op})
    also = f" (also without a rule in this model: {', '.join(others)})" if others else ""
    raise UnsupportedOpError(
        f"{op} node {name!r} lies between the input and the logits and vogcore has no gradient rule for {op}{also}; "
        "export the model with other operators, or compute gradients in the training framework and "
        "pass them to vogcore.score_gradients.",
        op=op,
        node=name,
    )
