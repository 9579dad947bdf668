"""Quantised models: straight through on request, as torch's FakeQuantize; refused without."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from torch import nn

from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.graph.models import FLOAT, build, node, random, value
from vogcore.autodiff import gradient_model, vjp_model
from vogcore.errors import UnsupportedOpError

CLASSES = 4
X = np.concatenate([3 * random(4, 6, seed=1), [[-4.0, -3.9, 0.0, 3.75, 3.8, 4.5]]]).astype(np.float32)


def pair(weights: dict[str, np.ndarray], x: np.ndarray = X, *, opset: int = 18, **attributes) -> onnx.ModelProto:
    """x, quantised and dequantised again."""
    names = " ".join(["x", *weights])
    nodes = [
        node("QuantizeLinear", names, "q", **attributes),
        node("DequantizeLinear", names.replace("x", "q", 1), "y", **attributes),
    ]
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    sizes = [None, *x.shape[1:]]
    return build(nodes, [value("x", sizes, kind)], [value("y", sizes, kind)], weights, opset=opset, ir_version=10)


def straight_through(model: onnx.ModelProto, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    gradient = vjp_model(model, ["x"], straight_through=True)
    onnx.checker.check_model(gradient)
    return session(gradient).run(None, {"x": x, "vogcore_cotangent": cotangent})[1]


@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 0), (np.uint8, 120), (np.int8, 0), (np.int8, -7)])
def test_one_scale_for_the_tensor(kind, zero):
    scale, limits = np.float32(3.75 / 127), np.iinfo(kind)
    cotangent = random(*X.shape)
    tensor = torch.tensor(X, requires_grad=True)
    y = torch.fake_quantize_per_tensor_affine(tensor, float(scale), zero, int(limits.min), int(limits.max))
    y.backward(torch.tensor(cotangent))
    model = pair({"s": scale, "z": np.asarray(zero, kind)})
    np.testing.assert_allclose(session(model).run(None, {"x": X})[0], y.detach().numpy(), rtol=1e-5, atol=1e-6)
    got = straight_through(model, X, cotangent)
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-5)
    assert 0 < (got == 0).mean() < 1


@pytest.mark.parametrize("axis", [0, 1, -2, 2])
def test_a_scale_for_each_slice(axis):
    x = 2 * random(3, 4, 5, seed=2)
    count = x.shape[axis]
    scales = np.linspace(0.005, 0.02, count).astype(np.float32)
    zeros = np.arange(count).astype(np.int8)
    cotangent = random(*x.shape)
    tensor = torch.tensor(x, requires_grad=True)
    y = torch.fake_quantize_per_channel_affine(
        tensor, torch.tensor(scales), torch.tensor(zeros.astype(np.int32)), axis % 3, -128, 127
    )
    y.backward(torch.tensor(cotangent))
    got = straight_through(pair({"s": scales, "z": zeros}, x, axis=axis), x, cotangent)
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["INT16", "UINT16", "INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E5M2"])
@pytest.mark.parametrize("opset", [21, 23])
def test_other_types(dtype, opset):
    """Between the smallest and the largest level after rounding the gradient passes."""
    kind = getattr(TensorProto, dtype)
    low, high = {
        "INT16": (-32768, 32767), "UINT16": (0, 65535), "INT4": (-8, 7), "UINT4": (0, 15),
        "FLOAT8E4M3FN": (-448, 448), "FLOAT8E5M2": (-57344, 57344),
    }[dtype]  # fmt: skip
    scale = np.float32(2 / high)
    zero = helper.make_tensor("z", kind, [], [0])
    model = pair({"s": scale}, opset=opset)
    model.graph.initializer.append(zero)
    for each in model.graph.node:
        each.input.append("z")
    cotangent = random(*X.shape)
    level = X / scale
    inside = (level >= low - 0.5) & (level <= high + 0.5) if dtype[0] != "F" else np.abs(level) <= high
    np.testing.assert_allclose(straight_through(model, X, cotangent), np.where(inside, cotangent, 0), rtol=1e-5)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_scale_for_each_block(dynamic):
    x = 2 * random(4, 6, seed=3)
    scales = np.linspace(0.005, 0.02, 8).reshape(4, 2).astype(np.float32)
    model = pair({"s": scales, "z": np.ones((4, 2), np.int8)}, x, opset=21, axis=1, block_size=3)
    if dynamic:
        model.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
        model.graph.output[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
    level = np.round(x / np.repeat(scales, 3, axis=1)) + 1
    cotangent = random(*x.shape)
    gradient = vjp_model(model, ["x"], straight_through=True)
    (_, got) = evaluator(gradient).run(None, {"x": x, "vogcore_cotangent": cotangent})
    np.testing.assert_allclose(got, np.where((level >= -128) & (level <= 127), cotangent, 0), rtol=1e-5)


def test_type_without_a_zero_point_is_uint8():
    got = straight_through(pair({"s": np.float32(0.01)}), X, np.ones_like(X))
    np.testing.assert_allclose(got, (np.round(X / 0.01) >= 0) & (np.round(X / 0.01) <= 255), rtol=1e-5)


def test_half_precision():
    x = X.astype(np.float16)
    model = pair({"s": np.float16(1e-3), "z": np.int8(0)}, x, opset=19)
    cotangent = np.full_like(x, 1e-4)  # times the scale it would not be a normal float16
    got = straight_through(model, x, cotangent)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, np.where(np.abs(x) <= 0.1275, cotangent, 0))


# -- whole models ------------------------------------------------------------------------------------------------------


class Batches(CalibrationDataReader):
    def __init__(self, x: np.ndarray) -> None:
        self.parts = iter([{"x": part} for part in np.split(x, 4)])

    def get_next(self) -> dict | None:
        return next(self.parts, None)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> tuple[nn.Module, np.ndarray, str]:
    """A small convolutional network, examples, and the path of its export."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, CLASSES),
    ).eval()  # fmt: skip
    x = torch.randn(32, 1, 16, 16)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            layers, (x,), buffer, dynamo=False, opset_version=17, input_names=["x"], output_names=["z"],
            dynamic_axes={"x": {0: "N"}, "z": {0: "N"}},
        )  # fmt: skip
    path = tmp_path_factory.mktemp("quantised") / "float.onnx"
    path.write_bytes(buffer.getvalue())
    return layers, x.numpy(), str(path)


