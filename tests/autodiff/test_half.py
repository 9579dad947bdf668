"""Every case of the rules in float32 and float16 through ONNX Runtime on the CPU; half-precision models as a whole."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from tests.autodiff.cases import CASES, Case
from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.graph.models import build, node, random, value
from vogcore import score
from vogcore.autodiff import gradient_model, vjp_model
from vogcore.runtime._ort_session import disabled_optimizers

FLOATS = {
    "float32": (np.dtype(np.float32), TensorProto.FLOAT),
    "float16": (np.dtype(np.float16), TensorProto.FLOAT16),
    "float64": (np.dtype(np.float64), TensorProto.DOUBLE),
}
TOLERANCE = {"float32": 2e-5, "float16": 6e-3}
LACKING = {
    "Attention": "some forms of the mask, and opset 25",
    "Celu": "float16, which the specification does not allow either",
    "GRU": "layout=1",
    "LRN": "an even size",
    "LSTM": "layout=1",
    "MeanVarianceNormalization": "float16: the operator's definition has a float32 constant",
    "Mod": "opset 28",
    "RNN": "layout=1, and a clip",
    "ScatterElements": "float16 with a reduction",
    "ScatterND": "float16 with a reduction",
    "SwiGLU": "opset 28",
}
"""What ONNX Runtime's CPU provider (1.31) cannot run forward, so that there is no gradient graph to run either."""

OPEN_SIZES = {
    "Attention": "ONNX infers a size of 0 for three-dimensional inputs of unknown width",
    "DFT": "ONNX infers the size of x for a length that is computed, and buffers are reused by it",
}
"""Where wrong shape inference stops a gradient graph with open sizes; with fixed ones it has to run."""


