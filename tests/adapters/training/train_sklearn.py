"""A network of scikit-learn by partial_fit; it has no differentiation, so the gradient is the formula in float64."""

from __future__ import annotations

import numpy as np
from shared import batches, digits, equal, finish, folder, options
from sklearn.neural_network import MLPClassifier

from vogcore_adapters.sklearn import CheckpointExporter

LAYOUT = "flatten"


def gradient(model: MLPClassifier, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """d logit of the label / d input of one hidden ReLU layer: W1 (1[h > 0] * W2[:, y])."""
    into, out = (weight.astype(np.float64) for weight in model.coefs_)
    active = x.astype(np.float64) @ into + model.intercepts_[0] > 0
    return ((active * out[:, y].T) @ into.T).astype(np.float32)


def train(export: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    x, y = digits(LAYOUT)
    model = MLPClassifier(24, random_state=0, learning_rate_init=0.01)
    exporter = CheckpointExporter(folder() / "ckpts", x[:1], **options(LAYOUT)) if export else None
    gradients: list[np.ndarray] = []
    for epoch in batches(x, y):
        for inputs, labels in epoch:
            model.partial_fit(inputs, labels, classes=np.arange(10))
            if exporter and exporter.step(model):
                gradients.append(gradient(model, x, y))
        if exporter and exporter.end_epoch(model):
            gradients.append(gradient(model, x, y))
    return [*model.coefs_, *model.intercepts_, model._random_state.get_state()[1]], gradients


plain, watched = train(False), train(True)
finish(watched[1], equal(plain[0], watched[0]))
