"""Scores from the gradients of any framework: here a network in plain NumPy with a hand-written backward pass."""

import numpy as np

import vogcore

rng = np.random.default_rng(0)
labels = rng.integers(0, 3, 300)
x = rng.normal(size=(300, 10)) + np.eye(3, 10)[labels] * 2
w1, w2 = rng.normal(size=(10, 16)) / 4, rng.normal(size=(16, 3)) / 4

with vogcore.LiveScorer("live-scores", n_examples=300, shape=(10,), labels=labels, overwrite=True) as scorer:
    for epoch in range(30):
        hidden = np.tanh(x @ w1)
        logits = hidden @ w2
        if epoch % 5 == 0:
            # d logit[label] / d x: whatever computes it, as (position of the first example, gradients, logits).
            gradients = (w2.T[labels] * (1 - hidden**2)) @ w1.T
            scorer.add(f"epoch {epoch}", [(0, gradients, logits)], epoch=epoch)
        error = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels]) / len(x)
        w1, w2 = w1 - x.T @ (error @ w2.T * (1 - hidden**2)), w2 - hidden.T @ error
    scores = scorer.scores("live-scores.h5", overwrite=True)
print(scores.hardest(10), scores.direction.measured)
