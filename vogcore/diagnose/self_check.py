"""The gradient graph against differences of the forward graph, both in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from vogcore.autodiff import OUTPUT
from vogcore.autodiff.custom import own_operators
from vogcore.autodiff.transform import choose_source
from vogcore.diagnose.differences import compare
from vogcore.diagnose.inputs import index_limits, random_feeds, sizes_to_try
from vogcore.diagnose.report import SelfCheck
from vogcore.errors import ModelError
from vogcore.graph.emit import Emitter
from vogcore.graph.logits import choose_output, find_logits, flatten_classes
from vogcore.graph.names import GRADIENT, TARGET
from vogcore.graph.prepare import prepare
from vogcore.runtime import Session

__all__ = ["self_check"]

_TOLERANCE = {"float16": 0.1}
_ANY_TOLERANCE = 0.01
_MOST_UNSETTLED = 0.1
_FORWARD_TOLERANCE = {"float16": 0.02}
_ANY_FORWARD_TOLERANCE = 1e-3


def self_check(
    model: onnx.ModelProto,
    gradient: onnx.ModelProto,
    *,
    of: str,
    target: str | int,
    wrt: str,
    output: str | None,
    examples: int,
    directions: int,
    seed: int,
    shapes: Mapping[str, Sequence[int]],
    threads: int | None,
) -> SelfCheck:
    """Compare directional derivatives.

    Args:
        model: the forward model.
        gradient: what :func:`vogcore.gradient_model` made of it.
        of, target, output: as that was made; `target` with its default filled in.
        wrt: the value that gradients were taken of.
        examples: batch size where the model leaves it open.
        directions: random directions, each for all examples at once.
        seed: of the random numbers.
        shapes: shapes of inputs that the caller prescribes.
        threads: threads inside an operator.

    Raises:
        SettingsError: a prescribed shape does not fit.
    """
    try:
        run = _Run(model, gradient, wrt, output, of == OUTPUT, threads)
        rng = np.random.default_rng(seed)
        samples: list[_Sample] = []
        while sum(sample.examples for sample in samples) < examples:  # one after the other at a fixed batch of one
            feeds = run.find_feeds(rng, examples, shapes)
            samples.append(_compare(run, feeds, rng, of, target, directions))
    except ModelError as error:
        return SelfCheck("not run", f"The self-check could not be run: {str(error).rstrip('.')}.")
    return _judge(samples, directions)


class _Sample(NamedTuple):
    """What one batch of random examples shows."""

    examples: int
    dtype: np.dtype
    forward_error: float
    independent: bool | None
    errors: npt.NDArray
    unsettled: npt.NDArray
    telling: npt.NDArray


class _Run:
    """The sessions, and the forward graph opened at the value that is varied."""

    def __init__(
        self, model: onnx.ModelProto, gradient: onnx.ModelProto, wrt: str, output: str | None, raw: bool,
        threads: int | None,
    ) -> None:  # fmt: skip
        options: dict[str, Any] = {"provider": "cpu", "threads": threads}
        self.original = Session(model, where="the model", **options)
        self.source_name = wrt
        prepared = prepare(model, own_operators())
        self.graph = prepared.graph
        self.sizes, self.limits = sizes_to_try(self.graph), index_limits(self.graph)
        self.graph_inputs = list(self.graph.inputs)
        source = choose_source(self.graph, wrt)
        self.is_input = source.is_graph_input()
        self.is_weight = source.is_initializer()
        chosen = choose_output(self.graph, output)
        scores = chosen if raw else flatten_classes(Emitter(self.graph), find_logits(self.graph, output).logits)
        self.chosen_name, self.scores_name = chosen.name or "", scores.name or ""
        names = list(dict.fromkeys([self.scores_name, self.chosen_name]))
        values = {value.name: value for value in (scores, chosen)}
        outputs = [values[name] for name in names]
        self.whole: Session | None = None
        if not self.is_input and not self.is_weight:
            self.whole = Session(_with_outputs(prepared, [*outputs, source]), where="the forward graph", **options)
        self.weight = source.const_value.numpy() if self.is_weight and source.const_value is not None else None
        if not self.is_input:
            fed = _open_at(self.graph, source)
            outputs = [fed if value is source else value for value in outputs]
            opened = ir.from_proto(gradient)
            _open_at(opened.graph, choose_source(opened.graph, wrt))
            passes.RemoveUnusedNodesPass()(opened)
            gradient = ir.to_proto(opened)
        self.gradient = Session(gradient, where="the gradient graph", **options)
        self.forward = Session(_with_outputs(prepared, outputs), where="the forward graph", **options)

    def scores(self, feeds: Mapping[str, npt.NDArray], base: npt.NDArray, name: str | None = None) -> npt.NDArray:
        """The scores (or the output ``name``) with the source at ``base``, float64."""
        given = {**feeds, self.source_name: base}
        known = {name: given[name] for name in self.forward.input_names}
        return self.forward.run([name or self.scores_name], known)[0].astype(np.float64)

    def gradients(self, feeds: Mapping[str, npt.NDArray], classes: npt.NDArray, base: npt.NDArray) -> npt.NDArray:
        """What the gradient graph says with the source at ``base``, float64."""
        given = {**feeds, TARGET: classes, self.source_name: base}
        known = {name: given[name] for name in self.gradient.input_names}
        return self.gradient.run([GRADIENT], known)[0].astype(np.float64)

    def base(self, feeds: Mapping[str, npt.NDArray]) -> npt.NDArray:
        """The value that is varied, at the inputs ``feeds``."""
        if self.is_input:
            return feeds[self.source_name]
        if self.weight is not None:
            return self.weight
        assert self.whole is not None
        return self.whole.run([self.source_name], {name: feeds[name] for name in self.whole.input_names})[0]

    def find_feeds(
        self, rng: np.random.Generator, examples: int, shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, npt.NDArray]:
        """Random inputs of the first sizes that the model runs on."""
        failure: ModelError | None = None
        for size in self.sizes:
            values = [value for value in self.graph_inputs if value.name in self.original.input_names]
            feeds = random_feeds(values, rng, examples=examples, free_size=size, limits=self.limits, shapes=shapes)
            try:
                results = self.original.run([self.chosen_name], feeds)
            except ModelError as error:
                failure = failure or error
                continue
            if results[0].size:
                return feeds
        raise failure or ModelError("the output is empty for every size that was tried; give the shape of the inputs")


def _open_at(graph: ir.Graph, source: ir.Value) -> ir.Value:
    """Make a value inside the graph, or a weight, an input of it."""
    fed = ir.Value(name=source.name, shape=source.shape, type=source.type)
    ir.convenience.replace_all_uses_with(source, fed, replace_graph_outputs=True)
    if source.is_initializer():
        del graph.initializers[source.name or ""]
    else:
        source.name = f"{source.name}/computed"
    graph.inputs.append(fed)
    return fed


def _with_outputs(model: ir.Model, outputs: Sequence[ir.Value]) -> onnx.ModelProto:
    """A model with other outputs; ``model`` keeps all its nodes."""
    model.graph.outputs.clear()
    model.graph.outputs.extend(dict.fromkeys(outputs))
    copy = ir.from_proto(ir.to_proto(model))
    passes.RemoveUnusedNodesPass()(copy)
    return ir.to_proto(copy)


def _compare(
    run: _Run,
    feeds: dict[str, npt.NDArray],
    rng: np.random.Generator,
    of: str,
    target: str | int,
    directions: int,
) -> _Sample:
    """Directional derivatives of one batch by both ways.

    Raises:
        ModelError: a session fails, or a result is not finite or of the wrong shape.
    """
    base = run.base(feeds)
    scores = run.scores(feeds, base)
    if not np.isfinite(scores).all():
        raise ModelError("the scores are not finite on random input")
    classes = _classes(target, scores, rng)
    gradient = run.gradients(feeds, classes, base)
    if gradient.shape != base.shape or not np.isfinite(gradient).all():
        raise ModelError(f"the gradient, of shape {gradient.shape}, is not finite or does not fit {base.shape}")
    independent = _independent(run, feeds, base, scores, rng)

    def quantity(moved: npt.NDArray) -> npt.NDArray:
        values = _quantity(of, run.scores(feeds, moved), classes, target)
        return values if independent else values.sum(keepdims=True)

    def slope(moved: npt.NDArray) -> npt.NDArray:
        return run.gradients(feeds, classes, moved)

    magnitude = _magnitude(of, scores, quantity(base), target)
    options: dict[str, Any] = {"by_example": bool(independent), "magnitude": magnitude}
    found = [compare(quantity, slope, base, rng, **options) for _ in range(directions)]
    return _Sample(
        len(scores) if scores.ndim else 1,
        base.dtype,
        _forward_error(run, feeds, base),
        independent,
        np.concatenate([one.errors for one in found]),
        np.concatenate([one.unsettled for one in found]),
        np.concatenate([one.telling for one in found]),
    )


def _judge(samples: Sequence[_Sample], directions: int) -> SelfCheck:
    """The samples together, and the verdict."""
    errors = np.concatenate([sample.errors for sample in samples])
    telling = np.concatenate([sample.telling for sample in samples])
    kind = samples[0].dtype.name
    told = {sample.independent for sample in samples}
    median, forward = float(np.median(errors)), max(sample.forward_error for sample in samples)
    unsettled = float(np.median(np.concatenate([sample.unsettled for sample in samples])))
    tolerance = max(_TOLERANCE.get(kind, _ANY_TOLERANCE), unsettled)
    verdict, reason = "agrees", ""
    if forward > _FORWARD_TOLERANCE.get(kind, _ANY_FORWARD_TOLERANCE):
        verdict = "disagrees"
        reason = (
            "The graph that was prepared for differentiation computes something else than the model: its output "
            f"differs by {forward:.1e} of its largest number."
        )
    elif telling.mean() <= 0.5:
        verdict = "inconclusive"
        reason = "The scores hardly change along random directions, so that rounding hides what the gradient should be."
    elif unsettled > _MOST_UNSETTLED:
        verdict = "inconclusive"
        reason = "The gradient jumps so much along random directions that its integral cannot be told."
    elif not median <= tolerance:
        verdict = "disagrees"
        reason = (
            f"The gradient differs from finite differences by {median:.1e} in the median; {tolerance:g} is allowed."
        )
    return SelfCheck(
        verdict,
        reason,
        examples=sum(sample.examples for sample in samples),
        directions=directions,
        median_error=median,
        largest_error=float(errors.max()),
        tolerance=tolerance,
        forward_error=forward,
        independent=False if False in told else True if told == {True} else None,
    )


def _classes(target: str | int, scores: npt.NDArray, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Class of every example; that of ``"predicted"`` goes with the scores and is not read."""
    n = len(scores) if scores.ndim else 1
    if isinstance(target, int):
        return np.full(n, target, np.int64)
    return rng.integers(0, scores.shape[1], n) if scores.ndim == 2 else np.zeros(n, np.int64)


