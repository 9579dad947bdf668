"""Strided convolutions of any geometry, backward, against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.autodiff.reference import evaluator
from tests.graph.models import DOUBLE, build, node, value
from vogcore.autodiff import vjp_model

small = st.integers(1, 3)


@st.composite
def convolutions(draw: st.DrawFn) -> dict:
    """Sizes and attributes of a convolution of one or two axes with at least one output position."""
    n = draw(st.integers(1, 2))
    per_axis = lambda strategy: draw(st.lists(strategy, min_size=n, max_size=n))  # noqa: E731
    case = {
        "size": per_axis(st.integers(1, 9)), "kernel": per_axis(st.integers(1, 4)), "strides": per_axis(small),
        "dilations": per_axis(st.integers(1, 2)),
        "begin": per_axis(st.integers(0, 3)), "end": per_axis(st.integers(0, 3)),
        "group": draw(st.integers(1, 2)), "per_group": draw(st.sampled_from([1, 3, 9])),
        "seed": draw(st.integers(0, 99)),
    }  # fmt: skip
    for size, kernel, dilation, begin, end in zip(*(case[k] for k in ("size", "kernel", "dilations", "begin", "end"))):
        assume(size + begin + end >= (kernel - 1) * dilation + 1)
    return case


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_any_geometry(case: dict) -> None:
    rng = np.random.default_rng(case["seed"])
    group, channels = case["group"], case["group"] * case["per_group"]
    weight = rng.normal(size=(2 * group, case["per_group"], *case["kernel"]))
    x = rng.normal(size=(2, channels, *case["size"]))
    attributes = {
        "strides": case["strides"], "dilations": case["dilations"], "group": group,
        "pads": [*case["begin"], *case["end"]],
    }  # fmt: skip
    model = build(
        [node("Conv", "x w", "y", **attributes)],
        [value("x", ["N", *x.shape[1:]], DOUBLE)],
        [value("y", [None] * x.ndim, DOUBLE)],
        {"w": weight},
    )
    tensor = torch.tensor(x, requires_grad=True)
    edges = [side for pair in reversed(list(zip(case["begin"], case["end"]))) for side in pair]
    convolve = functional.conv1d if len(case["size"]) == 1 else functional.conv2d
    y = convolve(
        functional.pad(tensor, edges), torch.tensor(weight), None, tuple(case["strides"]), 0,
        tuple(case["dilations"]), group,
    )  # fmt: skip
    cotangent = rng.normal(size=tuple(y.shape))
    (expected,) = torch.autograd.grad(y, tensor, torch.tensor(cotangent))
    for lowering in ("cpu", "cuda"):
        gradient = vjp_model(model, ["x"], lowering=lowering)
        got = evaluator(gradient).run(None, {"x": x, "vogcore_cotangent": cotangent})[1]
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-9, atol=1e-9)


def test_residual_block_adds_its_shortcut_before_the_phases_are_joined() -> None:
    """The 3x3 and the 1x1 convolution with stride 2 share the phases: they are put together once."""
    rng = np.random.default_rng(3)
    weights = {"w": rng.normal(size=(16, 16, 3, 3)), "s": rng.normal(size=(16, 16, 1, 1))}
    nodes = [
        node("Conv", "x w", "a", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", "x s", "b", strides=[2, 2]),
        node("Add", "a b", "y"),
    ]
    shapes = [value("x", ["N", 16, 8, 8], DOUBLE)], [value("y", ["N", 16, 4, 4], DOUBLE)]
    gradient = vjp_model(build(nodes, *shapes, weights), ["x"])
    operators = [n.op_type for n in gradient.graph.node]
    assert "ConvTranspose" not in operators
    assert (operators.count("MatMul"), operators.count("Concat")) == (1, 1)


@pytest.mark.parametrize("lowering", ["cpu", "cuda"])
def test_cuda_keeps_the_transposed_convolution(lowering: str) -> None:
    nodes = [node("Conv", "x w", "y", strides=[2, 2])]
    model = build(
        nodes, [value("x", ["N", 3, 9, 9], DOUBLE)], [value("y", ["N", 4, 4, 4], DOUBLE)], {"w": np.ones((4, 3, 3, 3))}
    )
    operators = {n.op_type for n in vjp_model(model, ["x"], lowering=lowering).graph.node}
    assert ("ConvTranspose" in operators) == (lowering == "cuda")
