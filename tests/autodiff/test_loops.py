"""Loops, branches and recurrent layers in ONNX Runtime, and against torch in float64."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch

from tests.autodiff.cases import CASES, Case
from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.autodiff.single import in_float32
from vogcore.autodiff import gradient_model, vjp_model

FAMILY = [case for case in CASES if case.op in ("If", "Loop", "Scan", "RNN", "GRU", "LSTM")]


def runs(case: Case) -> bool:
    """ONNX Runtime's CPU kernels have no layout 1, and RNN has only some of the activations."""
    usual = {"Tanh", "Sigmoid", "Relu"}
    return not case.attributes.get("layout") and (
        case.op != "RNN" or {*case.attributes.get("activations", [])} <= usual
    )


RUNNABLE = [case for case in FAMILY if runs(case)]


@pytest.mark.parametrize("case", RUNNABLE, ids=lambda case: case.id)
def test_onnx_runtime_agrees_with_the_reference(case: Case) -> None:
    gradient = vjp_model(case.model(), names := [f"in{i}" for i in case.wrt])
    feeds = {name: case.inputs[i] for name, i in zip(names, case.wrt, strict=True)}
    forward = evaluator(case.model()).run(None, feeds)[0]
    feeds["vogcore_cotangent"] = np.random.default_rng(2).normal(size=np.shape(forward))
    expected = evaluator(gradient).run(None, feeds)
    single = vjp_model(in_float32(case.model()), names)
    got = session(single).run(None, {name: value.astype(np.float32) for name, value in feeds.items()})
    for a, b in zip(got, expected, strict=True):
        scale = max(np.abs(b).max(), 1e-3)
        assert np.abs(a - b).max() < 2e-4 * scale


class Net(torch.nn.Module):
    """Embedding of numbers, a recurrent layer, and a head on the last step or on the mean."""

    def __init__(self, kind: str, head: str, **options: object) -> None:
        super().__init__()
        self.layer = getattr(torch.nn, kind)(5, 6, **options)
        self.fc = torch.nn.Linear(6 * (1 + bool(options.get("bidirectional"))), 4)
        self.head, self.batch_first = head, bool(options.get("batch_first"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, states = self.layer(x)
        if self.head == "states":
            last = states[0] + states[1] if isinstance(states, tuple) else states
            return self.fc(torch.cat([last[-2], last[-1]], 1) if self.layer.bidirectional else last[-1])
        y = y if self.batch_first else y.transpose(0, 1)
        return self.fc(y.mean(1) if self.head == "mean" else y[:, -1])


def exported(net: torch.nn.Module, x: torch.Tensor, dynamo: bool) -> onnx.ModelProto:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), file, dynamo=dynamo, input_names=["x"], output_names=["z"], verbose=False)
    return onnx.load_from_string(file.getvalue())


def agrees_with_torch(net: torch.nn.Module, x: torch.Tensor, batch_axis: int, dynamo: bool) -> onnx.ModelProto:
    net.eval()
    model = exported(net, x, dynamo)
    target = torch.arange(x.shape[batch_axis]) % 4
    got = session(gradient_model(model)).run(None, {"x": x.numpy(), "vogcore_target": target.numpy()})
    double = x.double().requires_grad_()
    logits = net.double()(double)
    (expected,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), double)
    for a, b in zip(got, (logits.detach(), expected), strict=True):
        assert np.abs(a - b.numpy()).max() < 1e-5 * max(1e-3, b.abs().max())
    return model


OPTIONS = {
    "one layer": {"batch_first": True},
    "time first": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "no bias": {"bias": False, "batch_first": True},
}


EXPORTS = [
    ("one layer", "last", False),
    ("one layer", "mean", False),
    ("time first", "states", False),
    ("two layers, both directions", "mean", False),
    ("two layers, both directions", "states", False),
    ("no bias", "last", False),
    ("one layer", "last", True),
    ("two layers, both directions", "states", True),
]


@pytest.mark.parametrize(("layers", "head", "dynamo"), EXPORTS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_classifiers_of_torch(kind: str, layers: str, head: str, dynamo: bool) -> None:
    torch.manual_seed(3)
    options = OPTIONS[layers]
    net = Net(kind, head, **options)
    model = agrees_with_torch(net, torch.randn(3, 7, 5), 0 if options.get("batch_first") else 1, dynamo)
    if kind != "RNN" or not dynamo:  # torch writes that one out step by step
        assert any(node.op_type == kind for node in model.graph.node)


class Branches(torch.nn.Module):
    """torch.cond on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        return h + torch.cond(x.sum() > 0, lambda h: torch.tanh(h) * h, lambda h: torch.exp(h), (h,))


@pytest.mark.parametrize("sign", [1, -1])
def test_cond_of_torch(sign: int) -> None:
    torch.manual_seed(4)
    x = torch.randn(3, 5).abs() * sign
    model = agrees_with_torch(Branches(), x, 0, dynamo=True)
    assert any(node.op_type == "If" for node in model.graph.node)
