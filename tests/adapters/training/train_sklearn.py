"""A network of scikit-learn by partial_fit.

scikit-learn differentiates nothing with respect to the input. Central differences of its own forward pass in float64
stand for the native gradients, and the formula of the network for those by hand.
"""

from __future__ import annotations

import copy

import numpy as np
from shared import batches, digits, equal, finish, folder, options
from sklearn.neural_network import MLPClassifier

from vogcore_adapters.sklearn import CheckpointExporter

LAYOUT = "flatten"
STEP = 1e-6


def gradients(model: MLPClassifier, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d logit of the label / d input by differences, and of one hidden ReLU layer: W1 (1[h > 0] * W2[:, y])."""
    twin = copy.deepcopy(model)
    twin.out_activation_ = "identity"  # then predict_proba returns the logits
    twin.coefs_ = [weight.astype(np.float64) for weight in model.coefs_]
    twin.intercepts_ = [bias.astype(np.float64) for bias in model.intercepts_]
    x, rows = x.astype(np.float64), np.arange(len(x))
    slopes = np.empty_like(x)
    for feature, unit in enumerate(np.eye(x.shape[1]) * STEP):
        slopes[:, feature] = (twin.predict_proba(x + unit) - twin.predict_proba(x - unit))[rows, y] / (2 * STEP)
    into, out = twin.coefs_
    active = x @ into + twin.intercepts_[0] > 0
    formula = (active * out[:, y].T) @ into.T
    return slopes.astype(np.float32), formula.astype(np.float32)


def train(export: bool) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    x, y = digits(LAYOUT)
    model = MLPClassifier(24, random_state=0, learning_rate_init=0.01)
    exporter = CheckpointExporter(folder() / "ckpts", x[:1], **options(LAYOUT)) if export else None
    found = []
    for epoch in batches(x, y):
        for inputs, labels in epoch:
            model.partial_fit(inputs, labels, classes=np.arange(10))
            if exporter and exporter.step(model):
                found.append(gradients(model, x, y))
        if exporter and exporter.end_epoch(model):
            found.append(gradients(model, x, y))
    return [*model.coefs_, *model.intercepts_, model._random_state.get_state()[1]], found


plain, watched = train(False), train(True)
finish(watched[1], equal(plain[0], watched[0]))
