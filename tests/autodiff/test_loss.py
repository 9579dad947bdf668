"""Losses, and activations with two inputs, in ONNX Runtime against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch.nn import functional

from tests.autodiff.sessions import session
from tests.graph.models import INT64, build, node, random, value
from vogcore.autodiff import gradient_model, vjp_model
from vogcore.autodiff.registry import NO_GRADIENT
from vogcore.errors import ModelError, UnsupportedOpError

REDUCTIONS = ("none", "sum", "mean")


def close(got: np.ndarray, wanted: np.ndarray, tolerance: float = 2e-6) -> None:
    assert np.linalg.norm(got - wanted) <= tolerance * max(np.linalg.norm(wanted), 1e-3)


@pytest.mark.parametrize("ignored", [None, 2, -100])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("places", [(), (3, 2)], ids=["rows", "images"])
@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_agrees_with_torch(
    op: str, places: tuple[int, ...], reduction: str, weighted: bool, ignored: int | None
) -> None:
    x, weights = random(6, 4, *places), 0.5 + random(4, seed=1) ** 2
    target = np.random.default_rng(2).integers(0, 4, (6, *places))
    if ignored is not None:
        target.flat[::3] = ignored
    settings = {} if ignored is None else {"ignore_index": ignored}
    tensor, scales = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, weights))
    inner = functional.log_softmax(tensor, dim=1) if op.startswith("Softmax") else tensor
    fixed = scales.detach() if weighted else None
    loss = functional.nll_loss(inner, torch.tensor(target), fixed, reduction=reduction, **settings)
    cotangent = random(*loss.shape, seed=3)
    loss.backward(torch.tensor(cotangent, dtype=torch.float64))
    shape = ["N", *places] if reduction == "none" else []
    model = build(
        [node(op, "x t w" if weighted else "x t", "y", reduction=reduction, **settings)],
        [value("x", ["N", 4, *places]), value("t", ["N", *places], INT64)],
        [value("y", shape)],
        {"w": weights} if weighted else {},
    )
    y, gradient = session(vjp_model(model, ["x"])).run(None, {"x": x, "t": target, "vogcore_cotangent": cotangent})
    close(y, loss.detach().numpy(), 5e-6)
    close(gradient, tensor.grad.numpy())


@pytest.mark.parametrize("used", ["loss", "log_prob", "both"])
def test_log_probabilities_that_the_model_uses_itself(used: str) -> None:
    x, target = random(6, 4), np.arange(6) % 4
    model = build(
        [
            node("SoftmaxCrossEntropyLoss", "x t", "loss log_prob", reduction="sum"),
            node("Tanh", "log_prob", "h"),
            *([node("Add", "loss h", "y")] if used == "both" else []),
            *([node("Identity", "loss" if used == "loss" else "h", "y")] if used != "both" else []),
        ],
        [value("x", ["N", 4]), value("t", ["N"], INT64)],
        [value("y", [] if used == "loss" else ["N", 4])],
    )
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    loss = functional.cross_entropy(tensor, torch.tensor(target), reduction="sum")
    h = functional.log_softmax(tensor, dim=1).tanh()
    result = {"loss": loss, "log_prob": h, "both": loss + h}[used]
    cotangent = random(*result.shape, seed=3)
    result.backward(torch.tensor(cotangent, dtype=torch.float64))
    got = session(vjp_model(model, ["x"])).run(None, {"x": x, "t": target, "vogcore_cotangent": cotangent})[1]
    close(got, tensor.grad.numpy())


def test_half_precision() -> None:
    x, target = random(300, 4).astype(np.float16), np.arange(300) % 4
    model = build(
        [node("SoftmaxCrossEntropyLoss", "x t", "y")],
        [value("x", ["N", 4], TensorProto.FLOAT16), value("t", ["N"], INT64)],
        [value("y", [], TensorProto.FLOAT16)],
    )
    tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
    functional.cross_entropy(tensor, torch.tensor(target)).backward()
    one = np.asarray(1, np.float16)
    got = session(vjp_model(model, ["x"])).run(None, {"x": x, "t": target, "vogcore_cotangent": one})[1]
    assert got.dtype == np.float16
    close(got, tensor.grad.numpy(), 3e-3)


def test_hard_shrink_and_remainder() -> None:
    x, b = 3 * random(40), 0.5 + random(40, seed=1) ** 2
    x[:2] = 0.75, -0.75  # the kinks
    nodes = [node("Shrink", "x", "s", lambd=0.75), node("Mod", "s b", "y", fmod=1)]
    model = build(nodes, [value("x", [40]), value("b", [40])], [value("y", [40])])
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, b)]
    cotangent = random(40, seed=2)
    shrunk = functional.hardshrink(tensors[0], 0.75)
    torch.fmod(shrunk, tensors[1]).backward(torch.tensor(cotangent, dtype=torch.float64))
    got = session(vjp_model(model, ["x", "b"])).run(None, {"x": x, "b": b, "vogcore_cotangent": cotangent})[1:]
    for result, tensor in zip(got, tensors, strict=True):
        close(result, tensor.grad.numpy())


def test_hardmax_has_no_gradient() -> None:
    model = build([node("Hardmax", "x", "y")], [value("x", ["N", 4])], [value("y", ["N", 4])])
    with pytest.raises(ModelError, match="does not depend on 'x'"):
        gradient_model(model)


@pytest.mark.parametrize(
    ("op", "inputs"), [("Range", "a b a"), ("Unique", "a")], ids=lambda value: value.replace(" ", "")
)
def test_operators_whose_numbers_come_from_the_input_are_not_flat(op: str, inputs: str) -> None:
    """Their output moves with a floating-point input, so that calling the derivative zero would be wrong."""
    assert op not in NO_GRADIENT
    shapes = {name: [] if op == "Range" else [4] for name in set(inputs.split())}
    model = build([node(op, inputs, "y")], [value(name, shape) for name, shape in shapes.items()], [value("y", ["N"])])
    with pytest.raises(UnsupportedOpError, match=f"no gradient rule for {op}"):
        vjp_model(model, ["a"])
