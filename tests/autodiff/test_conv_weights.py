"""The gradient of a convolution with respect to its weights, through ONNX Runtime against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.autodiff.sessions import session
from tests.graph.models import build, node, random, value
from vogcore.autodiff import vjp_model

SHAPES = {
    "plain": ((2, 3, 7, 6), (4, 3, 3, 3), {}),
    "pads": ((2, 3, 7, 6), (4, 3, 3, 2), {"padding": (1, 2)}),
    "strides left over": ((2, 3, 8, 7), (4, 3, 3, 3), {"stride": (2, 3)}),
    "dilations": ((2, 3, 9, 8), (4, 3, 3, 2), {"dilation": (2, 3), "stride": (1, 2), "padding": (1, 0)}),
    "groups": ((2, 6, 7, 6), (4, 3, 3, 3), {"groups": 2, "stride": (2, 2)}),
    "depthwise": ((3, 4, 6, 6), (4, 1, 3, 3), {"groups": 4, "padding": (1, 1)}),
    "one axis": ((2, 3, 9), (4, 3, 3), {"stride": (2,), "padding": (1,)}),
    "three axes": ((2, 2, 4, 5, 4), (3, 2, 2, 3, 2), {"stride": (1, 2, 1)}),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["known", "open"])
@pytest.mark.parametrize("name", SHAPES)
def test_weights_of_a_convolution(name: str, dynamic: bool) -> None:
    x_shape, w_shape, settings = SHAPES[name]
    n = len(w_shape) - 2
    stride, dilation = (settings.get(key, (1,) * n) for key in ("stride", "dilation"))
    padding, group = settings.get("padding", (0,) * n), settings.get("groups", 1)
    x, w = random(*x_shape), random(*w_shape, seed=1)
    tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (x, w)]
    y = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[n - 1](
        *tensors, **settings
    )
    cotangent = random(*y.shape, seed=2)
    (y * torch.tensor(cotangent)).sum().backward()
    attributes = {"strides": stride, "dilations": dilation, "pads": [*padding, *padding], "group": group}
    whole = build(
        [node("Conv", "x w", "y", **attributes)],
        [value("x", [f"x{a}" for a in range(n + 2)] if dynamic else x_shape), value("w", w_shape)],
        [value("y", [f"y{a}" for a in range(n + 2)] if dynamic else list(y.shape))],
    )
    results = session(vjp_model(whole, ["x", "w"])).run(None, {"x": x, "w": w, "vogcore_cotangent": cotangent})
    for got, tensor in zip(results[1:], tensors, strict=True):
        np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-4, atol=1e-4)
