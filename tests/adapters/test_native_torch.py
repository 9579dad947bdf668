"""Torch's own gradients: the same as by way of ONNX, in every sink, and the module undisturbed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import vogcore
from vogcore.errors import CheckpointError, DataError, GradientError, ModelError, SettingsError, VogcoreWarning
from vogcore.scoring.native import send, stream
from vogcore.store import CheckpointInfo, open_gradients
from vogcore_adapters.native_torch import checkpoint_gradients, input_gradients
from vogcore_adapters.torch import export_checkpoint

N, CLASSES, EPOCHS = 150, 3, 4


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.3),
        nn.Flatten(), nn.Linear(8 * 16, CLASSES),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, N)
    images = rng.normal(size=(N, 3, 8, 8)).astype(np.float32)
    images[:, 0] += 0.7 * labels[:, None, None]
    images.flags.writeable = False
    return images, labels


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """A folder with the state dicts and the ONNX checkpoints of a short training."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    images, labels = torch.tensor(data[0]), torch.tensor(data[1])
    for epoch in range(EPOCHS):
        model.train()
        for start in range(0, N, 30):
            optimiser.zero_grad()
            rows = slice(start, start + 30)
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
        torch.save({"state_dict": model.state_dict(), "epoch": epoch}, folder / f"ckpt-{epoch}.pt")
        export_checkpoint(model, images[:2], folder / f"ckpt-{epoch}.onnx", step=epoch)
    return folder


@pytest.fixture(scope="module")
def by_onnx(run, data, tmp_path_factory):
    kept = tmp_path_factory.mktemp("onnx") / "g.h5"
    scores = vogcore.score(str(run / "*.onnx"), data[0], data[1], keep_gradients=kept, provider="cpu")
    with open_gradients(kept) as archive:
        gradients = np.stack([archive.read(k, 0, N) for k in range(EPOCHS)])
    return scores, gradients


def states(run):
    return [run / f"ckpt-{epoch}.pt" for epoch in range(EPOCHS)]


def check(found: vogcore.Scores, wanted: vogcore.Scores) -> None:
    np.testing.assert_allclose(found.vog_raw, wanted.vog_raw, rtol=1e-4)
    np.testing.assert_allclose(found.vog, wanted.vog, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.predictions_class, wanted.predictions_class)
    np.testing.assert_allclose(found.companions["loss"].values, wanted.companions["loss"].values, rtol=1e-3, atol=1e-5)
    assert found.direction.measured == wanted.direction.measured
    assert found.direction.spearman_loss == pytest.approx(wanted.direction.spearman_loss, abs=1e-3)


def test_the_archive_is_that_of_the_onnx_route(run, data, by_onnx, tmp_path):
    scores, gradients = by_onnx
    with vogcore.GradientWriter(tmp_path / "g.h5", N, (3, 8, 8), labels=data[1]) as writer:
        send(checkpoint_gradients(network(), states(run), *data, batch_size=64), writer)
    with open_gradients(tmp_path / "g.h5") as archive:
        found = np.stack([archive.read(k, 0, N) for k in range(EPOCHS)])
        assert [len(info.sha256) for info in archive.checkpoints] == [64] * EPOCHS
    error = np.abs(found - gradients).max(axis=(2, 3, 4)) / np.abs(gradients).max(axis=(2, 3, 4))
    assert np.median(error) < 1e-5
    check(vogcore.score_gradients(tmp_path / "g.h5"), scores)


def test_a_stream_gives_the_whole_score_file(run, data, by_onnx):
    run_ = checkpoint_gradients(network(), states(run), *data, batch_size=64)
    check(vogcore.score_gradients(stream(run_), data[1]), by_onnx[0])


def test_a_live_run(run, data, by_onnx, tmp_path):
    with vogcore.LiveScorer(tmp_path / "live", N, (3, 8, 8), labels=data[1], shard_size=40) as live:
        send(checkpoint_gradients(network(), states(run)[:2], *data), live)
    with vogcore.LiveScorer.open(tmp_path / "live") as live:
        send(checkpoint_gradients(network(), states(run), *data), live)
        check(live.scores(), by_onnx[0])


def test_a_resumed_archive_computes_no_complete_checkpoint_again(run, data, tmp_path):
    computed = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def load_state_dict(self, state, *arguments, **options):
            computed.append(1)
            return self.network.load_state_dict(state)

        def forward(self, x):
            return self.network(x)

    def write(checkpoints):
        with vogcore.GradientWriter(tmp_path / "g.h5", N, (3, 8, 8), labels=data[1], resume=True) as writer:
            writer.set_checkpoints([CheckpointInfo(path.name) for path in states(run)])
            send(checkpoint_gradients(Counting(), [(path.name, lambda p=path: torch.load(p)["state_dict"])
                                                   for path in checkpoints], *data), writer)  # fmt: skip

    with pytest.raises(GradientError, match="not complete"):
        write(states(run)[:2])
    write(states(run))
    assert len(computed) == EPOCHS