def _quantity(of: str, z: npt.NDArray, y: npt.NDArray, target: str | int) -> npt.NDArray:
    """What is differentiated, one number for each example, straight from its definition."""
    if of == OUTPUT and target == "sum":
        return z.reshape(len(z), -1).sum(1) if z.ndim else z.reshape(1)
    rows = np.arange(len(z))
    if target == "predicted":
        y = z.argmax(1)
    chosen = z[rows, y]
    if of in ("logit", OUTPUT):
        return chosen
    if of == "centred-logit":
        return chosen - z.mean(1)
    if of == "margin":
        others = z.copy()
        others[rows, y] = -np.inf
        return chosen - others.max(1)
    top = z.max(1)
    log_probability = chosen - top - np.log(np.exp(z - top[:, None]).sum(1))
    return {"loss": -log_probability, "probability": np.exp(log_probability)}.get(of, log_probability)


def _magnitude(of: str, z: npt.NDArray, value: npt.NDArray, target: str | int) -> npt.NDArray:
    """Size of the numbers whose rounding shows in what is differentiated, in the shape of ``value``."""
    rows = np.abs(z).reshape(len(z) if z.ndim else 1, -1)
    if of == OUTPUT:
        size = rows.sum(1) if target == "sum" or len(value) != len(rows) else np.abs(value)
    else:
        size = rows.max(1) * (value if of == "probability" and len(value) == len(rows) else 1.0)
    return size if len(value) == len(rows) else size.sum(keepdims=True)


