"""The way from what is differentiated with respect to, to the scores, and everything that blocks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from vogcore.autodiff.backward import path_nodes
from vogcore.autodiff.registry import RULES, Call, Options, inputs_with_gradient, outputs_with_gradient, qualified_name
from vogcore.diagnose.report import Operator, Problem, Tensor
from vogcore.errors import UnsupportedOpError
from vogcore.graph.emit import Emitter
from vogcore.graph.prepare import node_name
from vogcore.graph.shapes import dims, is_float

__all__ = ["candidates", "operator", "problems", "tensor"]

_MOST_CANDIDATES = 12


def tensor(value: ir.Value) -> Tensor:
    """A value of the graph as the report has it."""
    return Tensor(value.name or "", value.dtype.name.lower() if value.dtype is not None else "unknown", dims(value))


def operator(node: ir.Node) -> Operator:
    """A node of the graph as the report has it."""
    return Operator(qualified_name(node), node_name(node), (node.outputs[0].name or "") if node.outputs else "")


def candidates(graph: ir.Graph, scores: ir.Value) -> list[Tensor]:
    """Floating-point tensors that the scores depend on, each the first on its way from an input.

    They are floating-point inputs, and where integers come in, the first floating-point values that are made of them:
    an embedding, an image converted from bytes.
    """
    found = [value for value in graph.inputs if is_float(value)]
    integers = {value for value in graph.inputs if not is_float(value)}
    floats = set(found)
    for node in graph:
        if node.op_type in ("Shape", "Size"):
            continue
        outputs = [value for value in node.outputs if is_float(value)]
        if any(value in floats for value in node.inputs):
            floats.update(outputs)
        elif any(value in integers for value in node.inputs):
            found += outputs
            floats.update(outputs)
            integers.update(value for value in node.outputs if not is_float(value))
    reaching = [value for value in found if value is scores or path_nodes(graph, [value], [scores])]
    # A mask of integers is made a float as well, but an embedding is what is looked for.
    reaching.sort(key=lambda value: (node := value.producer()) is not None and node.op_type != "Gather")
    return [tensor(value) for value in reaching[:_MOST_CANDIDATES]]


def problems(
    graph: ir.Graph, path: Sequence[ir.Node], source: ir.Value, scores: ir.Value, options: Options
) -> list[Problem]:
    """Every node on the path whose operator has no rule or whose use its rule does not cover.

    The rules are tried one by one, each with cotangents that stand for those that the reverse sweep would bring.
    ``graph`` is spoilt by that: what the rules emit stays in it.
    """
    found = list(_problems(Emitter(graph, cpu=options.lowering == "cpu"), path, source, scores, options))
    if not any(problem.missing for problem in found):
        return found
    # Nothing is known of what comes out of an unknown operator, and a rule that has to know would be blamed for it.
    unknown = {node_name(node) for node in path if any(v is not None and v.shape is None for v in node.inputs)}
    return [problem for problem in found if problem.missing or problem.node not in unknown]


def _problems(
    emit: Emitter, path: Sequence[ir.Node], source: ir.Value, scores: ir.Value, options: Options
) -> Iterator[Problem]:
    active = {source} | {value for node in path for value in outputs_with_gradient(node)}
    read = {scores, source} | {value for node in path for value in inputs_with_gradient(node)}
    for node in path:
        name = qualified_name(node)
        entry = RULES.get(name)
        if entry is None:
            yield Problem(name, node_name(node), True, f"{name} has no gradient rule.")
            continue
        cotangents = tuple(_stand_in(value) if value in read and value in active else None for value in node.outputs)
        carriers = set(inputs_with_gradient(node)) & active
        wanted = tuple(v in carriers and (v is None or v.type is None or is_float(v)) for v in node.inputs)
        if not any(wanted):
            continue
        call = Call(node, emit, cotangents, wanted, options)
        try:
            if not entry.all_outputs and any(cotangent is not None for cotangent in cotangents[1:]):
                raise call.unsupported("an output other than its first lies between the input and the logits")
            results = [*entry.function(call)]
            results += [None] * (len(node.inputs) - len(results))
            for index, (want, result) in enumerate(zip(wanted, results, strict=True)):
                if result is not None and not isinstance(result, ir.Value):
                    result.value(emit)
                if want and result is None:
                    raise call.unsupported(
                        f"its input {index} depends on the model's input, which its rule does not cover"
                    )
        except UnsupportedOpError as error:
            yield Problem(name, node_name(node), False, str(error))


def _stand_in(value: ir.Value) -> ir.Value:
    return ir.Value(name=f"{value.name}/cotangent", shape=value.shape, type=value.type)
