"""From a forward model to a gradient model: the public face of the differentiator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from vogcore.autodiff import CHANNELS, LOWERINGS, OF, head
from vogcore.autodiff import rules as _rules  # noqa: F401 - fills the table
from vogcore.autodiff.backward import backward
from vogcore.autodiff.registry import Options
from vogcore.errors import ModelError, SettingsError
from vogcore.graph.emit import Emitter
from vogcore.graph.gelu import write_gelu_out
from vogcore.graph.load import ModelLike, load_model, naming
from vogcore.graph.logits import find_logits, flatten_classes
from vogcore.graph.names import CHANNELS_KEY, GRADIENT, LOGITS_KEY, OF_KEY, TARGET, WRT_KEY
from vogcore.graph.prepare import prepare
from vogcore.graph.shapes import dims, is_float
from vogcore.graph.simplify import simplify

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
    channels: str = "none",
    channel_axis: int | None = None,
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
        channels: ``"none"``, or ``"mean"`` for the signed mean of the gradient over its channels, which is all that the
            score needs; where the first operator is a convolution it costs less than the whole gradient.
        channel_axis: axis of the channels for ``channels="mean"``; by default axis 1 or else the last axis of a tensor
            of rank 4, whichever is at most 4 long.

    Returns:
        A model with the inputs of ``model`` plus ``vogcore_target`` (N,) int64, and two outputs: the logits (N, C),
        under the name they have in ``model``, and ``vogcore_gradient``, with the shape and type of ``wrt``, without the
        channel axis for ``channels="mean"``. Its ``metadata_props`` record ``vogcore.of``, ``vogcore.wrt``,
        ``vogcore.logits`` and ``vogcore.channels``.

    Raises:
        ModelError: the model cannot be read, is in training mode, or leaves a choice open that must be made.
        UnsupportedOpError: an operator between ``wrt`` and the logits has no gradient rule.
        SettingsError: ``of``, ``lowering`` or ``channels`` is not one of the above, or ``wrt`` has no such channel
            axis.
    """
    if of not in OF:
        raise SettingsError(f"of={of!r} is not known; choose one of {', '.join(OF)}.")
    options = _options(lowering, straight_through)
    if channels not in CHANNELS:
        raise SettingsError(f"channels={channels!r} is not known; choose one of {', '.join(CHANNELS)}.")
    with naming(model):
        prepared = prepare(load_model(model))
        graph = prepared.graph
        _refuse_taken_names(graph, (TARGET, GRADIENT))
        source = _choose_source(graph, wrt)
        found = find_logits(graph, output)
        emit = Emitter(graph, cpu=lowering == "cpu")
        simplify(emit, [source, found.logits])
        logits = flatten_classes(emit, found.logits)
        target = ir.Value(
            name=TARGET, shape=ir.Shape([_batch(logits) or _batch(source)]), type=ir.TensorType(ir.DataType.INT64)
        )
        graph.inputs.append(target)
        cotangent = head.seed(emit, of, logits, target)
        axis = _channel_axis(source, channel_axis) if channels == "mean" else None
        if axis == 1 and _is_read_by_one_convolution(source):
            options = replace(options, averaged=source)
        gradient = backward(emit, {logits: cotangent}, [source], options)[source]
        if axis is not None:
            gradient = _mean_over(emit, gradient, axis)
        outputs = [logits, _output(emit, gradient, gradient if channels == "mean" else source, GRADIENT)]
        result = _finish(prepared, outputs, emit)
    props = {OF_KEY: of, WRT_KEY: source.name or "", LOGITS_KEY: logits.name or "", CHANNELS_KEY: channels}
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


def _channel_axis(source: ir.Value, given: int | None) -> int:
    sizes = dims(source)
    shown = "unknown shape" if sizes is None else f"shape ({', '.join('?' if s is None else str(s) for s in sizes)})"
    if sizes is None or len(sizes) < 2:
        raise SettingsError(f"{source.name!r} has {shown} and no channels to average over; leave channels='mean' out.")
    if given is not None:
        if not -len(sizes) < given < len(sizes) or given == 0:
            raise SettingsError(f"channel_axis={given} is no channel axis of {source.name!r}, which has {shown}.")
        return given % len(sizes)
    for axis in (1, len(sizes) - 1):
        size = sizes[axis]
        if len(sizes) == 4 and isinstance(size, int) and size <= 4:
            return axis
    raise SettingsError(
        f"Which axis of {source.name!r} holds the channels cannot be told from its {shown}; give channel_axis."
    )


def _is_read_by_one_convolution(source: ir.Value) -> bool:
    uses = [use for use in source.uses() if use.node.op_type not in ("Shape", "Size")]
    return len(uses) == 1 and uses[0].node.op_type == "Conv" and uses[0].idx == 0 and not source.is_graph_output()


def _mean_over(emit: Emitter, gradient: ir.Value, axis: int) -> ir.Value:
    sizes = dims(gradient)
    if sizes is not None and sizes[axis] == 1:  # averaged by the rule of the first convolution, or an image in grey
        result = emit.op("Squeeze", gradient, emit.ints(axis))
    else:
        result = emit.op("ReduceMean", gradient, emit.ints(axis), keepdims=0)
    if sizes is not None:
        result.shape = ir.Shape([size for place, size in enumerate(sizes) if place != axis])
    return result


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
