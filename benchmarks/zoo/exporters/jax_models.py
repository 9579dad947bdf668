"""Flax networks through jax2onnx; the truth is jax.grad in float64.

jax2onnx needs the package onnxruntime, which installs over onnxruntime-gpu: it lives in an environment of its own
(``make zoo``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.zoo.entry import Entry, Exported

__all__ = ["entries"]

CLASSES = 10


@dataclass(frozen=True)
class Network:
    """A network of this module: how to make it, and the shape of one example."""

    name: str
    make: Callable[[Any, Any], Any]
    shape: tuple[int, ...]
    opsets: tuple[int, ...] = (23,)
    golden: bool = False
    """The newest opset goes into a golden file."""


def entries(short: bool = False) -> list[Entry]:
    """One entry for each network and opset; only those of golden files if ``short``."""
    return [
        Entry(
            network.name, "jax", "jax2onnx", opset, lambda network=network, opset=opset: _build(network, opset, short)
        )
        for network in NETWORKS
        if network.golden or not short
        for opset in (network.opsets[-1:] if short else network.opsets)
    ]


def _build(network: Network, opset: int, short: bool) -> Exported:
    import jax
    import jax2onnx
    from flax import nnx
    from jax import numpy as jnp

    rngs = nnx.Rngs(4)
    module = network.make(nnx, rngs)
    generator = np.random.default_rng(4)
    graph, state = nnx.split(module)
    state = jax.tree.map(lambda leaf: _scrambled(leaf, generator), state)
    module = nnx.merge(graph, state)
    x = generator.standard_normal((4 if short else 16, *network.shape)).astype(np.float32)
    _settle_statistics(nnx, module, x)
    module.eval()
    model = jax2onnx.to_onnx(module, [("B", *network.shape)], opset=opset, input_names=["x"], output_names=["logits"])
    target = np.arange(len(x)) % CLASSES
    graph, state = nnx.split(module)

    def gradient(dtype: str) -> tuple[np.ndarray, np.ndarray]:
        cast = jax.tree.map(lambda v: v.astype(dtype) if jnp.issubdtype(v.dtype, jnp.floating) else v, state)

        def chosen(inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = nnx.merge(graph, cast)(inputs)
            return jnp.take_along_axis(logits, target[:, None], 1).sum(), logits

        result, logits = jax.grad(chosen, has_aux=True)(jnp.asarray(x, dtype))
        assert result.dtype == logits.dtype == dtype, (result.dtype, logits.dtype)
        return np.asarray(result), np.asarray(logits)

    own = None if short else gradient("float32")[0]
    with jax.enable_x64(True):
        exact, logits = gradient("float64")
    return Exported(
        model=model.SerializeToString(),
        feeds={"x": x},
        target=target,
        gradient=exact,
        logits=logits,
        own=own,
        reference="jax.grad, float64",
    )


def _scrambled(leaf: Any, generator: np.random.Generator) -> Any:
    """Vectors (scales, shifts) moved away from 0 and 1, where a mistake would not show."""
    if leaf.ndim != 1 or leaf.dtype != np.float32:
        return leaf
    return leaf + 0.1 * generator.standard_normal(leaf.shape).astype(np.float32)


def _settle_statistics(nnx: Any, module: Any, x: np.ndarray) -> None:
    """Running statistics of batch normalisation from a few batches."""
    if any(isinstance(part, nnx.BatchNorm) for _, part in nnx.iter_graph(module)):
        module.train()
        for _ in range(20):
            module(x)


def _mlp(nnx: Any, rngs: Any) -> Any:
    return nnx.Sequential(
        nnx.Linear(12, 32, rngs=rngs), nnx.relu, nnx.LayerNorm(32, rngs=rngs), nnx.Linear(32, 24, rngs=rngs), nnx.gelu,
        nnx.Linear(24, 16, rngs=rngs), nnx.silu, nnx.Linear(16, CLASSES, rngs=rngs),
    )  # fmt: skip


def _cnn(nnx: Any, rngs: Any) -> Any:
    def pooled(x: Any) -> Any:
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return nnx.avg_pool(x, window_shape=(3, 3), strides=(1, 1), padding="SAME")

    return nnx.Sequential(
        nnx.Conv(3, 8, (3, 3), rngs=rngs), nnx.BatchNorm(8, momentum=0.8, rngs=rngs), nnx.relu, pooled,
        nnx.Conv(8, 16, (3, 3), strides=2, padding="SAME", rngs=rngs), nnx.GroupNorm(16, num_groups=4, rngs=rngs),
        nnx.elu, lambda x: x.reshape(x.shape[0], -1), nnx.Linear(144, CLASSES, rngs=rngs),
    )  # fmt: skip


def _resnet(nnx: Any, rngs: Any) -> Any:
    class Block(nnx.Module):
        def __init__(self, cin: int, cout: int, strides: int) -> None:
            self.conv1 = nnx.Conv(cin, cout, (3, 3), strides=strides, use_bias=False, rngs=rngs)
            self.conv2 = nnx.Conv(cout, cout, (3, 3), use_bias=False, rngs=rngs)
            self.short = nnx.Conv(cin, cout, (1, 1), strides=strides, use_bias=False, rngs=rngs)
            self.norm1, self.norm2 = (nnx.BatchNorm(cout, momentum=0.8, rngs=rngs) for _ in range(2))

        def __call__(self, x: Any) -> Any:
            y = nnx.relu(self.norm1(self.conv1(x)))
            return nnx.relu(self.norm2(self.conv2(y)) + self.short(x))

    return nnx.Sequential(
        nnx.Conv(3, 16, (3, 3), rngs=rngs), nnx.relu, Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        lambda x: x.mean((1, 2)), nnx.Linear(64, CLASSES, rngs=rngs),
    )  # fmt: skip


def _transformer(nnx: Any, rngs: Any) -> Any:
    width = 16

    class Layer(nnx.Module):
        def __init__(self) -> None:
            self.norm1, self.norm2 = (nnx.LayerNorm(width, rngs=rngs) for _ in range(2))
            self.attention = nnx.MultiHeadAttention(
                num_heads=4, in_features=width, qkv_features=width, decode=False, rngs=rngs
            )
            self.up, self.down = nnx.Linear(width, 32, rngs=rngs), nnx.Linear(32, width, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = x + self.attention(self.norm1(x))
            return x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=False))

    return nnx.Sequential(
        nnx.Linear(12, width, rngs=rngs), Layer(), Layer(), lambda x: x.mean(1), nnx.Linear(width, CLASSES, rngs=rngs)
    )


def _recurrent(gated: bool) -> Callable[[Any, Any], Any]:
    """An LSTM, or a GRU, over jax.lax.scan: jax2onnx cannot trace the mutable cells of nnx.RNN."""

    def make(nnx: Any, rngs: Any) -> Any:
        from jax import lax, nn
        from jax import numpy as jnp

        width, gates = 16, 3 if gated else 4

        class Recurrent(nnx.Module):
            def __init__(self) -> None:
                self.into = nnx.Linear(8, gates * width, rngs=rngs)
                self.over = nnx.Linear(width, gates * width, rngs=rngs)

            def __call__(self, x: Any) -> Any:
                weight, bias = self.over.kernel[...], self.over.bias[...]

                def lstm(carry: Any, given: Any) -> Any:
                    hidden, cell = carry
                    i, f, g, o = jnp.split(given + hidden @ weight + bias, 4, -1)
                    cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
                    return (nn.sigmoid(o) * jnp.tanh(cell), cell), None

                def gru(carry: Any, given: Any) -> Any:
                    (hidden,) = carry
                    (r, z, n), (hr, hz, hn) = jnp.split(given, 3, -1), jnp.split(hidden @ weight + bias, 3, -1)
                    z = nn.sigmoid(z + hz)
                    return ((1 - z) * jnp.tanh(n + nn.sigmoid(r + hr) * hn) + z * hidden,), None

                start = jnp.zeros((x.shape[0], width), x.dtype)
                step, carry = (gru, (start,)) if gated else (lstm, (start, start))
                return lax.scan(step, carry, self.into(x).swapaxes(0, 1))[0][0]

        return nnx.Sequential(Recurrent(), nnx.Linear(width, CLASSES, rngs=rngs))

    return make


def _mixer(nnx: Any, rngs: Any) -> Any:
    class Mixer(nnx.Module):
        """Tolstikhin et al. 2021: linear layers over positions, then over channels."""

        def __init__(self) -> None:
            self.norm1, self.norm2 = (nnx.LayerNorm(24, rngs=rngs) for _ in range(2))
            self.tokens, self.channels = nnx.Linear(16, 16, rngs=rngs), nnx.Linear(24, 24, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = x + nnx.gelu(self.tokens(self.norm1(x).swapaxes(1, 2))).swapaxes(1, 2)
            return x + nnx.gelu(self.channels(self.norm2(x)))

    return nnx.Sequential(
        nnx.Conv(3, 24, (4, 4), strides=4, rngs=rngs), lambda x: x.reshape(x.shape[0], 16, 24), Mixer(), Mixer(),
        lambda x: x.mean(1), nnx.Linear(24, CLASSES, rngs=rngs),
    )  # fmt: skip


NETWORKS = [
    Network("MLP", _mlp, (12,), (18, 20, 23), golden=True),
    Network("CNN", _cnn, (12, 12, 3), (18, 23), golden=True),
    Network("ResNet", _resnet, (16, 16, 3)),
    Network("MLP-Mixer", _mixer, (16, 16, 3)),
    Network("Transformer", _transformer, (10, 12), (18, 23), golden=True),
    Network("LSTM (scan)", _recurrent(False), (6, 8), golden=True),
    Network("GRU (scan)", _recurrent(True), (6, 8), golden=True),
]