def torch_outputs(model: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    """A QDQ model run by torch, every pair as FakeQuantize."""
    values = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in model.graph.initializer}
    kinds = {t.name: numpy_helper.to_array(t).dtype for t in model.graph.initializer}
    values["x"] = x
    quantised: dict[str, torch.Tensor] = {}
    for each in model.graph.node:
        inputs = [values.get(name) for name in each.input]
        settings = {a.name: helper.get_attribute_value(a) for a in each.attribute}
        if each.op_type == "QuantizeLinear":
            scale, zero, kind = inputs[1], inputs[2], kinds[each.input[2]]
            limits = np.iinfo(kind)
            result = torch.fake_quantize_per_tensor_affine(
                inputs[0], float(scale), int(zero), int(limits.min), int(limits.max)
            )
            quantised[each.output[0]] = result
        elif each.op_type == "DequantizeLinear" and each.input[0] in quantised:
            result = quantised[each.input[0]]
        elif each.op_type == "DequantizeLinear":
            shape = [-1 if a == settings.get("axis", 1) else 1 for a in range(inputs[0].ndim)]
            scale, zero = (v.reshape(shape) if v.ndim else v for v in inputs[1:3])
            result = (inputs[0].float() - zero) * scale
        elif each.op_type == "Conv":
            result = nn.functional.conv2d(*inputs, stride=settings["strides"], padding=settings["pads"][:2])
        elif each.op_type == "Gemm":
            result = inputs[0] @ inputs[1].T + inputs[2]
        elif each.op_type == "MaxPool":
            result = nn.functional.max_pool2d(inputs[0], 2)
        elif each.op_type == "Relu":
            result = inputs[0].relu()
        else:
            assert each.op_type == "Flatten"
            result = inputs[0].flatten(1)
        values[each.output[0]] = result
    return values["z"]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8])
def test_statically_quantised_network_agrees_with_fake_quantisation(network, tmp_path, per_channel, kind):
    _, x, source = network
    path = tmp_path / "qdq.onnx"
    # Calibrated on smaller images, so that some values saturate.
    quantize_static(source, path, Batches(x / 2), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                    activation_type=kind, extra_options={"AddQDQPairToWeight": False})  # fmt: skip
    target = torch.arange(len(x)) % CLASSES
    tensor = torch.tensor(x, requires_grad=True)
    logits = torch_outputs(onnx.load(path), tensor)
    logits[torch.arange(len(x)), target].sum().backward()
    expected = tensor.grad.numpy()

    model = gradient_model(path, straight_through=True)
    z, got = session(model).run(None, {"x": x, "vogcore_target": target.numpy()})
    np.testing.assert_array_equal(z, session(onnx.load(path)).run(None, {"x": x})[0])
    norms = np.linalg.norm(expected.reshape(len(x), -1), axis=1)
    errors = np.linalg.norm((got - expected).reshape(len(x), -1), axis=1) / np.maximum(norms, 1e-6)
    assert 0.5 < (expected != 0).mean() < 1
    assert np.median(errors) <= 1e-5  # one level of difference after a tie can open or close a ReLU
    assert np.quantile(errors, 0.75) <= 0.2


