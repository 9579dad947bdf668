"""Loops, branches and recurrent layers in ONNX Runtime, and against torch in float64."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch

from tests.autodiff.cases import CASES, Case
from tests.autodiff.element_type import in_type
from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from vogcore.autodiff import gradient_model, vjp_model
from vogcore.errors import ModelError, UnsupportedOpError

FAMILY = [case for case in CASES if case.op in ("If", "Loop", "Scan", "RNN", "GRU", "LSTM")]


def runs(case: Case) -> bool:
    """ONNX Runtime's CPU kernels have no layout 1, and RNN has only some of the activations."""
    usual = {"Tanh", "Sigmoid", "Relu"}
    return not case.attributes.get("layout") and (
        case.op != "RNN" or {*case.attributes.get("activations", [])} <= usual
    )


RUNNABLE = [case for case in FAMILY if runs(case)]


@pytest.mark.parametrize("case", RUNNABLE, ids=lambda case: case.id)
def test_onnx_runtime_agrees_with_the_reference(case: Case) -> None:
    gradient = vjp_model(case.model(), names := [f"in{i}" for i in case.wrt])
    feeds = {name: case.inputs[i] for name, i in zip(names, case.wrt, strict=True)}
    forward = evaluator(case.model()).run(None, feeds)[0]
    feeds["vogcore_cotangent"] = np.random.default_rng(2).normal(size=np.shape(forward))
    expected = evaluator(gradient).run(None, feeds)
    single = vjp_model(in_type(case.model(), np.float32), names)
    got = session(single).run(None, {name: value.astype(np.float32) for name, value in feeds.items()})
    for a, b in zip(got, expected, strict=True):
        scale = max(np.abs(b).max(), 1e-3)
        assert np.abs(a - b).max() < 2e-4 * scale


class Net(torch.nn.Module):
    """Embedding of numbers, a recurrent layer, and a head on the last step or on the mean."""

    def __init__(self, kind: str, head: str, **options: object) -> None:
        super().__init__()
        self.layer = getattr(torch.nn, kind)(5, 6, **options)
        self.fc = torch.nn.Linear(6 * (1 + bool(options.get("bidirectional"))), 4)
        self.head, self.batch_first = head, bool(options.get("batch_first"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, states = self.layer(x)
        if self.head == "states":
            last = states[0] + states[1] if isinstance(states, tuple) else states
            return self.fc(torch.cat([last[-2], last[-1]], 1) if self.layer.bidirectional else last[-1])
        y = y if self.batch_first else y.transpose(0, 1)
        return self.fc(y.mean(1) if self.head == "mean" else y[:, -1])


def exported(net: torch.nn.Module, x: torch.Tensor, dynamo: bool) -> onnx.ModelProto:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), file, dynamo=dynamo, input_names=["x"], output_names=["z"], verbose=False)
    return onnx.load_from_string(file.getvalue())


def agrees_with_torch(net: torch.nn.Module, x: torch.Tensor, batch_axis: int, dynamo: bool) -> onnx.ModelProto:
    net.eval()
    model = exported(net, x, dynamo)
    target = torch.arange(x.shape[batch_axis]) % 4
    got = session(gradient_model(model)).run(None, {"x": x.numpy(), "vogcore_target": target.numpy()})
    double = x.double().requires_grad_()
    logits = net.double()(double)
    (expected,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), double)
    for a, b in zip(got, (logits.detach(), expected), strict=True):
        assert np.abs(a - b.numpy()).max() < 1e-5 * max(1e-3, b.abs().max())
    return model


OPTIONS = {
    "one layer": {"batch_first": True},
    "time first": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "no bias": {"bias": False, "batch_first": True},
}


EXPORTS = [
    ("one layer", "last", False),
    ("one layer", "mean", False),
    ("time first", "states", False),
    ("two layers, both directions", "mean", False),
    ("two layers, both directions", "states", False),
    ("no bias", "last", False),
    ("one layer", "last", True),
    ("two layers, both directions", "states", True),
]


