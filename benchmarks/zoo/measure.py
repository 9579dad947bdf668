"""The gradient graph of an exported model in ONNX Runtime against the float64 gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime

from benchmarks.zoo.entry import Exported
from vogcore import gradient_model
from vogcore.graph.names import GRADIENT, TARGET

__all__ = ["Accuracy", "measure", "relative_errors"]


@dataclass(frozen=True)
class Accuracy:
    """Relative errors of the gradients, one for each example."""

    median: float
    p99: float
    examples: int
    logits: float | None
    """Largest error of a logit over the largest logit, where the logits are known."""


def relative_errors(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Norm of the difference over the norm of the true gradient, for each example; (N,) float64."""
    axes = tuple(range(1, expected.ndim))
    difference = np.sqrt(((got.astype(np.float64) - expected) ** 2).sum(axes))
    size = np.sqrt((expected**2).sum(axes))
    return np.divide(difference, size, out=np.where(difference == 0, 0.0, np.inf), where=size > 0)


def measure(exported: Exported) -> Accuracy:
    """Differentiate the model, run it, compare.

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
    return Accuracy(float(np.median(errors)), float(np.quantile(errors, 0.99)), len(errors), apart)


def _run(
    session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray], target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and gradient of all examples: at once, or one by one where the model's batch is fixed at 1."""
    known = {value.name for value in session.get_inputs()}
    feeds = {name: value for name, value in feeds.items() if name in known} | {TARGET: target}
    wanted = [next(v.name for v in session.get_outputs() if v.name != GRADIENT), GRADIENT]
    fixed = {value.shape[0] for value in session.get_inputs() if value.name != TARGET and value.shape}
    step = min((size for size in fixed if isinstance(size, int)), default=len(target))
    parts = [
        session.run(wanted, {name: value[start : start + step] for name, value in feeds.items()})
        for start in range(0, len(target), step)
    ]
    logits, gradients = zip(*parts)
    return np.concatenate(logits), np.concatenate(gradients)