def test_dynamically_quantised_network(network, tmp_path):
    """DynamicQuantizeLinear, ConvInteger and MatMulInteger: near the gradient of the network that was quantised."""
    layers, x, source = network
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(source, path)
    target = torch.arange(len(x)) % CLASSES
    tensor = torch.tensor(x, requires_grad=True)
    layers(tensor)[torch.arange(len(x)), target].sum().backward()
    expected = tensor.grad.numpy().reshape(len(x), -1)
    model = gradient_model(path, straight_through=True)
    z, got = session(model).run(None, {"x": x, "vogcore_target": target.numpy()})
    np.testing.assert_allclose(z, session(onnx.load(path)).run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)
    got = got.reshape(len(x), -1)
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(cosine) > 0.99


def test_dynamically_quantised_layer_has_the_dequantised_weights_as_gradient():
    w = np.random.default_rng(0).integers(-128, 128, (6, 3)).astype(np.int8)
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s zero"), node("MatMulInteger", "q w zero wz", "i"),
        node("Cast", "i", "f", to=FLOAT), node("Mul", "s ws", "both"), node("Mul", "f both", "z", name="last"),
    ]  # fmt: skip
    for wz in (np.asarray(5, np.int8), np.asarray([1, 2, 3], np.int8)):
        weights = {"w": w, "wz": wz, "ws": np.float32(0.02)}
        model = build(nodes, [value("x", ["N", 6])], [value("z", ["N", 3])], weights)
        gradient = gradient_model(model, straight_through=True)
        target = np.arange(len(X)) % 3
        z, got = session(gradient).run(None, {"x": X, "vogcore_target": target})
        np.testing.assert_allclose(z, session(model).run(None, {"x": X})[0], rtol=1e-5)
        np.testing.assert_allclose(got, 0.02 * (w.astype(np.float32) - wz).T[target], rtol=1e-5)


QUANTISED = {
    "s": np.float32(0.05), "u": np.asarray(100, np.uint8), "ys": np.float32(0.2), "yu": np.asarray(80, np.uint8),
    "axes": np.asarray([-1, 3, 2], np.int64),
}  # fmt: skip


def test_operators_on_integers_become_operators_between_quantisations():
    """QLinearMatMul, movers and QLinearConv against the same model written as QDQ."""
    rng = np.random.default_rng(0)
    weights = {
        **QUANTISED, "w": rng.integers(-128, 128, (6, 6)).astype(np.int8), "ws": np.full(6, 0.01, np.float32),
        "wz": np.zeros(6, np.int8), "image": np.asarray([-1, 2, 3, 1], np.int64),
        "k": rng.integers(-128, 128, (4, 2, 2, 1)).astype(np.int8), "ks": np.linspace(0.01, 0.02, 4).astype(np.float32),
        "kz": np.zeros(4, np.int8), "b": rng.integers(-500, 500, 4).astype(np.int32), "bz": np.zeros(4, np.int32),
    }  # fmt: skip
    weights["bs"] = (weights["ks"] * weights["ys"]).astype(np.float32)
    first = node("QuantizeLinear", "x s u", "q", name="first")
    last = [node("DequantizeLinear", "c ys yu", "d", name="last"), node("Flatten", "d", "z")]
    on_integers = [
        first, node("QLinearMatMul", "q s u w ws wz ys yu", "m"), node("Reshape", "m image", "i"),
        node("QLinearConv", "i ys yu k ks kz ys yu b", "c"), *last,
    ]  # fmt: skip
    on_reals = [
        first, node("DequantizeLinear", "q s u", "qd", name="d1"), node("DequantizeLinear", "w ws wz", "wd", name="d2"),
        node("MatMul", "qd wd", "mf"), node("QuantizeLinear", "mf ys yu", "m", name="q2"),
        node("DequantizeLinear", "m ys yu", "md", name="d3"), node("Reshape", "md image", "if"),
        node("DequantizeLinear", "k ks kz", "kd", name="d4", axis=0),
        node("DequantizeLinear", "b bs bz", "bd", name="d5", axis=0),
        node("Conv", "if kd bd", "cf"), node("QuantizeLinear", "cf ys yu", "c", name="q3"), *last,
    ]  # fmt: skip
    sizes = [value("x", ["N", 6])], [value("z", ["N", 8])]
    models = [build(nodes, *sizes, weights) for nodes in (on_integers, on_reals)]
    x = random(9, 6, seed=5)
    feeds = {"x": x, "vogcore_target": np.arange(9) % 8}
    (z, got), (expected_z, expected) = (
        session(gradient_model(model, straight_through=True)).run(None, feeds) for model in models
    )
    np.testing.assert_allclose(z, expected_z, atol=1e-6)
    np.testing.assert_allclose(z, session(models[0]).run(None, {"x": x})[0], atol=0.2001)  # one level
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert (got != 0).any(axis=1).all()


