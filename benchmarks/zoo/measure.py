"""The gradient graph of an exported model in ONNX Runtime against the float64 gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from benchmarks.zoo.entry import Exported
from vogcore import gradient_model
from vogcore.graph.names import GRADIENT, LOGITS_KEY, TARGET, WRT_KEY

__all__ = ["Accuracy", "measure", "relative_errors"]


@dataclass(frozen=True)
class Accuracy:
    """Relative errors of the gradients, one for each example."""

    median: float
    p99: float
    examples: int
    logits: float | None
    """Largest error of a logit over the largest logit, where the logits are known."""
    own: tuple[float, float] | None = None
    """Median and 99th percentile of the reference's own errors in the model's type, where they are known."""
    graph: float | None = None
    """Largest relative error of the gradient graph itself, computed in float64; None where that was not possible."""


def relative_errors(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Norm of the difference over the norm of the true gradient, for each example; (N,) float64."""
    axes = tuple(range(1, expected.ndim))
    difference = np.sqrt(((got.astype(np.float64) - expected) ** 2).sum(axes))
    size = np.sqrt((expected**2).sum(axes))
    return np.divide(difference, size, out=np.where(difference == 0, 0.0, np.inf), where=size > 0)


def measure(exported: Exported, *, in_float64: bool = True) -> Accuracy:
    """Differentiate the model, run it, compare.

    Args:
        exported: the model and the truth.
        in_float64: measure ``Accuracy.graph`` too, which takes longest.

    Raises:
        VogcoreError: the model is refused.
        AssertionError: the shape of the gradient is not that of the reference.
    """
    model = gradient_model(exported.model, wrt=exported.wrt, output=exported.output)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits, gradient = _run(session, exported.feeds, exported.target)
    assert gradient.shape == exported.gradient.shape, (gradient.shape, exported.gradient.shape)
    errors = relative_errors(gradient, exported.gradient)
    apart = None
    if exported.logits is not None:
        apart = float(abs(logits - exported.logits).max() / abs(exported.logits).max())
    own = None
    if exported.own is not None:
        rounding = relative_errors(exported.own, exported.gradient)
        own = float(np.median(rounding)), float(np.quantile(rounding, 0.99))
    graph = None
    if in_float64:
        with contextlib.suppress(NotImplementedError):
            graph = _graph_error(model, exported)
    return Accuracy(float(np.median(errors)), float(np.quantile(errors, 0.99)), len(errors), apart, own, graph)


def _graph_error(model: onnx.ModelProto, exported: Exported) -> float:
    from benchmarks.zoo.interpreter import gradient_graph_error  # needs torch, the rest does not

    known = {entry.key: entry.value for entry in model.metadata_props}
    feeds = {**exported.feeds, TARGET: exported.target}
    step = _batch((v.name, [d.dim_value or None for d in v.type.tensor_type.shape.dim]) for v in model.graph.input)
    parts = [
        gradient_graph_error(
            model,
            {name: value[start : start + (step or len(value))] for name, value in feeds.items()},
            known[WRT_KEY],
            known[LOGITS_KEY],
            GRADIENT,
            exported.target[start : start + (step or len(exported.target))],
        )
        for start in range(0, len(exported.target), step or len(exported.target))
    ]
    return float(np.concatenate(parts).max())


def _run(
    session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray], target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and gradient of all examples: at once, or one by one where the model's batch is fixed at 1."""
    known = {value.name for value in session.get_inputs()}
    feeds = {name: value for name, value in feeds.items() if name in known} | {TARGET: target}
    wanted = [next(v.name for v in session.get_outputs() if v.name != GRADIENT), GRADIENT]
    step = _batch((value.name, value.shape) for value in session.get_inputs()) or len(target)
    parts = [
        session.run(wanted, {name: value[start : start + step] for name, value in feeds.items()})
        for start in range(0, len(target), step)
    ]
    logits, gradients = zip(*parts)
    return np.concatenate(logits), np.concatenate(gradients)


def _batch(inputs: Iterable[tuple[str, Sequence[int | str | None]]]) -> int | None:
    """The batch size that a model is fixed to, if it is."""
    sizes = [shape[0] for name, shape in inputs if name != TARGET and shape]
    return min((size for size in sizes if isinstance(size, int)), default=None)
