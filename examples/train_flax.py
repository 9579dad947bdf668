"""Checkpoints from a training loop in Flax: python examples/train_flax.py [folder]"""

import sys
from pathlib import Path

import numpy as np
import optax
from flax import nnx

from vogcore.data import Preprocess
from vogcore.demo.digits import CLASS_NAMES, load_digits
from vogcore_adapters.jax import CheckpointExporter

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-flax")
stored, labels = load_digits()  # (1797, 8, 8) uint8
preprocess = Preprocess(scale=1 / 16, layout="nhw->nhwc")
x = preprocess.apply(stored)

rngs = nnx.Rngs(0)
model = nnx.Sequential(
    nnx.Conv(1, 16, (3, 3), rngs=rngs), nnx.relu, nnx.Dropout(0.2, rngs=rngs), lambda h: h.reshape(h.shape[0], -1),
    nnx.Linear(1024, 10, rngs=rngs),
)  # fmt: skip
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)


@nnx.jit
def update(model, optimizer, x, y):
    loss = nnx.grad(lambda m: optax.softmax_cross_entropy_with_integer_labels(m(x), y).mean())
    optimizer.update(model, loss(model))


exporter = CheckpointExporter(folder / "ckpts", x.shape[1:], class_names=CLASS_NAMES, preprocess=preprocess)
for epoch in range(3):
    for rows in np.random.default_rng(epoch).permutation(len(x))[:1792].reshape(-1, 64):
        update(model, optimizer, x[rows], labels[rows])
        exporter.step(model)
    exporter.end_epoch(model)
print(exporter.report())

np.savez(folder / "train.npz", x=stored, y=labels)
print(f"vogcore score --checkpoints {folder}/ckpts --data {folder}/train.npz -o {folder}/scores.h5")
