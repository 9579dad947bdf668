"""Operators that move, pick and resample numbers beside torch's own float64 gradients, ties included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.graph.models import DOUBLE, node, value
from vogcore.autodiff import vjp_model

RNG = np.random.default_rng(20220512)


class Pair(NamedTuple):
    """An operator and what torch calls it; inputs named in ``wrt`` are differentiated."""

    node: onnx.NodeProto
    torch: Callable[..., Any]
    inputs: dict[str, np.ndarray]
    wrt: tuple[str, ...] = ("x",)
    opset: int = 18


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def integers(high: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, high, shape)


def resized(**settings: Any) -> Callable[..., torch.Tensor]:
    return lambda x, **_: functional.interpolate(x, **settings)


IMAGE, ROWS = normal(1, 2, 5, 6), normal(3, 4, 5)
SIZES = {"x": IMAGE, "sizes": np.asarray([1, 2, 8, 9])}
HALF = {"x": IMAGE, "sizes": np.asarray([1, 2, 3, 4])}
GRID = {"x": normal(2, 3, 4, 5), "grid": RNG.uniform(-1.7, 1.7, (2, 3, 4, 2))}
AT, TIED = integers(4, 3, 4, 5), np.asarray([[1.0, 2.0, 2.0, 0.0], [3.0, 3.0, 3.0, 1.0]])

PAIRS: dict[str, Pair] = {
    "gather": Pair(
        node("GatherElements", "x i", "y", axis=1), lambda x, i: x.gather(1, i), {"x": ROWS, "i": AT},
    ),
    "index_select": Pair(
        node("Gather", "x i", "y", axis=2), lambda x, i: x.index_select(2, i), {"x": ROWS, "i": integers(5, 7)},
    ),
    "embedding": Pair(
        node("Gather", "x i", "y"), lambda x, i: functional.embedding(i, x),
        {"x": normal(6, 3), "i": integers(6, 2, 4)},
    ),
    "index": Pair(
        node("GatherND", "x i", "y"), lambda x, i: x[i[:, 0], i[:, 1]], {"x": ROWS, "i": integers(3, 6, 2)},
    ),
    "index_put": Pair(
        node("ScatterND", "x i u", "y"), lambda x, i, u: x.index_put((i[:, 0],), u),
        {"x": ROWS, "i": np.asarray([[2], [0]]), "u": normal(2, 4, 5)}, ("x", "u"),
    ),
    "index_put accumulate": Pair(
        node("ScatterND", "x i u", "y", reduction="add"), lambda x, i, u: x.index_put((i[:, 0],), u, accumulate=True),
        {"x": ROWS, "i": np.asarray([[2], [0], [2]]), "u": normal(3, 4, 5)}, ("x", "u"),
    ),
    "scatter": Pair(
        node("ScatterElements", "x i u", "y", axis=1), lambda x, i, u: x.scatter(1, i, u),
        {"x": ROWS, "i": np.argsort(normal(3, 4, 5), 1), "u": normal(3, 4, 5)}, ("x", "u"),
    ),
    "scatter_add": Pair(
        node("ScatterElements", "x i u", "y", axis=1, reduction="add"), lambda x, i, u: x.scatter_add(1, i, u),
        {"x": ROWS, "i": AT, "u": normal(3, 4, 5)}, ("x", "u"),
    ),
    **{
        f"scatter_reduce {ours}": Pair(
            node("ScatterElements", "x i u", "y", axis=1, reduction=ours),
            lambda x, i, u, theirs=theirs: x.scatter_reduce(1, i, u, theirs),
            {"x": np.round(normal(2, 3)), "i": integers(3, 2, 3), "u": np.round(normal(2, 3))}, ("x", "u"),
        )
        for ours, theirs in (("max", "amax"), ("min", "amin"))
    },
    "scatter_reduce mul": Pair(
        node("ScatterElements", "x i u", "y", axis=1, reduction="mul"),
        lambda x, i, u: x.scatter_reduce(1, i, u, "prod"),
        {"x": normal(2, 3), "i": integers(3, 2, 3), "u": normal(2, 3)}, ("x", "u"),
    ),
    "topk": Pair(
        node("TopK", "x k", "y i", axis=1), lambda x, k: x.topk(3, 1).values, {"x": ROWS, "k": np.asarray([3])},
    ),
    "masked rows": Pair(
        node("Compress", "x c", "y", axis=1), lambda x, c: x[:, c],
        {"x": ROWS, "c": np.asarray([True, False, True, True])},
    ),
    "cumsum": Pair(node("CumSum", "x a", "y"), lambda x, a: x.cumsum(1), {"x": ROWS, "a": np.asarray(1)}),
    "tril": Pair(node("Trilu", "x k", "y", upper=0), lambda x, k: x.tril(-1), {"x": ROWS, "k": np.asarray(-1)}),
    "flip": Pair(
        node("Slice", "x a b c d", "y"), lambda x, **_: x.flip(2),
        {"x": ROWS, "a": np.asarray([-1]), "b": np.asarray([-9]), "c": np.asarray([2]), "d": np.asarray([-1])},
    ),
    "pixel_shuffle": Pair(
        node("DepthToSpace", "x", "y", blocksize=2, mode="CRD"), lambda x: functional.pixel_shuffle(x, 2),
        {"x": normal(2, 8, 3, 2)},
    ),
    "fold": Pair(
        node("Col2Im", "x s k", "y", pads=[1, 1, 1, 1], strides=[2, 1]),
        lambda x, **_: functional.fold(x, (5, 4), (3, 2), padding=1, stride=(2, 1)),
        {"x": normal(2, 12, 15), "s": np.asarray([5, 4]), "k": np.asarray([3, 2])},
    ),
    **{
        f"pad {ours}": Pair(
            node("Pad", "x p", "y", mode=ours), lambda x, p, theirs=theirs: functional.pad(x, (2, 1, 1, 2), theirs),
            {"x": IMAGE, "p": np.asarray([0, 0, 1, 2, 0, 0, 2, 1])}, opset=19,
        )
        for ours, theirs in (("edge", "replicate"), ("reflect", "reflect"), ("wrap", "circular"))
    },
    "einsum": Pair(
        node("Einsum", "x w", "y", equation="bhid,bhjd->bhij"),
        lambda x, w: torch.einsum("bhid,bhjd->bhij", x, w),
        {"x": normal(2, 2, 3, 4), "w": normal(2, 2, 5, 4)}, ("x", "w"),
    ),
    "einsum diagonal": Pair(
        node("Einsum", "x w", "y", equation="...ii,ij->...j"),
        lambda x, w: torch.einsum("...ii,ij->...j", x, w), {"x": normal(2, 3, 3), "w": normal(3, 4)}, ("x", "w"),
    ),
    "amax with ties": Pair(
        node("ReduceMax", "x a", "y"), lambda x, a: x.amax(1, keepdim=True), {"x": TIED, "a": np.asarray([1])},
    ),
    "clamp": Pair(
        node("Clip", "x low high", "y"), lambda x, low, high: torch.clamp(x, low, high),
        {"x": TIED, "low": np.asarray(1.0), "high": np.asarray(2.0)}, ("x", "low", "high"),
    ),
    "nearest": Pair(
        node("Resize", "x _ _ sizes", "y", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        resized(size=(10, 12)), {"x": IMAGE, "sizes": np.asarray([1, 2, 10, 12])},
    ),
    "nearest, other sizes": Pair(
        node("Resize", "x _ _ sizes", "y", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        resized(size=(8, 9)), SIZES,
    ),
    "bilinear": Pair(node("Resize", "x _ _ sizes", "y", mode="linear"), resized(size=(8, 9), mode="bilinear"), SIZES),
    "bilinear, corners": Pair(
        node("Resize", "x _ _ sizes", "y", mode="linear", coordinate_transformation_mode="align_corners"),
        resized(size=(8, 9), mode="bilinear", align_corners=True), SIZES,
    ),
    "bicubic": Pair(
        node("Resize", "x _ _ sizes", "y", mode="cubic", cubic_coeff_a=-0.75),
        resized(size=(8, 9), mode="bicubic"), SIZES,
    ),
    "bilinear, antialias": Pair(
        node("Resize", "x _ _ sizes", "y", mode="linear", antialias=1, exclude_outside=1),
        resized(size=(3, 4), mode="bilinear", antialias=True), HALF,
    ),
    **{
        f"grid_sample {mode} {padding} {corners}": Pair(
            node("GridSample", "x grid", "y", mode=mode, padding_mode=padding, align_corners=int(corners)),
            lambda x, grid, a=(mode, padding, corners): functional.grid_sample(x, grid, *a), GRID, ("x", "grid"),
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (False, True)
    },
    "affine_grid": Pair(
        node("AffineGrid", "x s", "y"), lambda x, s: functional.affine_grid(x, [2, 3, 4, 5], False),
        {"x": normal(2, 2, 3), "s": np.asarray([2, 3, 4, 5])}, opset=20,
    ),
    "max_unpool": Pair(
        node("MaxUnpool", "x i", "y", kernel_shape=[2, 2], strides=[2, 2]),
        lambda x, i: functional.max_unpool2d(x, i, 2),
        {"x": normal(1, 1, 2, 2), "i": np.asarray([[[[0, 6], [9, 15]]]])},
    ),
    "conv_transpose": Pair(
        node("ConvTranspose", "x w b", "y", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1], group=2),
        lambda x, w, b: functional.conv_transpose2d(x, w, b, 2, 1, 1, 2),
        {"x": normal(2, 4, 3, 4), "w": normal(4, 3, 3, 3), "b": normal(6)}, ("x", "w", "b"),
    ),
}  # fmt: skip


def model(pair: Pair) -> onnx.ModelProto:
    inputs = [value(name, list(pair.inputs[name].shape), DOUBLE) for name in pair.wrt]
    weights = [numpy_helper.from_array(a, name) for name, a in pair.inputs.items() if name not in pair.wrt]
    graph = helper.make_graph([pair.node], "pair", inputs, [value("y", None, DOUBLE)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", pair.opset)], ir_version=9)


@pytest.mark.parametrize("name", PAIRS)
def test_gradient_is_the_one_of_torch(name: str) -> None:
    pair = PAIRS[name]
    tensors = {n: torch.tensor(a, requires_grad=n in pair.wrt) for n, a in pair.inputs.items()}
    y = pair.torch(**tensors)
    cotangent = np.random.default_rng(1).normal(size=tuple(y.shape))
    y.backward(torch.tensor(cotangent))
    feeds = {n: pair.inputs[n] for n in pair.wrt}
    got = evaluator(vjp_model(model(pair), pair.wrt)).run(None, {**feeds, "vogcore_cotangent": cotangent})
    np.testing.assert_allclose(got[0], y.detach().numpy(), rtol=1e-5, atol=1e-5)
    for n, product in zip(pair.wrt, got[1:], strict=True):
        gradient = tensors[n].grad
        # grid_sample to the nearest pixel says nothing about its grid.
        wanted = np.zeros(pair.inputs[n].shape) if gradient is None else gradient.numpy()
        np.testing.assert_allclose(product, wanted, rtol=1e-5, atol=1e-5)


HALF_PRECISION = ("gather", "index_select", "index", "topk", "pixel_shuffle", "pad edge", "tril", "flip", "masked rows")


@pytest.mark.parametrize("name", HALF_PRECISION)
def test_half_precision_runs_on_the_cpu(name: str) -> None:
    pair = PAIRS[name]
    whole = model(pair)
    for each in [*whole.graph.input, *whole.graph.output]:
        each.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    gradient = vjp_model(whole, ["x"])
    shape = evaluator(model(pair)).run(None, {"x": pair.inputs["x"]})[0].shape
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float16)
    got = session(gradient).run(None, {"x": pair.inputs["x"].astype(np.float16), "vogcore_cotangent": cotangent})[1]
    assert got.dtype == np.float16
    wide = {"x": pair.inputs["x"].astype(np.float16).astype(np.float64), "vogcore_cotangent": cotangent.astype(float)}
    np.testing.assert_allclose(got, evaluator(vjp_model(model(pair), ["x"])).run(None, wide)[1], rtol=5e-3, atol=5e-3)