def test_live_in_a_training_loop_that_is_not_disturbed(data, tmp_path):
    images, labels = torch.tensor(data[0]), torch.tensor(data[1])

    def train(after_epoch):
        torch.manual_seed(3)
        model = network()
        optimiser = torch.optim.SGD(model.parameters(), 0.05)
        for epoch in range(3):
            model.train()
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimiser.step()
            after_epoch(epoch, model)
        return model

    before = train(lambda epoch, model: None)
    with vogcore.LiveScorer(tmp_path / "live", N, (3, 8, 8), labels=labels) as live:
        after = train(
            lambda epoch, model: live.add(f"epoch {epoch}", input_gradients(model, images, labels), epoch=epoch)
        )
        assert live.scores().direction.n_examples == N
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


@pytest.mark.parametrize("of", ["logit", "probability", "log-probability", "loss", "margin", "centred-logit"])
def test_every_quantity_against_autograd_in_float64(data, of):
    torch.manual_seed(1)
    model = network().double().eval()
    x = torch.tensor(data[0][:20], dtype=torch.float64, requires_grad=True)
    y = torch.tensor(data[1][:20])
    z = model(x.clone())
    p, own = z.softmax(1), z.gather(1, y[:, None])
    scalar = {
        "logit": own, "probability": p.gather(1, y[:, None]), "log-probability": p.gather(1, y[:, None]).log(),
        "loss": -p.gather(1, y[:, None]).log(), "centred-logit": own - z.mean(1, keepdim=True),
        "margin": own - z.scatter(1, y[:, None], -torch.inf).max(1, keepdim=True).values,
    }[of]  # fmt: skip
    (wanted,) = torch.autograd.grad(scalar.sum(), x)
    for batch_size in (7, 20):
        blocks = list(input_gradients(model, data[0][:20], y, of=of, batch_size=batch_size))
        found = np.concatenate([gradients for _, gradients, _ in blocks])
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(np.concatenate([logits for *_, logits in blocks]), z.detach().numpy(), rtol=1e-9)


def test_the_module_is_as_it_was_between_batches(data):
    model = network()
    model[1].eval()  # a mixture, as in fine-tuning
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state, flags = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random = torch.get_rng_state()
    for _ in input_gradients(model, torch.tensor(data[0]), data[1], batch_size=50):
        assert [module.training for module in model.modules()] == flags
        assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "0.weight")


def test_tokens_with_respect_to_their_embedding():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(11, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, tokens):
            return (self.head(self.embedding(tokens).tanh().mean(1)),)

    torch.manual_seed(0)
    model, tokens = Classifier(), np.random.default_rng(0).integers(0, 11, (9, 5))
    ((_, found, _),) = input_gradients(model, tokens, 1, wrt="embedding")
    embedded = model.embedding(torch.tensor(tokens)).detach().requires_grad_()
    model.head(embedded.tanh().mean(1))[:, 1].sum().backward()
    np.testing.assert_allclose(found, embedded.grad.numpy(), rtol=1e-6)
    with pytest.raises(ModelError, match="have no gradient"):
        list(input_gradients(model, tokens, 1))
    with pytest.raises(ModelError, match="no submodule 'embed'"):
        list(input_gradients(model, tokens, 1, wrt="embed"))


class Wrong(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.function = forward

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.flatten(1).sum(1), r"must return logits \(batch, classes\), but it returned \(150,\)"),
        (lambda x: "text", "returned str"),
        (lambda x: torch.ones(len(x), 3), "do not depend on its input"),
        (lambda x: torch.ones(len(x), 3, requires_grad=True), "do not depend on its input"),
    ],
)
def test_a_module_that_cannot_be_used(data, function, message):
    with pytest.raises(ModelError, match=message):
        list(input_gradients(Wrong(function), *data))


def test_arguments_that_cannot_be_used(data):
    images, labels = data
    for options, error in (({"of": "entropy"}, SettingsError), ({"batch_size": 0}, SettingsError)):
        with pytest.raises(error):
            list(input_gradients(network(), images, labels, **options))
    for target in (labels[:-1], labels - 5, labels.astype(float), labels + 1):
        with pytest.raises(DataError):
            list(input_gradients(network(), images, target))
    with pytest.warns(VogcoreWarning, match="returns probabilities"):
        list(input_gradients(nn.Sequential(network(), nn.Softmax(1)), images, labels))


def test_checkpoints_that_cannot_be_loaded(run, data, tmp_path):
    (tmp_path / "text.pt").write_text("no state")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    for name, message in (("text.pt", "cannot be read as a state dict"), ("other.pt", "does not fit the module"),
                          ("none.pt", "cannot be read")):  # fmt: skip
        run_ = stream(checkpoint_gradients(network(), [tmp_path / name], *data))
        with pytest.raises(CheckpointError, match=message) as caught:
            list(run_)
        assert "\n" not in str(caught.value)