def in_type(model: onnx.ModelProto, source: str, target: str) -> onnx.ModelProto:
    """A model with every number of one floating-point type in another one."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _convert(result.graph, FLOATS[source][1], *FLOATS[target])
    return result


def _convert(graph: onnx.GraphProto, old: int, dtype: np.dtype, new: int) -> None:
    tensors = list(graph.initializer)
    for value_info in [*graph.input, *graph.output, *graph.value_info]:
        if value_info.type.tensor_type.elem_type == old:
            value_info.type.tensor_type.elem_type = new
    for each in graph.node:
        for attribute in each.attribute:
            if attribute.name == "to" and attribute.i == old:
                attribute.i = new
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
            if attribute.type == onnx.AttributeProto.GRAPH:
                _convert(attribute.g, old, dtype, new)
    for tensor in tensors:
        if tensor.data_type == old:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_rule_in_onnx_runtime(case: Case, kind: str) -> None:
    """Against the same gradient graph in float64, at the same rounded numbers."""
    dtype = FLOATS[kind][0]
    names = [f"in{i}" for i in case.wrt]
    feeds = {f"in{i}": case.inputs[i].astype(dtype) for i in case.wrt}
    model = in_type(case.model(), "float64", kind)
    try:
        y = session(model).run(None, feeds)[0]
    except Exception:
        if case.op not in LACKING:
            raise
        pytest.skip(f"ONNX Runtime lacks {case.op}: {LACKING[case.op]}")
    cotangent = np.random.default_rng(1).normal(size=y.shape).astype(dtype)
    try:
        results = session(vjp_model(model, names)).run(None, {**feeds, "vogcore_cotangent": cotangent})
    except Exception:
        if not case.dynamic or case.op not in OPEN_SIZES:
            raise
        pytest.skip(f"{case.op}: {OPEN_SIZES[case.op]}")
    exact = {name: x.astype(np.float64) for name, x in {**feeds, "vogcore_cotangent": cotangent}.items()}
    expected = evaluator(vjp_model(in_type(model, kind, "float64"), names)).run(None, exact)
    for got, wanted in zip(results[1:], expected[1:], strict=True):
        assert got.dtype == dtype
        close = TOLERANCE[kind] * max(float(np.abs(wanted).max(initial=0)), 0.01)  # the cotangent is about 1
        np.testing.assert_allclose(got, wanted, rtol=TOLERANCE[kind], atol=close)


@pytest.mark.parametrize("op", ["ReduceMean", "GlobalAveragePool"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_count_beyond_the_largest_float16(op, dynamic):
    """The mean of 90,000 numbers: the count is no float16."""
    weights = {"axes": np.asarray([2, 3], np.int64)} if op == "ReduceMean" else {}
    sizes = [1, 1, None, None] if dynamic else [1, 1, 300, 300]
    model = build(
        [node(op, " ".join(["x", *weights]), "y")], [value("x", sizes, TensorProto.FLOAT16)],
        [value("y", [1, 1, 1, 1], TensorProto.FLOAT16)], weights,
    )  # fmt: skip
    feeds = {"x": np.ones((1, 1, 300, 300), np.float16), "vogcore_cotangent": np.full((1, 1, 1, 1), 6e4, np.float16)}
    got = session(vjp_model(model, ["x"])).run(None, feeds)[1]
    np.testing.assert_allclose(got, np.full(got.shape, 6e4 / 9e4), rtol=1e-3)


@pytest.mark.parametrize("kind", ["float16", "float64"])
@pytest.mark.parametrize(
    ("op", "opset", "attributes"),
    [("Clip", 6, {"min": 0.0, "max": 6.0}), ("Clip", 6, {"min": -0.5}), ("Pad", 9, {"pads": [0, 1, 0, 1]})],
)
def test_bounds_of_old_opsets_get_the_type_of_the_data(op, opset, attributes, kind):
    dtype, code = FLOATS[kind]
    model = build(
        [node(op, "x", "y", **attributes)], [value("x", [3, 4], code)], [value("y", [None, None], code)],
        opset=opset, ir_version=4,
    )  # fmt: skip
    x = (4 * random(3, 4)).astype(dtype)
    gradient = vjp_model(model, ["x"])
    onnx.checker.check_model(gradient, full_check=True)
    cotangent = np.ones((3, 6) if op == "Pad" else (3, 4), dtype)
    got = session(gradient).run(None, {"x": x, "vogcore_cotangent": cotangent})[1]
    low, high = attributes.get("min", -np.inf), attributes.get("max", np.inf)
    np.testing.assert_array_equal(got, (x > low) & (x < high))


def network() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(5)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, stride=2),
        nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12 * 9, 32), nn.LayerNorm(32), nn.SiLU(),
        nn.Linear(32, 5), nn.Softmax(1),
    ).eval()  # fmt: skip
    return layers, torch.randn(20, 3, 28, 28)


def export(layers: nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            layers, (x,), buffer, dynamo=False, opset_version=17, input_names=["x"], output_names=["p"],
            dynamic_axes={"x": {0: "N"}, "p": {0: "N"}},
        )  # fmt: skip
    return onnx.load_model_from_string(buffer.getvalue())


def autograd(layers: nn.Module, x: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    tensor = x.double().requires_grad_()
    layers.double()[:-1](tensor)[torch.arange(len(x)), target].sum().backward()
    return tensor.grad.numpy()


def check(got: np.ndarray, expected: np.ndarray, median: float) -> None:
    got = got.astype(np.float64).reshape(len(got), -1)
    expected = expected.reshape(len(got), -1)
    errors = np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(errors) <= median


def test_float16_network_agrees_with_float64_autograd():
    layers, x = network()
    model = gradient_model(export(layers.half(), x.half()))
    target = torch.arange(len(x)) % 5
    expected = autograd(layers, x.half(), target)  # the rounded weights in float64
    logits, got = session(model).run(None, {"x": x.half().numpy(), "vogcore_target": target.numpy()})
    assert got.dtype == logits.dtype == np.float16
    check(got, expected, 1e-2)


class Mixed(nn.Module):
    """float32 outside, float16 inside."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.first, self.middle, self.last = nn.Linear(10, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.middle.to(dtype)
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        return self.last(torch.relu(self.middle(hidden.to(self.dtype))).float())


