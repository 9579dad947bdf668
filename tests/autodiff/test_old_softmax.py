"""Softmax below opset 13, which flattens its input to two axes at ``axis`` (1 by default)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.autodiff.sessions import session
from tests.graph.models import build, node, random, value
from vogcore.autodiff import gradient_model, vjp_model


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("opset", [7, 9, 11, 12])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_it_runs_over_everything_behind_the_axis(op: str, opset: int, axis: int | None) -> None:
    shape = (2, 3, 4, 5)
    rows = math.prod(shape[: 1 if axis is None else axis])
    x, cotangent = random(*shape), random(*shape, seed=1)
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    flat = tensor.reshape(rows, -1)
    expected = (flat.softmax(1) if op == "Softmax" else flat.log_softmax(1)).reshape(shape)
    expected.backward(torch.tensor(cotangent, dtype=torch.float64))
    for batch in ("N", 2):
        sizes = [batch, *shape[1:]]
        attributes = {} if axis is None else {"axis": axis}
        model = build(
            [node(op, "x", "y", **attributes)], [value("x", sizes)], [value("y", sizes)], opset=opset, ir_version=7
        )
        y, gradient = session(vjp_model(model, ["x"])).run(None, {"x": x, "vogcore_cotangent": cotangent})
        assert np.abs(y - expected.detach().numpy()).max() < 2e-6
        assert np.linalg.norm(gradient - tensor.grad.numpy()) < 2e-6 * np.linalg.norm(tensor.grad.numpy())


@pytest.mark.parametrize("opset", [9, 12, 13])
def test_logits_of_an_image_shaped_head_are_found_behind_it(opset: int) -> None:
    model = build(
        [node("Conv", "x w", "z"), node("Softmax", "z", "p", axis=1)],
        [value("x", ["N", 4, 1, 1])],
        [value("p", ["N", 3, 1, 1])],
        {"w": random(3, 4, 1, 1)},
        opset=opset,
        ir_version=7,
    )
    target = np.asarray([2, 0])
    x = random(2, 4, 1, 1)
    logits, gradient = session(gradient_model(model)).run(None, {"x": x, "vogcore_target": target})
    weights = random(3, 4, 1, 1)[:, :, 0, 0]
    assert np.allclose(logits, x[:, :, 0, 0] @ weights.T, atol=1e-5)
    assert np.allclose(gradient[:, :, 0, 0], weights[target], atol=1e-6)
