"""Input gradients of exported torch networks against float64 torch autograd."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from tests.autodiff.sessions import session
from vogcore.autodiff import OF, gradient_model

CLASSES = 5


class Residual(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(),
            nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Split(nn.Module):
    """Slices, concatenations, gathers and broadcasting on the path."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.scale = nn.Parameter(torch.randn(10, 1, 1))
        self.out = nn.Linear(10, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([self.a(x[:, :2]), self.b(x[:, 1:])], dim=1) * self.scale
        y = y.transpose(2, 3)[..., 1:-1].clamp(-1.5, 1.5)
        return self.out(y.mean((2, 3)) - y.amax((2, 3)) / 3 + y[:, :, 0, 0] ** 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, CLASSES)
        self.norm = nn.LayerNorm(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(1, 2) / 12**0.5, dim=-1)
        return self.out(nn.functional.gelu(weights @ v + x)[:, 0])


NETWORKS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, CLASSES)),
        (20,),
    ),
    "lenet": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(8 * 5 * 5, 24), nn.ReLU(), nn.Dropout(0.5), nn.Linear(24, CLASSES)),
        (1, 28, 28),
    ),
    "residual": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Residual(8, 12, 2),
            Residual(12, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)),
        (3, 17, 18),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish(), nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), nn.ReLU6(),
            nn.Conv2d(8, 12, 1, groups=4), nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.Flatten(),
            nn.LazyLinear(CLASSES)),
        (3, 20, 20),
    ),
    "activations": (
        lambda: nn.Sequential(
            nn.Linear(10, 16), nn.LeakyReLU(0.1), nn.Linear(16, 16), nn.ELU(), nn.Linear(16, 16), nn.PReLU(),
            nn.Linear(16, 16), nn.Softplus(), nn.Linear(16, 16), nn.SELU(), nn.Linear(16, 16), nn.Sigmoid(),
            nn.Linear(16, 16), nn.Mish(), nn.Linear(16, CLASSES)),
        (10,),
    ),
    "split": (Split, (3, 9, 9)),
    "attention": (Attention, (6, 12)),
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(7)
    make, shape = NETWORKS[name]
    network = make()
    x = torch.randn(24, *shape)
    network(x)  # running statistics of BatchNorm, sizes of lazy layers
    return network.eval(), x


def export(network: nn.Module, x: torch.Tensor, dynamo: bool) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(
                network, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
            return program.model_proto.SerializeToString()
        torch.onnx.export(
            network, (x,), buffer, dynamo=False, opset_version=17, input_names=["x"], output_names=["logits"],
            dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    return buffer.getvalue()


def autograd(network: nn.Module, x: torch.Tensor, target: torch.Tensor, of: str = "logit") -> np.ndarray:
    network, x = network.double(), x.double().requires_grad_()
    logits = network(x)
    rows = torch.arange(len(x))
    chosen = logits[rows, target]
    scalar = {
        "logit": lambda: chosen,
        "probability": lambda: logits.softmax(1)[rows, target],
        "log-probability": lambda: logits.log_softmax(1)[rows, target],
        "loss": lambda: nn.functional.cross_entropy(logits, target, reduction="none"),
        "margin": lambda: (
            chosen - logits.masked_fill(nn.functional.one_hot(target, CLASSES).bool(), -torch.inf).amax(1)
        ),
        "centred-logit": lambda: chosen - logits.mean(1),
    }[of]()
    (gradient,) = torch.autograd.grad(scalar.sum(), x)
    return gradient.numpy()


def run(model, x: torch.Tensor, target: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    runner = session(model)
    feeds = {runner.get_inputs()[0].name: x.numpy(), "vogcore_target": target.numpy()}
    assert [o.name for o in runner.get_outputs()][1] == "vogcore_gradient"
    return tuple(runner.run(None, feeds))


def relative_errors(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, got.ndim))
    return np.sqrt(((got - expected) ** 2).sum(axes) / (expected**2).sum(axes))


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_agrees_with_float64_autograd(name: str, dynamo: bool) -> None:
    network, x = build(name)
    target = torch.arange(len(x)) % CLASSES
    with torch.no_grad():
        expected_logits = network(x).numpy()
    logits, gradient = run(gradient_model(export(network, x, dynamo)), x, target)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
    errors = relative_errors(gradient, autograd(network, x, target))
    # A ReLU within rounding of zero may flip, in torch's own float32 too: quantiles, not the maximum.
    assert np.median(errors) <= 1e-5
    assert np.quantile(errors, 0.9) <= 1e-3


@pytest.mark.parametrize("of", OF)
def test_every_quantity_agrees_with_float64_autograd(of: str) -> None:
    network, x = build("mlp")
    target = torch.arange(len(x)) % CLASSES
    _, gradient = run(gradient_model(export(network, x, False), of=of), x, target)
    assert np.median(relative_errors(gradient, autograd(network, x, target, of))) <= 1e-5


def test_gradient_does_not_depend_on_the_batch() -> None:
    network, x = build("residual")
    target = torch.arange(len(x)) % CLASSES
    model = gradient_model(export(network, x, False))
    whole = run(model, x, target)[1]
    for size in (1, 5, 23):
        parts = [run(model, x[i : i + size], target[i : i + size])[1] for i in range(0, len(x), size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ending", [nn.Softmax(1), nn.LogSoftmax(1)], ids=["softmax", "logsoftmax"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
def test_trailing_softmax_is_looked_through(ending: nn.Module, dynamo: bool) -> None:
    network, x = build("mlp")
    target = torch.arange(len(x)) % CLASSES
    logits, gradient = run(gradient_model(export(nn.Sequential(network, ending), x, dynamo)), x, target)
    with torch.no_grad():
        np.testing.assert_allclose(logits, network(x).numpy(), rtol=1e-4, atol=1e-5)
    assert np.median(relative_errors(gradient, autograd(network, x, target))) <= 1e-5
