"""Measures that the logits give for free."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["label_loss"]


def label_loss(logits: npt.NDArray, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Cross-entropy -log softmax(logits)[label] of every example (N,), in nats, in float64.

    Args:
        logits: (N, C).
        labels: class indices (N,), -1 for an example without a label, whose loss is NaN.
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(wide)), labels]
    result[labels < 0] = np.nan
    return result
