"""What the rules of moving, picking and resampling operators do not cover is refused, with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.autodiff.sessions import session
from tests.graph.models import FLOAT, INT64, build, node, random, value
from vogcore.autodiff import vjp_model
from vogcore.errors import UnsupportedOpError, VogcoreError

ROIS = {"rois": np.asarray([[0, 0, 3, 3]], np.float32), "images": np.zeros(1, np.int64)}
REFUSED: dict[str, tuple[onnx.NodeProto, dict[str, Any], list[int], int, str]] = {
    "maximum of a region": (
        node("RoiAlign", "x rois images", "y", mode="max", sampling_ratio=2), ROIS, [1, 1, 4, 4], 18, "mode='max'",
    ),
    "as many samples as fit": (node("RoiAlign", "x rois images", "y"), ROIS, [1, 1, 4, 4], 18, "sampling_ratio"),
    "partial windows of a norm": (
        node("LpPool", "x", "y", kernel_shape=[2, 2], ceil_mode=1, strides=[2, 2]), {}, [1, 1, 5, 5], 18, "ceil_mode",
    ),
    "aspect ratio": (
        node("Resize", "x _ _ sizes", "y", keep_aspect_ratio_policy="not_larger", axes=[2, 3]),
        {"sizes": np.asarray([7, 9])}, [1, 1, 4, 4], 18, "keep_aspect_ratio_policy",
    ),
    "automatic padding and more": (
        node("ConvTranspose", "x w", "y", auto_pad="SAME_UPPER", output_padding=[1, 1], strides=[2, 2]),
        {"w": random(1, 1, 3, 3)}, [1, 1, 4, 4], 18, "disagree",
    ),
    "output shape of an open image": (
        node("ConvTranspose", "x w", "y", output_shape=[9, 9], strides=[2, 2]),
        {"w": random(1, 1, 3, 3)}, ["N", 1, "H", "W"], 18, "output_shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str) -> None:
    each, weights, shape, opset, reason = REFUSED[name]
    outputs = [value("y", [f"y{axis}" for axis in range(len(shape))])]
    with pytest.raises(UnsupportedOpError, match=reason) as caught:
        vjp_model(build([each], [value("x", shape)], outputs, weights, opset=opset), ["x"])
    assert caught.value.op == each.op_type


@pytest.mark.parametrize(("op", "inputs"), [("MaxRoiPool", "x rois"), ("DeformConv", "x w offset")])
def test_operators_without_a_rule_are_named(op: str, inputs: str) -> None:
    weights = {"rois": np.zeros((1, 5), np.float32), "w": random(1, 1, 1, 1), "offset": random(1, 2, 4, 4)}
    attributes = {"pooled_shape": [1, 1]} if op == "MaxRoiPool" else {}
    whole = build(
        [node(op, inputs, "y", **attributes)],
        [value("x", [1, 1, 4, 4])],
        [value("y", ["a", "b", "c", "d"])],
        {name: array for name, array in weights.items() if name in inputs},
        opset=19,
    )
    with pytest.raises(UnsupportedOpError, match=f"no gradient rule for {op}"):
        vjp_model(whole, ["x"])


def unpooled(shape: list[int]) -> onnx.ModelProto:
    each = node("MaxUnpool", "x places shape", "y", kernel_shape=[2, 2], strides=[2, 2])
    weights = {"places": np.asarray([[[[1, 2], [12, 11]]]]), "shape": np.asarray([1, 1, *shape])}
    return build([each], [value("x", [1, 1, 2, 2])], [value("y", [1, 1, *shape])], weights)


def test_unpooling_to_the_shape_that_its_indices_refer_to() -> None:
    cotangent = random(1, 1, 4, 4)
    feeds = {"x": random(1, 1, 2, 2, seed=1), "vogcore_cotangent": cotangent}
    gradient = session(vjp_model(unpooled([4, 4]), ["x"])).run(None, feeds)[1]
    np.testing.assert_array_equal(gradient.reshape(-1), cotangent.reshape(-1)[[1, 2, 12, 11]])
    with pytest.raises(UnsupportedOpError, match="output_shape"):
        vjp_model(unpooled([5, 5]), ["x"])


def test_old_resize_that_no_newer_one_rounds_like() -> None:
    scales = {"scales": np.asarray([1, 1, 2, 0.5], np.float32)}
    whole = build(
        [node("Resize", "x scales", "y", mode="nearest")],
        [value("x", [1, 1, 4, 4])],
        [value("y", [1, 1, 8, 2])],
        scales,
        opset=10,
        ir_version=5,
    )
    with pytest.raises(VogcoreError, match="opset 11 or newer"):
        vjp_model(whole, ["x"])


def test_reductions_of_a_scatter_in_half_precision() -> None:
    half = onnx.TensorProto.FLOAT16
    whole = build(
        [node("ScatterElements", "x i u", "y", reduction="max")],
        [value("x", [3], half)],
        [value("y", [3], half)],
        {"i": np.asarray([1]), "u": np.asarray([1], np.float16)},
    )
    with pytest.raises(UnsupportedOpError, match="half-precision"):
        vjp_model(whole, ["x"])


def test_indices_have_no_gradient() -> None:
    """A position that comes from the input through a Cast to an integer is a constant: the path ends there."""
    whole = build(
        [node("Cast", "x", "i", to=INT64), node("Gather", "w i", "g"), node("Mul", "g x", "y")],
        [value("x", [3], FLOAT)],
        [value("y", [3])],
        {"w": np.asarray([2.0, 3.0, 5.0], np.float32)},
    )
    feeds = {"x": np.asarray([0.1, 2.2, 1.3], np.float32), "vogcore_cotangent": np.ones(3, np.float32)}
    assert session(vjp_model(whole, ["x"])).run(None, feeds)[1].tolist() == [2.0, 5.0, 3.0]
