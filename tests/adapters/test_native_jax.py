"""Gradients by jax.vjp, against torch's for the same weights, and in every sink. Needs JAX (`make native`)."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX, which `make native` brings")

import jax.numpy as jnp  # noqa: E402

import vogcore  # noqa: E402
from vogcore.errors import DataError, ModelError, SettingsError, VogcoreWarning  # noqa: E402
from vogcore.scoring.native import send, stream  # noqa: E402
from vogcore.store import open_gradients  # noqa: E402
from vogcore_adapters.native_jax import checkpoint_gradients, input_gradients  # noqa: E402

N, CLASSES, CHECKPOINTS = 110, 3, 3


def apply(params, x):
    hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ params["w1"] + params["b1"])
    return hidden @ params["w2"]


def params(k: int) -> dict:
    rng = np.random.default_rng(k)
    shapes = {"w1": (12, 16), "b1": (16,), "w2": (16, CLASSES)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(9)
    return rng.normal(size=(N, 3, 2, 2)).astype(np.float32), rng.integers(0, CLASSES, N)


def by_torch(k: int, data, of: str = "logit"):
    """The same network in torch, by its own adapter, in float64."""
    torch = pytest.importorskip("torch")
    from vogcore_adapters import native_torch

    weights = {name: torch.tensor(value, dtype=torch.float64) for name, value in params(k).items()}
    first, second = torch.nn.Linear(12, 16), torch.nn.Linear(16, CLASSES, bias=False)
    model = torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.Tanh(), second).double()
    with torch.no_grad():
        first.weight.copy_(weights["w1"].T), first.bias.copy_(weights["b1"]), second.weight.copy_(weights["w2"].T)
    ((_, gradients, logits),) = native_torch.input_gradients(model, *data, of=of)
    return gradients, logits


@pytest.mark.parametrize("of", ["logit", "probability", "log-probability", "loss", "margin", "centred-logit"])
@pytest.mark.parametrize("batch_size", [50, 256])
def test_the_same_gradients_as_torch(data, of, batch_size):
    blocks = list(input_gradients(apply, *data, params=params(0), of=of, batch_size=batch_size))
    gradients, logits = (np.concatenate([block[i] for block in blocks]) for i in (1, 2))
    assert gradients.dtype == np.float32
    wanted, wanted_logits = by_torch(0, data, of)
    np.testing.assert_allclose(gradients, wanted, rtol=1e-3, atol=1e-5)
    assert np.median(np.abs(gradients - wanted)) < 1e-6
    np.testing.assert_allclose(logits, wanted_logits, rtol=1e-3, atol=1e-5)


def test_every_sink_gives_the_same_scores(data, tmp_path):
    wanted = vogcore.score_gradients(((k, 0, *by_torch(k, data)) for k in range(CHECKPOINTS)), data[1], channel_axis=1)

    def run():
        return checkpoint_gradients(apply, [(f"c{k}", lambda k=k: params(k)) for k in range(CHECKPOINTS)], *data)

    with vogcore.GradientWriter(tmp_path / "g.h5", N, (3, 2, 2), labels=data[1], channel_axis=1) as writer:
        send(run(), writer)
    with vogcore.LiveScorer(tmp_path / "live", N, (3, 2, 2), labels=data[1]) as live:
        send(run(), live)
        found = live.scores()
    for scores in (found, vogcore.score_gradients(tmp_path / "g.h5"), vogcore.score_gradients(stream(run()), data[1])):
        np.testing.assert_allclose(scores.vog_raw, wanted.vog_raw, rtol=1e-4)
        assert scores.direction.measured == wanted.direction.measured
        np.testing.assert_array_equal(scores.predictions_class, wanted.predictions_class)


def test_checkpoints_of_one_structure_are_compiled_once(data):
    traced = []

    def traced_apply(weights, x):
        traced.append(1)
        return apply(weights, x)

    list(stream(checkpoint_gradients(traced_apply, [(str(k), params(k)) for k in range(4)], *data, batch_size=50)))
    assert len(traced) == 1


def test_a_function_of_the_examples_alone(data):
    weights = params(1)
    ((_, gradients, _),) = input_gradients(lambda x: apply(weights, x), *data)
    ((_, wanted, _),) = input_gradients(apply, *data, params=weights)
    np.testing.assert_array_equal(gradients, wanted)


def test_a_flax_module_in_evaluation_mode_and_undisturbed(data):
    nnx = pytest.importorskip("flax.nnx")

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(12, 16, rngs=rngs)
            self.norm = nnx.BatchNorm(16, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.second = nnx.Linear(16, CLASSES, rngs=rngs)

        def __call__(self, x):
            x = jnp.tanh(self.norm(self.first(x.reshape(len(x), -1))))
            return self.second(self.dropout(x))

    model = Network(nnx.Rngs(0))
    model.train()
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    first, second = (list(input_gradients(model, *data, batch_size=40)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[1], other[1])
    after = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    assert model.dropout.deterministic is False
    x, step = data[0][:1].astype(np.float64), 1e-2
    model.eval()
    direction = np.random.default_rng(0).normal(size=x.shape)
    values = [model((x + s * step * direction).astype(np.float32))[0, data[1][0]] for s in (1, -1)]
    slope = float(values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(float((first[0][1][:1] * direction).sum()), rel=2e-2)


def test_what_cannot_be_used(data):
    images, labels = data
    with pytest.raises(ModelError, match=r"must return logits \(batch, classes\)"):
        list(input_gradients(lambda x: x.sum(), images, labels))
    with pytest.raises(ModelError, match="have no gradient"):
        list(input_gradients(lambda x: x, labels[:, None], labels))
    with pytest.raises(SettingsError):
        list(input_gradients(apply, images, labels, params=params(0), of="entropy"))
    with pytest.raises(DataError, match="has the target class 3"):
        list(input_gradients(apply, images, labels + 1, params=params(0)))
    with pytest.warns(VogcoreWarning, match="returns probabilities"):
        list(input_gradients(lambda x: jax.nn.softmax(apply(params(0), x)), images, labels))


def test_the_same_scores_as_by_way_of_onnx(data, tmp_path):
    jax2onnx = pytest.importorskip("jax2onnx")
    models = [jax2onnx.to_onnx(lambda x, k=k: apply(params(k), x), [("B", 3, 2, 2)]) for k in range(CHECKPOINTS)]
    wanted = vogcore.score(models, *data, keep_gradients=tmp_path / "g.h5", provider="cpu")
    run = list(checkpoint_gradients(apply, [(f"c{k}", params(k)) for k in range(CHECKPOINTS)], *data))
    with open_gradients(tmp_path / "g.h5") as archive:
        for k in range(CHECKPOINTS):
            ((_, gradients, _),) = input_gradients(apply, *data, params=params(k))
            kept = archive.read(k, 0, N)
            error = np.abs(gradients - kept).max(axis=(1, 2, 3)) / np.abs(kept).max(axis=(1, 2, 3))
            assert np.median(error) < 1e-4
    found = vogcore.score_gradients(stream(run), data[1])
    np.testing.assert_allclose(found.vog_raw, wanted.vog_raw, rtol=1e-4)
    assert found.direction.measured == wanted.direction.measured
