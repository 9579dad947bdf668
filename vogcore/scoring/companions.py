"""Measures that the logits give for free, beside VoG: what other methods train with hooks to collect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vogcore.store import Companion
from vogcore.store.schema import EASIER, HARDER

__all__ = ["LogitMeasures", "LogitNotes", "measure_logits"]

_DESCRIPTIONS = {
    "loss": (HARDER, "[0, inf), nats", "cross-entropy with the label at the last checkpoint"),
    "correct": (EASIER, "0 or 1", "whether the last checkpoint predicts the label (argmax of the logits)"),
    "entropy": (HARDER, "[0, log C], nats", "entropy of the softmax at the last checkpoint"),
    "confidence": (
        EASIER,
        "[0, 1]",
        "mean over the checkpoints of the label's probability (Swayamdipta et al. 2020, Dataset Cartography)",
    ),
    "variability": (
        HARDER,
        "[0, 0.5]",
        "standard deviation over the checkpoints of the label's probability (Swayamdipta et al. 2020)",
    ),
    "correctness": (EASIER, "[0, 1]", "share of the checkpoints that predict the label (Swayamdipta et al. 2020)"),
    "el2n": (
        HARDER,
        "[0, sqrt 2]",
        "mean over the checkpoints of |softmax - onehot(label)| (Paul et al. 2021, Deep Learning on a Data Diet)",
    ),
    "aum": (
        EASIER,
        "(-inf, inf)",
        "mean over the checkpoints of the label's logit less the largest other (Pleiss et al. 2020, Area Under the "
        "Margin)",
    ),
    "forgetting": (
        HARDER,
        "0 to {half}",
        "checkpoints that get wrong what the one before got right (Toneva et al. 2019); 0 also where none is right",
    ),
    "first_learned": (
        HARDER,
        "0 to {k}",
        "first checkpoint, from 0, that predicts the label, {k} where none does (Toneva et al. 2019, learning events)",
    ),
}
"""Which end is hard as the source claims, the range, and the source; in the order of a score file."""


@dataclass(frozen=True)
class LogitMeasures:
    """What the logits (n, C) of one checkpoint say about n examples; NaN where an example has no label.

    Attributes:
        predicted: (n,) int32, the class with the largest logit, the first of several.
        entropy: (n,) float64, -sum p log p of the softmax p, in nats.
        loss: (n,) float64, -log p[label], in nats; None without labels, like what follows.
        probability: (n,) float64, p[label].
        el2n: (n,) float64, Euclidean length of p - onehot(label) (Paul et al. 2021, Deep Learning on a Data Diet).
        margin: (n,) float64, logit of the label less the largest of the others (Pleiss et al. 2020, Identifying
            Mislabeled Data using the Area Under the Margin Ranking); NaN for a model with one logit.
    """

    predicted: npt.NDArray[np.int32]
    entropy: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64] | None = None
    probability: npt.NDArray[np.float64] | None = None
    el2n: npt.NDArray[np.float64] | None = None
    margin: npt.NDArray[np.float64] | None = None


def measure_logits(logits: npt.NDArray, labels: npt.NDArray[np.int64] | None) -> LogitMeasures:
    """Measures of one batch at one checkpoint, in float64.

    Args:
        logits: (n, C) finite floats of any width.
        labels: (n,) class indices, -1 for an example without one; None where there are none.
    """
    wide = logits.astype(np.float64)
    predicted = wide.argmax(axis=1).astype(np.int32)
    wide -= wide.max(axis=1, keepdims=True)
    p = np.exp(wide)
    total = p.sum(axis=1)
    p /= total[:, None]
    log_total = np.log(total)
    # -sum p (z - log total) = log total - sum p z; p is 0 where z is far below, and 0 * z is 0.
    entropy = np.maximum(log_total - np.einsum("nc,nc->n", p, wide), 0.0)
    if labels is None:
        return LogitMeasures(predicted, entropy)
    rows, none = np.arange(len(wide)), labels < 0
    own = wide[rows, labels]
    loss = log_total - own
    wide[rows, labels] = -np.inf
    margin = own - wide.max(axis=1) if wide.shape[1] > 1 else np.full(len(wide), np.nan)
    probability = np.exp(-loss)
    # |p - onehot|² = |p|² - 2 p_y + 1 cancels where the network is sure; p_y - 1 = expm1(-loss) does not.
    p[rows, labels] = np.expm1(-loss)
    el2n = np.sqrt(np.einsum("nc,nc->n", p, p))
    for values in (loss, probability, el2n, margin):
        values[none] = np.nan
    return LogitMeasures(predicted, entropy, loss, probability, el2n, margin)


class LogitNotes:
    """Measures of N examples over K checkpoints, filled batch by batch, every example's checkpoints in order.

    Args:
        k: number of checkpoints K.
        n: number of examples N.
        labels: (N,) class indices, -1 = none; None where there are none.

    Attributes:
        predicted: (K, N) int32 predicted class.
        entropy: (N,) float64 at the last checkpoint.
        loss: (N,) float64 at the last checkpoint, or None without labels, like what follows.
        probability: (K, N) float32 probability of the label.
        el2n: (N,) float64, summed over the checkpoints.
        margin: (N,) float64, summed over the checkpoints.
    """

    def __init__(self, k: int, n: int, labels: npt.NDArray[np.int64] | None) -> None:
        self._labels = labels
        self.predicted = np.empty((k, n), np.int32)
        self.entropy = np.full(n, np.nan)
        self.loss = self.el2n = self.margin = None
        self.probability: npt.NDArray[np.float32] | None = None
        if labels is not None:
            self.loss, self.el2n, self.margin = np.full((3, n), np.nan)
            self.probability = np.full((k, n), np.nan, np.float32)

    def arrays(self) -> dict[str, npt.NDArray]:
        """Everything noted, by name; the last axis runs over the examples."""
        names = ("predicted", "entropy", "loss", "probability", "el2n", "margin")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def note(self, checkpoint: int, start: int, logits: npt.NDArray) -> None:
        """Note the logits (b, C) of the examples from ``start`` on at a checkpoint."""
        rows = slice(start, start + len(logits))
        self.put(checkpoint, rows, measure_logits(logits, None if self._labels is None else self._labels[rows]))

    def put(self, checkpoint: int, rows: slice, found: LogitMeasures) -> None:
        """Note what was measured for some examples at a checkpoint."""
        self.predicted[checkpoint, rows] = found.predicted
        last = checkpoint == len(self.predicted) - 1
        if last:
            self.entropy[rows] = found.entropy
        if self.probability is None or found.loss is None:
            return
        self.probability[checkpoint, rows] = found.probability
        assert self.loss is not None
        if last:
            self.loss[rows] = found.loss
        for total, values in ((self.el2n, found.el2n), (self.margin, found.margin)):
            assert total is not None
            # Not added to zeros: a block that is scored again after an interruption begins anew.
            total[rows] = values if checkpoint == 0 else total[rows] + values

    def companions(self) -> dict[str, Companion]:
        """The companion metrics of a score file; without labels the entropy alone."""
        k = len(self.predicted)
        values: dict[str, npt.NDArray] = {"entropy": self.entropy}
        if self._labels is not None:
            values = self._labelled(self._labels) | values
        found = {}
        for name, (direction, bounds, source) in _DESCRIPTIONS.items():
            if name in values:
                bounds, source = bounds.format(k=k, half=k // 2), source.format(k=k)
                found[name] = Companion(values[name], direction, bounds, source)
        return found

    def _labelled(self, labels: npt.NDArray[np.int64]) -> dict[str, npt.NDArray]:
        assert self.probability is not None
        assert self.loss is not None
        assert self.el2n is not None
        assert self.margin is not None
        k, has_label = len(self.predicted), labels >= 0
        correct = [(row == labels) & has_label for row in self.predicted]
        confidence, variability = _mean_and_spread(self.probability)
        first, forgotten, times = _learning(correct)
        for values in (first, forgotten, times):
            values[~has_label] = np.nan
        found = {
            "loss": self.loss,
            "correct": correct[-1],
            "confidence": confidence,
            "variability": variability,
            "correctness": times / k,
            "el2n": self.el2n / k,
            "aum": self.margin / k,
            "forgetting": forgotten,
            "first_learned": first,
        }
        if has_label.any() and np.isnan(self.margin[has_label]).all():
            del found["aum"]  # a single logit has no other
        return found


def _mean_and_spread(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and population standard deviation (N,) over the rows of (K, N), a row at a time to spare memory."""
    mean = np.zeros(values.shape[1])
    for row in values:
        mean += row
    mean /= len(values)
    squares = np.zeros_like(mean)
    for row in values:
        squares += (row - mean) ** 2
    return mean, np.sqrt(squares / len(values))


def _learning(correct: list[npt.NDArray[np.bool_]]) -> tuple[npt.NDArray[np.float64], ...]:
    """First correct checkpoint (K where none is), how often right became wrong, and how many are right, each (N,)."""
    first = np.full(len(correct[0]), float(len(correct)))
    forgotten, times = np.zeros((2, len(correct[0])))
    before = np.zeros(len(correct[0]), dtype=bool)
    for index, now in enumerate(correct):
        first[now & (times == 0)] = index
        forgotten += before & ~now
        times += now
        before = now
    return first, forgotten, times
