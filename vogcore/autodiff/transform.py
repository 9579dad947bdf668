"""From a forward model to a gradient model: the public face of the differentiator."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from vogcore.autodiff import LOWERINGS, OF, head
from vogcore.autodiff import rules as _rules  # noqa: F401 - fills the table
from vogcore.autodiff.backward import backward
from vogcore.autodiff.registry import Options
from vogcore.errors import ModelError, SettingsError
from vogcore.graph.emit import Emitter
from vogcore.graph.load import ModelLike, load_model, naming
from vogcore.graph.logits import find_logits, flatten_classes
from vogcore.graph.names import GRADIENT, LOGITS_KEY, OF_KEY, TARGET, WRT_KEY
from vogcore.graph.prepare import prepare
from vogcore.graph.shapes import is_float

__all__ = ["gradient_model", "vjp_model"]

COTANGENT = "vogcore_cotangent"


def gradient_model(
    model: ModelLike,
    *,
    of: str = "logit",
    wrt: str | None = None,
    output: str | None = None,
    lowering: str = "cpu",
    straight_through: bool = False,
) -> onnx.ModelProto:
    """Turn a forward ONNX classifier into a model that also computes the input gradient.

    Reverse-mode differentiation from ONNX to ONNX; the result needs nothing but an ONNX runtime. A Softmax or
    LogSoftmax at the end of the model is looked through, so that the *pre-softmax* logit is differentiated, as in
    Agarwal, D'souza & Hooker, "Estimating Example Difficulty using Variance of Gradients" (CVPR 2022).

    Args:
        model: path, bytes or proto of a classifier whose logits have shape (N, C).
        of: the scalar of each example that is differentiated at its target class y: ``"logit"`` (z_y),
            ``"probability"``, ``"log-probability"``, ``"loss"`` (cross-entropy), ``"margin"`` (z_y minus the largest
            other logit) or ``"centred-logit"`` (z_y minus the mean logit).
        wrt: name of the float tensor to differentiate with respect to; by default the model's only input. Any
            floating-point value in the graph will do, an embedding's output for example.
        output: name of the output that holds the class scores, where the model has several.
        lowering: ``"cpu"`` or ``"cuda"``, the execution provider that the formulation of the gradient is chosen for;
            the values are the same to rounding.
        straight_through: let gradients pass through quantisation as if it did not round (the straight-through
            estimator, Bengio, Leonard & Courville 2013); without it a quantised model is refused, because its true
            gradient is zero.

    Returns:
        A model with the inputs of ``model`` plus ``vogcore_target`` (N,) int64, and two outputs: the logits (N, C),
        under the name they have in ``model``, and ``vogcore_gradient``, with the shape and type of ``wrt``. Its
        ``metadata_props`` record ``vogcore.of``, ``vogcore.wrt`` and ``vogcore.logits``.

    Raises:
        ModelError: the model cannot be read, is in training mode, or leaves a choice open that must be made.
        UnsupportedOpError: an operator between ``wrt`` and the logits has no gradient rule.
        SettingsError: ``of`` or ``lowering`` is not one of the above.
    """
    if of not in OF:
        raise SettingsError(f"of={of!r} is not known; choose one of {', '.join(OF)}.")
    options = _options(lowering, straight_through)
    with naming(model):
        prepared = prepare(load_model(model))
        graph = prepared.graph
        _refuse_taken_names(graph, (TARGET, GRADIENT))
        source = _choose_source(graph, wrt)
        found = find_logits(graph, output)
        emit = Emitter(graph, cpu=lowering == "cpu")
        logits = flatten_classes(emit, found.logits)
        target = ir.Value(
            name=TARGET, shape=ir.Shape([_batch(logits) or _batch(source)]), type=ir.TensorType(ir.DataType.INT64)
        )
        graph.inputs.append(target)
        cotangent = head.seed(emit, of, logits, target)
        gradient = backward(emit, {logits: cotangent}, [source], options)[source]
        outputs = [logits, _output(emit, gradient, source, GRADIENT)]
        result = _finish(prepared, outputs)
    props = {OF_KEY: of, WRT_KEY: source.name or "", LOGITS_KEY: logits.name or ""}
    onnx.helper.set_model_props(result, {**{p.key: p.value for p in result.metadata_props}, **props})
    return result


def vjp_model(
    model: ModelLike,
    wrt: Sequence[str],
    output: str | None = None,
    *,
    lowering: str = "cpu",
    straight_through: bool = False,
) -> onnx.ModelProto:
    """Vector-Jacobian products of any graph: the caller supplies the cotangent of an output.

    Args:
        model: path, bytes or proto of any ONNX model.
        wrt: names of the float tensors to differentiate with respect to.
        output: name of the output; by default the first one.
        lowering, straight_through: as for :func:`gradient_model`.

    Returns:
        A model with the inputs of ``model`` plus ``vogcore_cotangent`` (shape and type of the output), and as outputs
        the output itself, then one ``vogcore_gradient_<i>`` for each name in ``wrt``.

    Raises:
        ModelError, UnsupportedOpError: as for :func:`gradient_model`.
    """
    options = _options(lowering, straight_through)
    with naming(model):
        prepared = prepare(load_model(model))
        graph = prepared.graph
        sources = [_choose_source(graph, name) for name in wrt]
        chosen = next((value for value in graph.outputs if output is None or value.name == output), None)
        if chosen is None:
            listed = ", ".join(repr(value.name) for value in graph.outputs)
            raise ModelError(f"The model has no output {output!r}; its outputs are {listed}.")
        emit = Emitter(graph, cpu=lowering == "cpu")
        cotangent = ir.Value(name=COTANGENT, shape=chosen.shape, type=chosen.type)
        graph.inputs.append(cotangent)
        gradients = backward(emit, {chosen: cotangent}, sources, options)
        outputs = [chosen]
        outputs += [_output(emit, gradients[s], s, f"{GRADIENT}_{i}") for i, s in enumerate(sources)]
        return _finish(prepared, outputs)


def _options(lowering: str, straight_through: bool) -> Options:
    if lowering not in LOWERINGS:
        raise SettingsError(f"lowering={lowering!r} is not known; choose one of {', '.join(LOWERINGS)}.")
    return Options(lowering, straight_through)


def _choose_source(graph: ir.Graph, wrt: str | None) -> ir.Value:
    inputs = list(graph.inputs)
    if wrt is not None:
        values = {value.name: value for value in [*inputs, *graph.initializers.values()]}
        values |= {value.name: value for node in graph for value in node.outputs}
        if wrt not in values:
            listed = ", ".join(repr(value.name) for value in inputs)
            raise ModelError(
                f"The model has no value named {wrt!r} to differentiate with respect to; its inputs are {listed}."
            )
        if not is_float(values[wrt]):
            raise ModelError(
                f"{wrt!r} has type {_type(values[wrt])}, and only floating-point values have gradients; choose the "
                "output of the embedding or another float tensor."
            )
        return values[wrt]
    if len(inputs) != 1:
        listed = ", ".join(f"{value.name!r} ({_type(value)})" for value in inputs)
        raise ModelError(
            f"The model has {len(inputs)} inputs ({listed}); choose what to differentiate with respect to "
            "(wrt=..., on the command line --wrt), and fold the others into the model."
        )
    if not is_float(inputs[0]):
        raise ModelError(
            f"The input {inputs[0].name!r} has type {_type(inputs[0])}, and only floating-point values have gradients; "
            "choose the output of the embedding or of the conversion to float (wrt=..., on the command line --wrt)."
        )
    return inputs[0]


def _output(emit: Emitter, gradient: ir.Value, source: ir.Value, name: str) -> ir.Value:
    # Identity gives the gradient its public name without renaming a value that may have other uses.
    result = emit.op("Identity", gradient, like=source)
    result.name = name
    return result


def _finish(prepared: ir.Model, outputs: Sequence[ir.Value]) -> onnx.ModelProto:
    prepared.graph.outputs.clear()
    prepared.graph.outputs.extend(outputs)
    passes.RemoveUnusedNodesPass()(prepared)
    prepared.producer_name = "vogcore"
    return ir.to_proto(prepared)


def _refuse_taken_names(graph: ir.Graph, names: Sequence[str]) -> None:
    taken = {value.name for value in graph.inputs} | {value.name for node in graph for value in node.outputs}
    for name in names:
        if name in taken:
            raise ModelError(
                f"The model already has a value named {name!r}, as gradient models do; give the forward model instead."
            )


def _batch(value: ir.Value) -> int | str | None:
    if value.shape is None or len(value.shape) == 0:
        return None
    size = value.shape[0]
    return size if isinstance(size, int) else size.value


def _type(value: ir.Value) -> str:
    return value.dtype.name.lower() if value.dtype is not None else "unknown"