@pytest.mark.parametrize(("layers", "head", "dynamo"), EXPORTS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_classifiers_of_torch(kind: str, layers: str, head: str, dynamo: bool) -> None:
    torch.manual_seed(3)
    options = OPTIONS[layers]
    net = Net(kind, head, **options)
    model = agrees_with_torch(net, torch.randn(3, 7, 5), 0 if options.get("batch_first") else 1, dynamo)
    if kind != "RNN" or not dynamo:  # torch writes that one out step by step
        assert any(node.op_type == kind for node in model.graph.node)


class Branches(torch.nn.Module):
    """torch.cond on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        return h + torch.cond(x.sum() > 0, lambda h: torch.tanh(h) * h, lambda h: torch.exp(h), (h,))


@pytest.mark.parametrize("sign", [1, -1])
def test_cond_of_torch(sign: int) -> None:
    torch.manual_seed(4)
    x = torch.randn(3, 5).abs() * sign
    model = agrees_with_torch(Branches(), x, 0, dynamo=True)
    assert any(node.op_type == "If" for node in model.graph.node)


def parsed(inputs: str, outputs: str, text: str, opset: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {{ {text} }}'
    )


POWER = """
    yes = Constant <value = bool {1}> ()
    y, rows = Loop (trips, yes, x) <
        body = step (int64 k, bool go, float[2,3] h) => (bool on, float[2,3] h2, float[2,3] row) {
            on = Identity (go)
            a = Gather <axis = 0> (steps, k)
            h2 = Mul (a, h)
            row = Mul (h2, h2)
        }
    >
    axes = Constant <value = int64[1] {0}> ()
    sum = ReduceSum <keepdims = 0> (rows, axes)
    z = Add (y, sum)
"""


@pytest.mark.parametrize("count", [0, 1, 3])
def test_number_of_iterations_that_only_the_input_tells(count: int) -> None:
    model = parsed("float[2,3] x, float[4,2,3] steps, int64 trips", "float[2,3] z", POWER)
    rng = np.random.default_rng(5)
    x, steps = rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3))
    feeds = {"x": x.astype(np.float32), "steps": steps.astype(np.float32), "trips": np.asarray(count, np.int64)}
    feeds["vogcore_cotangent"] = np.ones((2, 3), np.float32)
    _, dx, d_steps = session(vjp_model(model, ["x", "steps"])).run(None, feeds)
    at, along = torch.tensor(x, requires_grad=True), torch.tensor(steps, requires_grad=True)
    h, total = at, torch.zeros(2, 3, dtype=torch.float64)
    for k in range(count):
        h = along[k] * h
        total = total + h * h
    expected = torch.autograd.grad((h + total).sum(), [at, along], allow_unused=True, materialize_grads=True)
    for got, wanted in zip((dx, d_steps), expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_state_that_the_loop_overwrites_has_no_gradient_unless_nothing_runs() -> None:
    text = """
        yes = Constant <value = bool {1}> ()
        y = Loop (trips, yes, x) <
            body = step (int64 k, bool go, float[2] h) => (bool on, float[2] h2) {
                on = Identity (go)
                h2 = Constant <value = float[2] {1, 2}> ()
            }
        >
        z = Mul (y, y)
    """
    runner = session(vjp_model(parsed("float[2] x, int64 trips", "float[2] z", text), ["x"]))
    feeds = {"x": np.asarray([3, 4], np.float32), "vogcore_cotangent": np.ones(2, np.float32)}
    for count, expected in ((0, [6, 8]), (2, [0, 0])):
        assert runner.run(None, {**feeds, "trips": np.asarray(count, np.int64)})[1].tolist() == expected


def test_half_precision_sums_over_iterations_in_float32() -> None:
    text = POWER.replace("float[2,3]", "float16[2,3]")
    model = parsed(
        "float16[2,3] x, float16[2,3] steps0, int64 trips",
        "float16[2,3] z",
        text.replace("a = Gather <axis = 0> (steps, k)", "a = Tanh (steps0)"),
    )
    gradient = vjp_model(model, ["x", "steps0"])
    (scan_,) = [n for n in _all_nodes(gradient.graph) if n.op_type == "Scan"]
    body = next(a.g for a in scan_.attribute if a.name == "body")
    assert onnx.TensorProto.FLOAT in [info.type.tensor_type.elem_type for info in body.input]
    half = np.full((2, 3), 0.5, np.float16)
    feeds = {"x": half, "steps0": half, "trips": np.asarray(4, np.int64), "vogcore_cotangent": half}
    got = session(gradient).run(None, feeds)
    single = vjp_model(in_type(model, np.float32, np.float16), ["x", "steps0"])
    wanted = session(single).run(
        None, {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in feeds.items()}
    )
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == np.float16
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_half_precision_layers(kind: str) -> None:
    case = next(c for c in RUNNABLE if c.op == kind and c.label.startswith("b,h0") and not c.dynamic)
    names = [f"in{i}" for i in case.wrt]
    feeds = {name: case.inputs[i] for name, i in zip(names, case.wrt, strict=True)}
    feeds["vogcore_cotangent"] = np.ones(np.shape(evaluator(case.model()).run(None, feeds)[0]))
    wanted = evaluator(vjp_model(case.model(), names)).run(None, feeds)
    model = in_type(case.model(), np.float16)
    got = session(vjp_model(model, names)).run(None, {k: v.astype(np.float16) for k, v in feeds.items()})
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == np.float16
        assert np.abs(a - b).max() < 1e-2 * np.abs(b).max()


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                nodes += _all_nodes(attribute.g)
    return nodes


def test_sequences_are_refused() -> None:
    text = """
        trips = Constant <value = int64 {2}> ()
        empty = SequenceEmpty <dtype = 1> ()
        many, z = Loop (trips, , empty, x) <
            body = step (int64 k, bool go, seq(float[2]) s, float[2] h) => (bool on, seq(float[2]) s2, float[2] h2) {
                on = Identity (go)
                s2 = SequenceInsert (s, h)
                h2 = Sin (h)
            }
        >
    """
    with pytest.raises(UnsupportedOpError, match=r"Loop node .* its carried value 's' is a sequence"):
        vjp_model(parsed("float[2] x", "float[2] z", text), ["x"])


def test_random_numbers_in_a_body_are_refused() -> None:
    text = """
        trips = Constant <value = int64 {2}> ()
        z = Loop (trips, , x) <
            body = step (int64 k, bool go, float[2] h) => (bool on, float[2] h2) {
                on = Identity (go)
                noise = RandomNormalLike (h)
                h2 = Mul (h, noise)
            }
        >
    """
    with pytest.raises(UnsupportedOpError, match=r"Loop node .* draws random numbers \(RandomNormalLike\)"):
        vjp_model(parsed("float[2] x", "float[2] z", text), ["x"])


def test_what_no_output_depends_on_is_an_error_and_not_zero() -> None:
    text = """
        trips = Constant <value = int64 {2}> ()
        unused, z = Loop (trips, , x, other) <
            body = step (int64 k, bool go, float[2] a, float[2] b) => (bool on, float[2] a2, float[2] b2) {
                on = Identity (go)
                a2 = Sin (a)
                b2 = Cos (b)
            }
        >
    """
    with pytest.raises(ModelError, match="'z' does not depend on 'x'"):
        vjp_model(parsed("float[2] x, float[2] other", "float[2] z", text), ["x"])


def test_bodies_of_old_opsets() -> None:
    text = """
        trips = Constant <value = int64 {4}> ()
        yes = Constant <value = bool {1}> ()
        z = Loop (trips, yes, x) <
            body = step (int64 k, bool go, float[2,3] h) => (bool on, float[2,3] h2) {
                on = Identity (go)
                a = Gather <axis = 0> (steps, k)
                s = Squeeze <axes = [1]> (a)
                h2 = Mul (s, h)
            }
        >
    """
    model = parsed("float[2,3] x, float[4,2,1,3] steps", "float[2,3] z", text, opset=11)
    rng = np.random.default_rng(6)
    x, steps = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(4, 2, 1, 3)).astype(np.float32)
    feeds = {"x": x, "steps": steps, "vogcore_cotangent": np.ones((2, 3), np.float32)}
    _, dx, d_steps = session(vjp_model(model, ["x", "steps"])).run(None, feeds)
    product = steps.prod(0)[:, 0]
    np.testing.assert_allclose(dx, product, rtol=1e-4)
    np.testing.assert_allclose(d_steps[:, :, 0], x * product / steps[:, :, 0], rtol=1e-4)
