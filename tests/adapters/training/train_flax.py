"""A training loop in Flax NNX; with a second folder, the weights that train_torch.py saved there as Flax networks."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from jax import numpy as jnp
from shared import STEPS, batches, digits, equal, finish, folder, options, whole

from vogcore_adapters.jax import CheckpointExporter
from vogcore_adapters.native_jax import input_gradients

LAYOUT = "nhw->nhwc"


class Network(nnx.Module):
    """That of torch_network.py, with the channels last."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.convolution = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, epsilon=1e-5, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.linear = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.convolution(x))))
        # jax2onnx traces max_pool with arguments by name only.
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2)).transpose(0, 3, 1, 2)
        return self.linear(x.reshape(x.shape[0], -1))


def gradients(model: Network, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d logit of the label / d input by the adapter, and by jax.grad of a copy in evaluation mode."""
    twin = nnx.merge(*nnx.split(model))
    twin.eval()
    by_hand = jax.grad(lambda inputs: jnp.take_along_axis(twin(inputs), y[:, None], 1).sum())(jnp.asarray(x))
    return whole(input_gradients(model, x, y, batch_size=64)), np.asarray(by_hand)


@nnx.jit
def update(model, optimizer, inputs, labels):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def train(export: bool) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    x, y = digits(LAYOUT)
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
    exporter = CheckpointExporter(folder() / "ckpts", x.shape[1:], **options(LAYOUT)) if export else None
    found = []
    for epoch in batches(x, y):
        for inputs, labels in epoch:
            update(model, optimizer, inputs, labels)
            if exporter and exporter.step(model):
                found.append(gradients(model, x, y))
        if exporter and exporter.end_epoch(model):
            found.append(gradients(model, x, y))
    assert not model.dropout.deterministic
    leaves = jax.tree.leaves(nnx.state(model))  # the counters and keys of the random streams among them
    raw = [jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v for v in leaves]
    return [np.asarray(leaf) for leaf in raw], found


def carry(source: Path) -> None:
    """Export the checkpoints of train_torch.py from Flax."""
    saved = np.load(source / "native.npz")
    exporter = CheckpointExporter(folder() / "carried", (8, 8, 1), **options(LAYOUT))
    for number, step in enumerate(STEPS):
        weights = {name: saved[f"{number}.{name}"] for name in NAMES}
        model = Network(nnx.Rngs(0))
        model.convolution.kernel[...] = weights["0.weight"].transpose(2, 3, 1, 0)
        model.convolution.bias[...] = weights["0.bias"]
        model.norm.scale[...], model.norm.bias[...] = weights["1.weight"], weights["1.bias"]
        model.norm.mean[...], model.norm.var[...] = weights["1.running_mean"], weights["1.running_var"]
        model.linear.kernel[...], model.linear.bias[...] = weights["6.weight"].T, weights["6.bias"]
        exporter.save(model, step)


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "6.weight", "6.bias"]
if len(sys.argv) > 2:
    carry(Path(sys.argv[2]))
else:
    plain, watched = train(False), train(True)
    finish(watched[1], equal(plain[0], watched[0]))
