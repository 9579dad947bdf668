"""What the adapter for JAX promises, checked in the environment of JAX; run by tests/adapters/test_jax.py."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from flax import linen, nnx
from jax import lax, random
from jax import numpy as jnp
from shared import folder

from vogcore.errors import ModelError, SettingsError
from vogcore_adapters.jax import CheckpointExporter, to_onnx

GENERATOR = np.random.default_rng(0)


def run(model: onnx.ModelProto, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    x = GENERATOR.standard_normal((5, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return x, session.run(["logits"], {"input": x})[0]


def refused(kind: type[Exception], call, *words: str) -> None:
    message = None
    try:
        call()
    except kind as error:
        message = str(error)
    assert message is not None, f"{words} was not refused"
    assert all(word in message for word in words), message
    assert "\n" not in message


def pooling() -> None:
    """Windows over each kind of axes; those over images are what ONNX Runtime cannot run as they come."""
    for shape, window, strides, padding in [
        ((8, 8, 3), (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
        ((7, 9, 3), (1, 3, 2, 1), (1, 2, 1, 1), "SAME"),
        ((3, 8, 8), (1, 1, 2, 3), (1, 1, 2, 2), "VALID"),
        ((6, 6, 6, 2), (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "SAME"),
        ((9, 4), (1, 3, 1), (1, 2, 1), "SAME"),
    ]:

        def pooled(x, given=(window, strides, padding)):
            return lax.reduce_window(x, -jnp.inf, lax.max, *given)

        x, found = run(to_onnx(pooled, shape), shape)
        np.testing.assert_array_equal(found, pooled(x))


def modules_of_nnx() -> None:
    """Evaluation mode in the file; in the module nothing changes."""
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(6, 5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs))
    model.train()
    before = nnx.state(model)
    x, found = run(to_onnx(model, (6,)), (6,))
    assert not model.layers[1].deterministic
    assert not model.layers[2].use_running_average
    assert str(nnx.state(model)) == str(before)
    model.eval()
    np.testing.assert_allclose(found, model(x), rtol=1e-5, atol=1e-5)


def functions() -> None:
    """Linen, whose parameters are apart from the model."""
    network = linen.Sequential([linen.Dense(8), linen.tanh, linen.Dense(3)])
    params = network.init(random.key(0), jnp.ones((1, 4)))
    exporter = CheckpointExporter(folder() / "linen", (4,))
    for _ in range(2):
        exporter.step(lambda inputs: network.apply(params, inputs))
        path = exporter.end_epoch(lambda inputs: network.apply(params, inputs))
    x, found = run(onnx.load(path), (4,))
    np.testing.assert_allclose(found, network.apply(params, x), rtol=1e-5, atol=1e-6)


def mistakes() -> None:
    refused(SettingsError, lambda: to_onnx(lambda x: x, 3), "example_shape must be", "(28, 28, 1), not 3")
    refused(ModelError, lambda: to_onnx(lambda x: x @ jnp.ones((5, 2)), (4,)), "jax2onnx cannot export")


for check in (pooling, modules_of_nnx, functions, mistakes):
    check()
