"""Attention in ONNX Runtime and with the formulation for CUDA; and against torch in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch.nn.functional import scaled_dot_product_attention

from tests.autodiff.cases import CASES, Case
from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.autodiff.test_rules import directional_difference
from tests.graph.models import FLOAT, build, node, random, value
from vogcore.autodiff import vjp_model
from vogcore.errors import UnsupportedOpError

LOWERINGS = ("cpu", "cuda")
ATTENTION = [case for case in CASES if case.op == "Attention"]


def single(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in float32."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ir_version = 11
    for item in (*result.graph.input, *result.graph.output):
        if item.type.tensor_type.elem_type == TensorProto.DOUBLE:
            item.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    return result


@pytest.mark.parametrize("case", ATTENTION, ids=lambda case: case.id)
def test_probabilities_computed_anew_agree_with_central_differences(case: Case) -> None:
    names, feeds = [f"in{i}" for i in case.wrt], {f"in{i}": case.inputs[i] for i in case.wrt}
    gradient = vjp_model(case.model(), names, lowering="cuda")
    onnx.checker.check_model(gradient)
    directions, cotangent, expected = directional_difference(case.model(), feeds, names, np.random.default_rng(1))
    results = evaluator(gradient).run(None, {**feeds, "vogcore_cotangent": cotangent})[1:]
    products = [result * directions[name] for name, result in zip(names, results, strict=True)]
    scale = sum(float(np.abs(product).sum()) for product in products)
    got = sum(float(product.sum()) for product in products)
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-6 * max(scale, 1e-3))


def runs_in_onnx_runtime(case: Case) -> bool:
    """False for what ONNX Runtime (1.31) itself does not run, or ONNX infers a wrong shape for."""
    mask = case.inputs[3] if len(case.inputs) > 3 else None
    narrow = mask is not None and mask.shape[-2:] != (3, 4)  # it wants masks of full size
    windows = "left_window_size" in case.attributes
    return not (narrow or windows or (case.dynamic and case.inputs[0].ndim == 3))


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("case", [case for case in ATTENTION if runs_in_onnx_runtime(case)], ids=lambda case: case.id)
def test_runtime_agrees_with_float64(case: Case, lowering: str) -> None:
    names, feeds = [f"in{i}" for i in case.wrt], {f"in{i}": case.inputs[i] for i in case.wrt}
    model = case.model()
    cotangent = np.random.default_rng(2).normal(size=evaluator(model).run(None, feeds)[0].shape)
    expected = evaluator(vjp_model(model, names)).run(None, {**feeds, "vogcore_cotangent": cotangent})
    narrow = {name: array.astype(np.float32) for name, array in {**feeds, "vogcore_cotangent": cotangent}.items()}
    got = session(vjp_model(single(model), names, lowering=lowering)).run(None, narrow)
    for result, wanted in zip(got, expected, strict=True):
        assert np.linalg.norm(result - wanted) <= 3e-6 * np.linalg.norm(wanted)


SHAPES = {"equal heads": (4, 4), "shared heads": (4, 2), "one key head": (3, 1)}


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("mask", ["none", "causal", "boolean", "added"])
@pytest.mark.parametrize("flat", [False, True], ids=["4-D", "3-D"])
@pytest.mark.parametrize("heads", SHAPES)
def test_agrees_with_torch(heads: str, flat: bool, mask: str, lowering: str) -> None:
    queries, keys = SHAPES[heads]
    batch, length, width = 2, 5, 8
    arrays = [random(batch, h, length, width, seed=i) for i, h in enumerate((queries, keys, keys))]
    allowed = random(batch, 1, length, length, seed=7) > -0.5
    allowed[..., 0] = True  # torch has no rule for a query that may look at nothing
    bias = random(length, length, seed=8)
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    added = torch.tensor(bias, dtype=torch.float64, requires_grad=True)
    given = {"boolean": torch.tensor(allowed), "added": added}.get(mask)
    expected = scaled_dot_product_attention(*tensors, given, is_causal=mask == "causal", enable_gqa=True, scale=0.3)
    cotangent = random(*expected.shape, seed=9)
    expected.backward(torch.tensor(cotangent, dtype=torch.float64))
    wanted = [tensor.grad.numpy() for tensor in tensors]

    def laid_out(array: np.ndarray) -> np.ndarray:
        return array.transpose(0, 2, 1, 3).reshape(batch, length, -1) if flat else array

    feeds = {name: laid_out(array) for name, array in zip("qkv", arrays, strict=True)}
    attributes = {"q_num_heads": queries, "kv_num_heads": keys} if flat else {}
    inputs = [value(name, ["N", *array.shape[1:]]) for name, array in feeds.items()]
    weights, names = {}, ["q", "k", "v"]
    if mask == "boolean":
        weights["m"] = allowed
    if mask == "added":
        inputs.append(value("m", [length, length]))
        feeds["m"] = bias
        names.append("m")
        wanted.append(added.grad.numpy())
    model = build(
        [node("Attention", "q k v m" if mask in ("boolean", "added") else "q k v", "y", scale=0.3,
              is_causal=int(mask == "causal"), **attributes)],
        inputs, [value("y", ["N", *feeds["q"].shape[1:]])], weights, opset=23, ir_version=11,
    )  # fmt: skip
    runner = session(vjp_model(model, names, lowering=lowering))
    y, *gradients = runner.run(None, {**feeds, "vogcore_cotangent": laid_out(cotangent)})
    wanted[:3] = [laid_out(array) for array in wanted[:3]]
    for result, right in zip([y, *gradients], [laid_out(expected.detach().numpy()), *wanted], strict=True):
        assert np.linalg.norm(result - right) <= 2e-6 * np.linalg.norm(right)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("settings", [{}, {"is_causal": 1}, {"softcap": 3.0}], ids=str)
def test_half_precision(settings: dict, lowering: str) -> None:
    arrays = [random(2, 3, 6, 8, seed=i) for i in range(4)]
    half = [value(name, [2, 3, 6, 8], TensorProto.FLOAT16) for name in "qkvy"]
    full = [value(name, [2, 3, 6, 8]) for name in "qkvy"]
    results = []
    for values, dtype in ((half, np.float16), (full, np.float32)):
        model = build([node("Attention", "q k v", "y", **settings)], values[:3], values[3:], opset=23, ir_version=11)
        feeds = dict(zip([*"qkv", "vogcore_cotangent"], (array.astype(dtype) for array in arrays), strict=True))
        results.append(session(vjp_model(model, [*"qkv"], lowering=lowering)).run(None, feeds))
    for narrow, wide in zip(*results, strict=True):
        assert narrow.dtype == np.float16
        assert np.linalg.norm(narrow - wide) <= 3e-3 * np.linalg.norm(wide)


def test_forward_node_hands_out_its_probabilities() -> None:
    inputs = [value(name, ["N", 2, 5, 4]) for name in "qkv"]
    model = build([node("Attention", "q k v", "y")], inputs, [value("y", ["N", 2, 5, 4])], opset=23, ir_version=11)
    for lowering, count in (("cpu", 0), ("cuda", 1)):
        ops = [n.op_type for n in vjp_model(model, [*"qkv"], lowering=lowering).graph.node]
        assert (ops.count("Attention"), ops.count("Softmax")) == (1, count)


def test_cached_keys_on_the_path() -> None:
    """The output present_key is used as well: its cotangent reaches the new and the old keys."""
    shapes = {"q": [2, 2, 3, 4], "k": [2, 2, 3, 4], "v": [2, 2, 3, 4], "pk": [2, 2, 2, 4], "pv": [2, 2, 2, 4]}
    model = build(
        [
            node("Attention", "q k v _ pk pv", "y present_k present_v"),
            node("Tanh", "present_k", "t", name="tanh"),
            node("ReduceSum", "t", "s", keepdims=0),
            node("Add", "y s", "z"),
        ],
        [value(name, shape) for name, shape in shapes.items()],
        [value("z", shapes["q"])],
        opset=23,
        ir_version=11,
    )
    arrays = {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    tensors = {name: torch.tensor(a, dtype=torch.float64, requires_grad=True) for name, a in arrays.items()}
    keys, values = (torch.cat([tensors["p" + name], tensors[name]], dim=2) for name in "kv")
    z = scaled_dot_product_attention(tensors["q"], keys, values) + torch.tanh(keys).sum()
    cotangent = random(*z.shape, seed=9)
    z.backward(torch.tensor(cotangent, dtype=torch.float64))
    got = session(vjp_model(model, list(shapes))).run(None, {**arrays, "vogcore_cotangent": cotangent})[1:]
    for name, result in zip(shapes, got, strict=True):
        wanted = tensors[name].grad.numpy()
        assert np.linalg.norm(result - wanted) <= 2e-6 * np.linalg.norm(wanted)


def test_scores_on_the_path_are_refused() -> None:
    model = build(
        [node("Attention", "q k v", "y a b s"), node("MatMul", "s y", "z")],
        [value(name, [2, 2, 3, 3]) for name in "qkv"],
        [value("z", [2, 2, 3, 3])],
        opset=23,
        ir_version=11,
    )
    with pytest.raises(UnsupportedOpError, match="qk_matmul_output"):
        vjp_model(model, ["q"])


def test_rotation_that_depends_on_the_input_is_refused() -> None:
    model = build(
        [node("RotaryEmbedding", "x c s", "y")],
        [value("x", [2, 2, 3, 4]), value("c", [2, 3, 2], FLOAT), value("s", [2, 3, 2])],
        [value("y", [2, 2, 3, 4])],
        opset=23,
        ir_version=11,
    )
    with pytest.raises(UnsupportedOpError, match="cos_cache"):
        vjp_model(model, ["x", "c"])
    onnx.checker.check_model(vjp_model(model, ["x"]))


def test_rotation_runs_in_onnx_runtime() -> None:
    x, angle = random(2, 2, 3, 4), random(2, 3, 2, seed=1)
    weights = {"c": np.cos(angle), "s": np.sin(angle)}
    model = build(
        [node("RotaryEmbedding", "x c s", "y")],
        [value("x", ["N", 2, 3, 4])],
        [value("y", ["N", 2, 3, 4])],
        weights,
        opset=23,
        ir_version=11,
    )
    cotangent = random(2, 2, 3, 4, seed=3)
    y, gradient = session(vjp_model(model, ["x"])).run(None, {"x": x, "vogcore_cotangent": cotangent})
    # A rotation keeps the scalar product of what it turns.
    assert np.sum(y * cotangent) == pytest.approx(np.sum(x * gradient), rel=1e-5)
    assert np.linalg.norm(gradient) == pytest.approx(np.linalg.norm(cotangent), rel=1e-6)