def test_float16_inside_a_float32_network():
    layers = Mixed(torch.float16).eval()
    x = torch.randn(20, 10)
    target = torch.arange(len(x)) % 4
    model = export(layers, x)
    assert {t.data_type for t in model.graph.initializer} >= {TensorProto.FLOAT, TensorProto.FLOAT16}
    got = session(gradient_model(model)).run(None, {"x": x.numpy(), "vogcore_target": target.numpy()})[1]
    assert got.dtype == np.float32
    layers.dtype = torch.float64
    layers.float = layers.double  # type: ignore[method-assign]
    wide = layers.double()
    tensor = x.double().requires_grad_()
    hidden = torch.relu(wide.middle(torch.tanh(wide.first(tensor))))
    wide.last(hidden)[torch.arange(len(x)), target].sum().backward()
    check(got, tensor.grad.numpy(), 5e-3)


@pytest.mark.parametrize("of", ["logit", "probability", "margin", "centred-logit"])
def test_bfloat16_network(of):
    """ONNX Runtime has no bfloat16 on the CPU: through the reference evaluator, against the network in float64."""
    weights = {"a": random(10, 16) / 3, "b": random(16, seed=1) / 3, "c": random(16, 4, seed=2) / 3}
    nodes = [
        node("Gemm", "x a b", "h"), node("Relu", "h", "r"), node("MatMul", "r c", "z"), node("Softmax", "z", "p"),
    ]  # fmt: skip
    tensors = [helper.make_tensor(k, TensorProto.BFLOAT16, v.shape, v.ravel()) for k, v in weights.items()]
    exact = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in tensors}
    results = []
    x = random(12, 10, seed=3)
    for code, given in ((TensorProto.BFLOAT16, tensors), (TensorProto.DOUBLE, [])):
        given = given or [numpy_helper.from_array(v, k) for k, v in exact.items()]
        graph = helper.make_graph(nodes, "g", [value("x", ["N", 10], code)], [value("p", ["N", 4], code)], given)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        gradient = gradient_model(model, of=of)
        onnx.checker.check_model(gradient, full_check=True)
        kind = helper.tensor_dtype_to_np_dtype(code)
        rounded = x.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)).astype(kind)
        results.append(ReferenceEvaluator(gradient).run(None, {"x": rounded, "vogcore_target": np.arange(12) % 4})[1])
        assert results[-1].dtype == kind
    check(results[0], results[1], 3e-2)


def test_scores_of_float16_checkpoints_are_near_those_of_float32():
    """Moments are float64 whatever the type of the gradients."""
    half, single = [], []
    x = torch.randn(40, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = np.arange(40) % 5
    for seed in range(3):
        layers, _ = network()
        torch.manual_seed(seed)
        for parameter in layers.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        single.append(export(layers, x[:1]))
        half.append(export(layers.half(), x[:1].half()))
    got = score(half, x.numpy().astype(np.float16), labels)
    expected = score(single, x.numpy(), labels)
    assert got.vog_raw.dtype == np.float64
    np.testing.assert_allclose(got.vog_raw, expected.vog_raw, rtol=2e-2)
    assert got.vog_raw.std() > 0.02 * got.vog_raw.mean()


@pytest.mark.parametrize("as_bytes", [False, True])
def test_half_precision_does_without_the_blocked_layout(as_bytes):
    layers, x = network()
    models = {
        "float32": (export(layers, x), []),
        "float16": (export(layers.half(), x.half()), ["NchwcTransformer"]),
        "mixed": (export(Mixed(torch.float16), torch.randn(2, 10)), ["NchwcTransformer"]),
    }
    for name, (model, expected) in models.items():
        given = model.SerializeToString() if as_bytes else model
        assert disabled_optimizers(given) == expected, name
