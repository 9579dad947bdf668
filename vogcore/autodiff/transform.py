"""From a forward model to a gradient model: the public face of the differentiator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from vogcore.autodiff import CHANNELS, LOWERINGS, OF, OUTPUT, head
from vogcore.autodiff import rules as _rules  # noqa: F401 - fills the table
from vogcore.autodiff.backward import backward
from vogcore.autodiff.channels import choose_channel_axis, is_read_by_one_convolution, mean_over
from vogcore.autodiff.custom import own_operators
from vogcore.autodiff.registry import Options
from vogcore.autodiff.targets import Target, choose_target, output_seed, target_classes
from vogcore.errors import ModelError, SettingsError
from vogcore.graph.emit import Emitter
from vogcore.graph.gelu import write_gelu_out
from vogcore.graph.load import ModelLike, load_model, naming
from vogcore.graph.logits import choose_output, find_logits, flatten_classes
from vogcore.graph.names import CHANNELS_KEY, COTANGENT, GRADIENT, LOGITS_KEY, OF_KEY, TARGET, TARGET_KEY, WRT_KEY
from vogcore.graph.prepare import prepare
from vogcore.graph.quantise import write_qdq
from vogcore.graph.shapes import is_float
from vogcore.graph.simplify import simplify

__all__ = ["choose_source", "gradient_model", "refuse_taken_names", "vjp_model"]


def gradient_model(
    model: ModelLike,
    *,
    of: str = "logit",
    wrt: str | None = None,
    output: str | None = None,
    target: Target = None,
    lowering: str = "cpu",
    straight_through: bool = False,
    channels: str = "none",
    channel_axis: int | None = None,
) -> onnx.ModelProto:
    """Turn a forward ONNX classifier into a model that also computes the input gradient.

    Reverse-mode differentiation from ONNX to ONNX; the result needs nothing but an ONNX runtime. A Softmax or
    LogSoftmax at the end of the model is looked through, so that the *pre-softmax* logit is differentiated, as in
    Agarwal, D'souza & Hooker, "Estimating Example Difficulty using Variance of Gradients" (CVPR 2022).

    Args:
        model: path, bytes or proto of a classifier whose logits have shape (N, C); with ``of="output"`` of any model.
        of: the scalar of each example that is differentiated at its target class y: ``"logit"`` (z_y),
            ``"probability"``, ``"log-probability"``, ``"loss"`` (cross-entropy), ``"margin"`` (z_y minus the largest
            other logit) or ``"centred-logit"`` (z_y minus the mean logit). ``"output"`` takes an output of any model
            (a regression, an embedding) as it is, without looking through a softmax.
        wrt: name of the float tensor to differentiate with respect to; by default the model's only input. Any
            floating-point value in the graph will do, an embedding's output for example. All inputs of ``model``
            stay inputs of the result.
        output: name of the output that holds the class scores, where the model has several.
        target: the class y of each example. ``"input"`` (the default): whoever runs the model says so, by the added
            input ``vogcore_target``. ``"predicted"``: the class with the largest logit, found in the graph. An
            integer: that class for all examples. With ``of="output"`` it is the column of an output (N, D), and the
            default is ``"sum"``: all numbers of an example's output, added up.
        lowering: ``"cpu"`` or ``"cuda"``, the execution provider that the formulation of the gradient is chosen for;
            the values are the same to rounding.
        straight_through: let gradients pass through quantisation as if it did not round (the straight-through
            estimator, Bengio, Leonard & Courville 2013); without it a quantised model is refused, because its true
            gradient is zero.
        channels: ``"none"``, or ``"mean"`` for the signed mean of the gradient over its channels, which is all that the
            score needs; where the first operator is a convolution it costs less than the whole gradient.
        channel_axis: axis of the channels for ``channels="mean"``; by default axis 1 or else the last axis of a tensor
            of rank 4, whichever is at most 4 long.

    Returns:
        A model with the inputs of ``model`` plus ``vogcore_target`` (N,) int64 (where the target is an input), and
        two outputs: the logits (N, C), or what ``of="output"`` chose, under the name they have in ``model``, and
        ``vogcore_gradient``, with the shape and type of ``wrt``, without the channel axis for ``channels="mean"``. Its
        ``metadata_props`` record ``vogcore.of``, ``vogcore.wrt``, ``vogcore.logits`` and, where they are not the
        default, ``vogcore.target`` and ``vogcore.channels``.

    Raises:
        ModelError: the model cannot be read, is in training mode, or leaves a choice open that must be made.
        UnsupportedOpError: an operator between ``wrt`` and the logits has no gradient rule.
        SettingsError: ``of``, ``target``, ``lowering`` or ``channels`` is not one of the above, or ``wrt`` has no
            such channel axis.
    """
    if of not in (*OF, OUTPUT):
        raise SettingsError(f"of={of!r} is not known; choose one of {', '.join((*OF, OUTPUT))}.")
    target = choose_target(of, target)
    options = _options(lowering, straight_through)
    if channels not in CHANNELS:
        raise SettingsError(f"channels={channels!r} is not known; choose one of {', '.join(CHANNELS)}.")
    with naming(model):
        prepared = prepare(load_model(model), own_operators())
        graph = prepared.graph
        if straight_through:
            write_qdq(graph)
        refuse_taken_names(graph, (TARGET, GRADIENT))
        source = choose_source(graph, wrt)
        emit = Emitter(graph, cpu=lowering == "cpu")
        scores = choose_output(graph, output) if of == OUTPUT else find_logits(graph, output).logits
        simplify(emit, [source, scores])
        if of == OUTPUT:
            cotangent = output_seed(emit, scores, target, source)
        else:
            scores = flatten_classes(emit, scores)
            cotangent = head.seed(emit, of, scores, target_classes(emit, scores, target, source))
        axis = choose_channel_axis(source, channel_axis) if channels == "mean" else None
        if axis == 1 and is_read_by_one_convolution(source):
            options = replace(options, averaged=source)
        gradient = backward(emit, {scores: cotangent}, [source], options)[source]
        if axis is not None:
            gradient = mean_over(emit, gradient, axis)
        outputs = [scores, _output(emit, gradient, source if axis is None else gradient, GRADIENT)]
        result = _finish(prepared, outputs, emit)
    props = {OF_KEY: of, WRT_KEY: source.name or "", LOGITS_KEY: scores.name or ""}
    if target != "input":
        props[TARGET_KEY] = str(target)
    if channels != "none":
        props[CHANNELS_KEY] = channels
    onnx.helper.set_model_props(result, {**{p.key: p.value for p in result.metadata_props}, **props})
    return result


def vjp_model(
    model: ModelLike,
    wrt: Sequence[str] | str,
    output: str | None = None,
    *,
    lowering: str = "cpu",
    straight_through: bool = False,
) -> onnx.ModelProto:
    """Vector-Jacobian products of any graph: the caller supplies the cotangent of an output.

    Args:
        model: path, bytes or proto of any ONNX model.
        wrt: names of the float tensors to differentiate with respect to; one alone may be given as it is.
        output: name of the output; by default the first one.
        lowering, straight_through: as for :func:`gradient_model`.

    Returns:
        A model with the inputs of ``model`` plus ``vogcore_cotangent`` (shape and type of the output), and as outputs
        the output itself, then one ``vogcore_gradient_<i>`` for each name in ``wrt``.

    Raises:
        ModelError, UnsupportedOpError: as for :func:`gradient_model`.
        SettingsError: ``wrt`` is empty, or ``lowering`` is not known.
    """
    options = _options(lowering, straight_through)
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    if not names:
        raise SettingsError("wrt is empty; name at least one tensor to differentiate with respect to.")
    with naming(model):
        prepared = prepare(load_model(model), own_operators())
        graph = prepared.graph
        if straight_through:
            write_qdq(graph)
        refuse_taken_names(graph, (COTANGENT, *(f"{GRADIENT}_{i}" for i in range(len(names)))))
        sources = [choose_source(graph, name) for name in names]
        chosen = next((value for value in graph.outputs if output is None or value.name == output), None)
        if chosen is None:
            listed = ", ".join(repr(value.name) for value in graph.outputs)
            raise ModelError(f"The model has no output {output!r}; its outputs are {listed}.")
        if chosen.type is not None and not is_float(chosen):
            raise ModelError(
                f"The output {chosen.name!r} has type {_type(chosen)}, and only floating-point values have gradients; "
                "choose another output."
            )
        emit = Emitter(graph, cpu=lowering == "cpu")
        simplify(emit, [*sources, chosen])
        cotangent = ir.Value(name=COTANGENT, shape=chosen.shape, type=chosen.type)
        graph.inputs.append(cotangent)
        gradients = backward(emit, {chosen: cotangent}, sources, options)
        outputs = [chosen]
        outputs += [_output(emit, gradients[s], s, f"{GRADIENT}_{i}") for i, s in enumerate(sources)]
        return _finish(prepared, outputs, emit)


def _options(lowering: str, straight_through: bool) -> Options:
    if lowering not in LOWERINGS:
        raise SettingsError(f"lowering={lowering!r} is not known; choose one of {', '.join(LOWERINGS)}.")
    return Options(lowering, straight_through)


def choose_source(graph: ir.Graph, wrt: str | None) -> ir.Value:
    """The value to differentiate with respect to: the named one, or the only input.

    Raises:
        ModelError: there is no such value, it is not floating-point, or the choice is left open.
    """
    inputs = list(graph.inputs)
    if wrt is not None:
        values = {value.name: value for value in [*inputs, *graph.initializers.values()]}
        values |= {value.name: value for node in graph for value in node.outputs}
        if wrt not in values:
            listed = ", ".join(repr(value.name) for value in inputs)
            raise ModelError(
                f"The model has no value named {wrt!r} to differentiate with respect to; its inputs are {listed}."
            )
        if values[wrt].type is None:
            raise ModelError(
                f"The type of {wrt!r} is not known, since it comes from an operator that ONNX has no shape inference "
                "for; choose a tensor with a known type, or export the model with the types of its tensors."
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
            "(wrt=..., on the command line --wrt); the others stay inputs of the gradient model."
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


def _finish(prepared: ir.Model, outputs: Sequence[ir.Value], emit: Emitter) -> onnx.ModelProto:
    write_gelu_out(emit)
    prepared.graph.outputs.clear()
    prepared.graph.outputs.extend(outputs)
    passes.RemoveUnusedNodesPass()(prepared)
    prepared.producer_name = "vogcore"
    return ir.to_proto(prepared)


def refuse_taken_names(graph: ir.Graph, names: Sequence[str]) -> None:
    """Refuse a model that is a gradient model already.

    Raises:
        ModelError: the graph has a value of one of these names.
    """
    taken = {value.name for value in graph.inputs} | {value.name for node in graph for value in node.outputs}
    for name in names:
        if name in taken:
            raise ModelError(
                f"The model already has a value named {name!r}, as gradient models do; give the forward model instead."
            )


def _type(value: ir.Value) -> str:
    return value.dtype.name.lower() if value.dtype is not None else "unknown"