@pytest.mark.parametrize("op", ["Reshape", "MaxPool", "Transpose", "Concat", "Cast"])
def test_integers_that_are_moved(op):
    """Moved between the two halves of a pair: the same gradient as moved behind it."""
    shape = {"q3": np.asarray([0, 1, -1], np.int64), "one": np.float32(1)}
    middle = {
        "Reshape": [node("Reshape", "v q3", "w")],
        "MaxPool": [node("Reshape", "v q3", "r"), node("MaxPool", "r", "w", kernel_shape=[2], strides=[2])],
        "Transpose": [node("Transpose", "v", "w", perm=[1, 0])],
        "Concat": [node("Concat", "v v", "w", axis=1)],
        "Cast": [],
    }[op]
    q, d = node("QuantizeLinear", "x s u", "v"), node("DequantizeLinear", "w s u", "y")
    if op == "Cast":
        tail = [node("Cast", "v", "f", to=FLOAT), node("Cast", "u", "uf", to=FLOAT, name="cu")]
        integers = [q, *tail, node("Sub", "f uf", "m"), node("Mul", "m s", "y")]
        reals = [q, node("DequantizeLinear", "v s u", "y")]
    else:
        integers = [q, *middle, d]
        back = node("DequantizeLinear", "v s u", "dv")
        renamed = [
            helper.make_node(
                n.op_type,
                ["dv" if i == "v" else i for i in n.input],
                ["y" if o == "w" else o for o in n.output],
                name=n.name,
            )
            for n in middle
        ]
        for new, old in zip(renamed, middle):
            new.attribute.extend(old.attribute)
        reals = [q, back, *renamed]
    models = [
        build([*nodes, node("ReduceSum", "y", "t", keepdims=0), node("Add", "t x", "z", name="residual")],
              [value("x", [None, 6])], [value("z", [None, 6])], {**QUANTISED, **shape})
        for nodes in (integers, reals)
    ]  # fmt: skip
    got, expected = (straight_through(model, X, np.ones_like(X)) for model in models)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    with pytest.raises(UnsupportedOpError, match=r"QuantizeLinear node .* rounds, .*straight_through=True.*--straight"):
        vjp_model(models[0], ["x"])  # the residual beside it must not hide the loss


@pytest.mark.parametrize(
    ("nodes", "op"),
    [
        ([node("Clip", "v", "w"), node("DequantizeLinear", "w s u", "y")], "Clip"),
        (
            [helper.make_node("QLinearSigmoid", ["v", "s", "u", "s", "u"], ["w"], "n", domain="com.microsoft"),
             node("DequantizeLinear", "w s u", "y")],
            "com.microsoft.QLinearSigmoid",
        ),
    ],
)  # fmt: skip
def test_what_works_on_integers_and_is_not_covered_is_refused(nodes, op):
    model = build(
        [node("QuantizeLinear", "x s u", "v"), *nodes, node("Add", "y x", "z")],
        [value("x", [None, 6])], [value("z", [None, 6])], QUANTISED, domains=["com.microsoft"],
    )  # fmt: skip
    with pytest.raises(UnsupportedOpError, match=rf"{op} node .* works on quantised integers; quantise .*QDQ"):
        vjp_model(model, ["x"], straight_through=True)


def test_quantised_weights_need_no_option():
    weights = {"w": np.arange(-12, 12).reshape(6, 4).astype(np.int8), "s": np.linspace(0.1, 0.4, 4).astype(np.float32)}
    nodes = [node("DequantizeLinear", "w s", "d"), node("MatMul", "x d", "z")]
    model = build(nodes, [value("x", ["N", 6])], [value("z", ["N", 4])], weights)
    gradient = session(gradient_model(model)).run(None, {"x": X, "vogcore_target": np.arange(len(X)) % 4})[1]
    np.testing.assert_allclose(gradient, (weights["w"] * weights["s"]).T[np.arange(len(X)) % 4], rtol=1e-6)


def test_softmax_in_front_of_the_last_quantisation_is_looked_through():
    nodes = [node("MatMul", "x w", "z"), node("Softmax", "z", "p"), node("QuantizeLinear", "p s", "q"),
             node("DequantizeLinear", "q s", "y")]  # fmt: skip
    model = build(nodes, [value("x", ["N", 6])], [value("y", ["N", 4])], {"w": random(6, 4), "s": np.float32(1 / 255)})
    gradient = session(gradient_model(model)).run(None, {"x": X, "vogcore_target": np.zeros(len(X), np.int64)})[1]
    np.testing.assert_allclose(gradient, np.tile(random(6, 4)[:, 0], (len(X), 1)), rtol=1e-6)
