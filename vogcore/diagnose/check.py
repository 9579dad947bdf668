"""``vogcore.check_model``: everything there is to know about a model before it is differentiated."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
import onnx_ir as ir

from vogcore.autodiff import LOWERINGS, OF, OUTPUT
from vogcore.autodiff.backward import path_nodes
from vogcore.autodiff.custom import own_operators
from vogcore.autodiff.registry import Options
from vogcore.autodiff.targets import Target, choose_target
from vogcore.autodiff.transform import choose_source, gradient_model, refuse_taken_names
from vogcore.diagnose.path import candidates, operator, problems, tensor
from vogcore.diagnose.report import ModelReport, Problem, SelfCheck
from vogcore.diagnose.self_check import self_check
from vogcore.errors import ModelError, SettingsError
from vogcore.graph.load import ModelLike, load_model
from vogcore.graph.logits import choose_output, find_logits
from vogcore.graph.ml import without_maps
from vogcore.graph.names import GRADIENT, TARGET
from vogcore.graph.prepare import prepare
from vogcore.graph.quantise import write_qdq
from vogcore.runtime import make_batch_dynamic

__all__ = ["check_model"]

_ROUNDING = ("QuantizeLinear", "DynamicQuantizeLinear")


def check_model(
    model: ModelLike,
    *,
    of: str = "logit",
    wrt: str | None = None,
    output: str | None = None,
    target: Target = None,
    lowering: str = "cpu",
    straight_through: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
    examples: int = 4,
    directions: int = 3,
    seed: int = 0,
    threads: int | None = None,
) -> ModelReport:
    """Find out whether a model can be differentiated, and whether its gradient is right.

    The gradient is compared with central differences of the forward graph along random directions at random input, in
    ONNX Runtime on the CPU.

    Args:
        model: path, bytes or proto of a forward model.
        of, wrt, output, target, lowering, straight_through: as for :func:`vogcore.gradient_model`.
        shapes: shapes of inputs for the comparison, by name, where the model leaves sizes open and those that are
            tried do not suit it.
        examples: batch size of the comparison, where the model leaves it open.
        directions: number of random directions.
        seed: of the random numbers.
        threads: threads inside an operator; None for every CPU that this process may use.

    Returns:
        The report. What stands in the way of a gradient is in it, not raised.

    Raises:
        ModelError: the model cannot be read.
        SettingsError: ``of``, ``target``, ``lowering`` or ``shapes`` is not possible.
    """
    if of not in (*OF, OUTPUT):
        raise SettingsError(f"of={of!r} is not known; choose one of {', '.join((*OF, OUTPUT))}.")
    if lowering not in LOWERINGS:
        raise SettingsError(f"lowering={lowering!r} is not known; choose one of {', '.join(LOWERINGS)}.")
    chosen = choose_target(of, target)
    proto = without_maps(load_model(model))
    report = _first_look(model, proto, of, chosen, threads)
    options = Options(lowering, straight_through)
    try:
        report = _look_closer(report, proto, wrt, output, options)
    except ModelError as error:
        return replace(report, refusal=str(error))
    if report.refusal is not None or report.wrt is None:
        return report
    settings: dict[str, Any] = {"of": of, "wrt": report.wrt.name, "output": output}
    try:
        gradient = gradient_model(
            proto, **settings, target=target, lowering=lowering, straight_through=straight_through
        )
    except ModelError as error:
        return replace(report, refusal=str(error))
    report = replace(report, gradient_nodes=len(gradient.graph.node))
    if straight_through and any(node.op in _ROUNDING for node in report.path):
        reason = (
            "The straight-through gradient is not the derivative of the model, which is zero, so nothing is compared."
        )
        return replace(report, self_check=SelfCheck("not run", reason))
    found = self_check(
        proto, gradient, **settings, target=chosen, examples=examples, directions=directions, seed=seed,
        shapes=shapes or {}, threads=threads,
    )  # fmt: skip
    return replace(report, self_check=found)


def _first_look(
    model: ModelLike, proto: onnx.ModelProto, of: str, target: str | int, threads: int | None
) -> ModelReport:
    """What the file itself says."""
    overridable = {value.name for value in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in overridable]
    graph = ir.from_proto(
        onnx.helper.make_model(onnx.helper.make_graph([], "values", inputs, proto.graph.output))
    ).graph
    is_path = isinstance(model, str | os.PathLike)
    return ModelReport(
        model=str(model) if is_path else "the model",
        of=of,
        target=str(target),
        bytes=os.path.getsize(model) if is_path else proto.ByteSize(),
        ir_version=proto.ir_version,
        opsets={entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        nodes=len(proto.graph.node),
        weights=0,
        weight_bytes=0,
        inputs=tuple(tensor(value) for value in graph.inputs),
        outputs=tuple(tensor(value) for value in graph.outputs),
        batch=_batch(graph, proto, threads),
    )


def _batch(graph: ir.Graph, proto: onnx.ModelProto, threads: int | None) -> str:
    leading = {value.shape[0] for value in graph.inputs if value.shape is not None and len(value.shape) > 0}
    fixed = sorted({size for size in leading if isinstance(size, int)})
    if not fixed:
        return "open" if leading else "unknown"
    try:
        _, free = make_batch_dynamic(proto, "cpu", threads=threads)
    except ModelError:  # ONNX Runtime refuses the model, which the comparison will say as well
        free = False
    return f"fixed at {', '.join(map(str, fixed))}{' (vogcore score frees it)' if free else ''}"


def _look_closer(
    report: ModelReport, proto: onnx.ModelProto, wrt: str | None, output: str | None, options: Options
) -> ModelReport:
    """What the graph says once it is prepared."""
    graph = prepare(proto, own_operators()).graph
    if options.straight_through:
        write_qdq(graph)
    refuse_taken_names(graph, (TARGET, GRADIENT))
    arrays = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    report = replace(
        report,
        weights=sum(int(array.size) for array in arrays),
        weight_bytes=sum(int(array.nbytes) for array in arrays),
    )
    if report.of == OUTPUT:
        scores, softmax = choose_output(graph, output), None
    else:
        scores, softmax = find_logits(graph, output)
    producer = scores.producer()
    report = replace(
        report, scores=tensor(scores), softmax=softmax, scores_node=operator(producer) if producer is not None else None
    )
    try:
        source = choose_source(graph, wrt)
    except ModelError as error:
        return replace(report, refusal=str(error), candidates=tuple(candidates(graph, scores)))
    path = path_nodes(graph, [source], [scores])
    report = replace(report, wrt=tensor(source), path=tuple(operator(node) for node in path))
    found = problems(graph, path, source, scores, options)
    return replace(report, problems=tuple(found), refusal=_refusal(found, len(path), options))


def _refusal(found: Sequence[Problem], length: int, options: Options) -> str | None:
    """What the problems come to, in one sentence."""
    if not found:
        return None
    quantised = not options.straight_through and any(problem.op in _ROUNDING for problem in found)
    remedy = (
        "differentiate through the rounding as if it were not there (straight_through=True, on the command line "
        "--straight-through)"
        if quantised
        else "export the model with other operators, register a rule (vogcore.register_vjp), or compute gradients in "
        "the training framework and pass them to vogcore.score_gradients"
    )
    missing = sorted({problem.op for problem in found if problem.missing})
    if not missing:
        first = found[0].reason.rstrip(".")
        more = f" (and {len(found) - 1} more nodes)" if len(found) > 1 else ""
        return f"{first}{more}; {remedy}."
    one = len(missing) == 1
    return (
        f"The operator{'' if one else 's'} {', '.join(missing)} on the path from the input to the scores "
        f"{'has' if one else 'have'} no gradient rule; {remedy}."
    )
