"""Gradients averaged over their channels, inside the graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.autodiff.sessions import session
from tests.graph.models import build, node, random, value
from vogcore.autodiff import gradient_model
from vogcore.errors import SettingsError


def cnn(size: int | str = 12, group: int = 1, layout: str = "nchw", **attributes) -> onnx.ModelProto:
    """Optionally a Transpose, a convolution, Relu, mean over the image, Gemm."""
    attributes = {"pads": [1, 1, 1, 1], "group": group, **attributes}
    weights = {
        "k": random(6, 3 // group, 3, 3, seed=1), "w": random(6, 4, seed=2), "axes": np.asarray([2, 3], np.int64),
    }  # fmt: skip
    nodes = [
        node("Conv", "image k", "c", **attributes),
        node("Relu", "c", "r"),
        node("ReduceMean", "r axes", "m", keepdims=0),
        node("MatMul", "m w", "z"),
    ]
    shape = ["N", 3, size, size]
    if layout == "nhwc":
        nodes.insert(0, node("Transpose", "x", "image", perm=[0, 3, 1, 2]))
        shape = ["N", size, size, 3]
    else:
        nodes[0].input[0] = "x"
    return build(nodes, [value("x", shape)], [value("z", ["N", 4])], weights)


def gradient(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    target = np.arange(len(x)) % 4
    return session(model).run(["vogcore_gradient"], {"x": x, "vogcore_target": target})[0]


@pytest.mark.parametrize(
    ("model", "axis"),
    [
        (cnn(), 1),
        (cnn(strides=[2, 2]), 1),
        (cnn(13, strides=[2, 2]), 1),
        (cnn(strides=[3, 2], dilations=[2, 1]), 1),
        (cnn(group=3), 1),
        (cnn("S"), 1),
        (cnn("S", strides=[2, 2]), 1),
        (cnn(layout="nhwc"), 3),
    ],
    ids=["plain", "stride", "odd", "uneven", "groups", "open", "open stride", "channels last"],
)
def test_mean_is_that_of_the_whole_gradient(model: onnx.ModelProto, axis: int) -> None:
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value or 12
    x = random(5, *((3, size, size) if axis == 1 else (size, size, 3)), seed=4)
    whole = gradient(gradient_model(model), x)
    averaged_model = gradient_model(model, channels="mean")
    averaged = gradient(averaged_model, x)
    np.testing.assert_allclose(averaged, whole.mean(axis), rtol=1e-4, atol=1e-6 * np.abs(whole).max())
    assert {p.key: p.value for p in averaged_model.metadata_props}["vogcore.channels"] == "mean"
    declared = averaged_model.graph.output[1].type.tensor_type.shape.dim
    assert [d.dim_value for d in declared[1:]] == [s if isinstance(s, int) and "S" not in str(model) else d.dim_value
                                                   for s, d in zip(averaged.shape[1:], declared[1:])]  # fmt: skip


def test_image_that_is_used_twice() -> None:
    nodes = [
        node("Conv", "x k", "c", pads=[1, 1, 1, 1]),
        node("Add", "c x", "s"),
        node("Tanh", "s", "t"),
        node("Flatten", "t", "f"),
        node("MatMul", "f w", "z"),
    ]
    weights = {"k": random(3, 3, 3, 3, seed=1), "w": random(48, 4, seed=2)}
    model = build(nodes, [value("x", ["N", 3, 4, 4])], [value("z", ["N", 4])], weights)
    x = random(6, 3, 4, 4, seed=5)
    whole = gradient(gradient_model(model), x)
    np.testing.assert_allclose(gradient(gradient_model(model, channels="mean"), x), whole.mean(1), rtol=1e-4, atol=1e-6)


def test_another_axis_is_taken_when_named() -> None:
    model = cnn()
    x = random(5, 3, 12, 12, seed=4)
    whole = gradient(gradient_model(model), x)
    got = gradient(gradient_model(model, channels="mean", channel_axis=2), x)
    np.testing.assert_allclose(got, whole.mean(2), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": "l2"}, "channels='l2' is not known; choose one of none, mean"),
        ({"channels": "mean", "channel_axis": 0}, "channel_axis=0 is no channel axis of 'x', which has shape"),
        ({"channels": "mean", "channel_axis": 7}, "channel_axis=7 is no channel axis"),
    ],
)
def test_wrong_choices_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        gradient_model(cnn(), **settings)


def test_unclear_axis_is_refused() -> None:
    nodes = [node("MatMul", "x w", "z")]
    model = build(nodes, [value("x", ["N", 7])], [value("z", ["N", 4])], {"w": random(7, 4)})
    with pytest.raises(SettingsError, match=r"cannot be told from its shape \(N, 7\); give channel_axis"):
        gradient_model(model, channels="mean")