def _forward_error(run: _Run, feeds: dict[str, npt.NDArray], base: npt.NDArray) -> float:
    """Output of the model itself beside that of the prepared graph."""
    own, again = (run.original.run([run.chosen_name], feeds)[0].astype(np.float64) for _ in range(2))
    if not np.array_equal(own, again, equal_nan=True):
        raise ModelError("the model gives another output each time it runs on the same input")
    prepared = run.scores(feeds, base, run.chosen_name)
    if own.shape != prepared.shape:
        return float("inf")
    return float(np.abs(own - prepared).max(initial=0.0) / max(np.abs(own).max(initial=0.0), 1e-30))


def _independent(
    run: _Run, feeds: dict[str, npt.NDArray], base: npt.NDArray, scores: npt.NDArray, rng: np.random.Generator
) -> bool | None:
    """Whether the first row of what is varied decides the first row of the scores and no other.

    None where that does not arise: a weight, or a first axis that is not the batch.
    """
    if run.is_weight or base.ndim == 0 or scores.ndim == 0 or len(base) != len(scores):
        return None
    if len(scores) == 1:
        return True
    moved = base.copy()
    moved[0] = rng.permutation(moved[0].reshape(-1)).reshape(moved[0].shape)
    after = run.scores(feeds, moved)
    rounding = 2000 * float(np.finfo(base.dtype).eps) * max(float(np.abs(scores).max()), 1e-30)
    return bool(np.abs(after[1:] - scores[1:]).max() <= rounding)
