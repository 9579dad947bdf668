"""What is differentiated, with respect to what, and at which class; all against torch in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

import vogcore
from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.graph.models import DOUBLE, INT64, build, node, value
from vogcore.errors import ModelError, SettingsError

RNG = np.random.default_rng(5)
W1, W2, B = RNG.normal(size=(6, 8)), RNG.normal(size=(8, 4)), RNG.normal(size=4)
X = RNG.normal(size=(5, 6))
Y = np.asarray([3, 0, 2, 2, 1])


def model(*, softmax: bool = False, classes: int | str = 4, batch: int | str = "N") -> onnx.ModelProto:
    """x (N, 6) -> tanh -> z (N, 4), in float64."""
    nodes = [
        node("MatMul", "x w1", "a", name="first"), node("Tanh", "a", "h"),
        node("MatMul", "h w2", "m", name="second"), node("Add", "m b", "z"),
    ]  # fmt: skip
    if softmax:
        nodes.append(node("Softmax", "z", "p", axis=-1))
    outputs = [value("p" if softmax else "z", [batch, classes], DOUBLE)]
    return build(nodes, [value("x", [batch, 6], DOUBLE)], outputs, {"w1": W1, "w2": W2, "b": B})


def torch_scores(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = torch.tanh(x @ torch.tensor(W1))
    return h, h @ torch.tensor(W2) + torch.tensor(B)


QUANTITIES = {
    "logit": lambda z, y: z[range(len(z)), y],
    "probability": lambda z, y: z.softmax(1)[range(len(z)), y],
    "log-probability": lambda z, y: z.log_softmax(1)[range(len(z)), y],
    "loss": lambda z, y: functional.cross_entropy(z, y, reduction="none"),
    "margin": lambda z, y: (
        z[range(len(z)), y] - z.masked_fill(functional.one_hot(y, z.shape[1]).bool(), -torch.inf).max(1).values
    ),
    "centred-logit": lambda z, y: z[range(len(z)), y] - z.mean(1),
}


def expected(of: str, y: np.ndarray, wrt: str) -> np.ndarray:
    x = torch.tensor(X, requires_grad=True)
    h, z = torch_scores(x)
    source = {"x": x, "h": h, "z": z}[wrt]
    return torch.autograd.grad(QUANTITIES[of](z, torch.tensor(y)).sum(), source)[0].numpy()


@pytest.mark.parametrize("wrt", ["x", "h", "z"])
@pytest.mark.parametrize("target", ["input", "predicted", 0, 2, np.int64(3)])
@pytest.mark.parametrize("of", QUANTITIES)
def test_gradient_of_a_classifier(of, target, wrt):
    got = vogcore.gradient_model(model(softmax=True), of=of, target=target, wrt=wrt)
    onnx.checker.check_model(got, full_check=True)
    z = torch_scores(torch.tensor(X))[1].numpy()
    y = {"input": Y, "predicted": z.argmax(1)}.get(target) if isinstance(target, str) else np.full(5, target)
    feeds = {"x": X, "vogcore_target": Y} if target == "input" else {"x": X}
    assert {entry.name for entry in got.graph.input} == set(feeds)
    logits, gradient = evaluator(got).run(None, feeds)
    np.testing.assert_allclose(logits, z, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected(of, y, wrt), rtol=1e-9, atol=1e-12)


def test_the_target_is_recorded_where_it_is_no_input():
    def recorded(**options) -> dict:
        return {entry.key: entry.value for entry in vogcore.gradient_model(model(), **options).metadata_props}

    assert recorded() == {"vogcore.of": "logit", "vogcore.wrt": "x", "vogcore.logits": "z"}
    assert recorded(target="input") == recorded()
    assert recorded(target="predicted")["vogcore.target"] == "predicted"
    assert recorded(target=2)["vogcore.target"] == "2"
    assert recorded(of="output")["vogcore.target"] == "sum"


def test_among_tied_logits_the_first_is_predicted():
    tied = build([node("MatMul", "x w", "z")], [value("x", ["N", 2])], [value("z", ["N", 3])],
                 {"w": np.asarray([[1, 2, 2], [0, 3, 5]], np.float32)})  # fmt: skip
    run = session(vogcore.gradient_model(tied, target="predicted"))
    np.testing.assert_array_equal(run.run(None, {"x": np.asarray([[1, 0]], np.float32)})[1], [[2, 3]])


@pytest.mark.parametrize("batch", ["N", 5])
def test_output_as_it_is(batch):
    """A probability that is not looked through, and any column or the sum of it."""
    x = torch.tensor(X, requires_grad=True)
    p = torch_scores(x)[1].softmax(1)
    for target, quantity in (
        ("input", p[range(5), Y]),
        ("predicted", p.max(1).values),
        (1, p[:, 1]),
    ):
        (want,) = torch.autograd.grad(quantity.sum(), x, retain_graph=True)
        run = evaluator(vogcore.gradient_model(model(softmax=True, batch=batch), of="output", target=target))
        feeds = {"x": X, "vogcore_target": Y} if target == "input" else {"x": X}
        output, gradient = run.run(None, feeds)
        np.testing.assert_allclose(output, p.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(gradient, want.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("nodes", "shape", "function"),
    [
        ([node("Identity", "z", "out")], ["N", 4], lambda z: z),
        ([node("ReduceSum", "z one", "out", keepdims=0)], ["N"], lambda z: z.sum(1)),
        ([node("ReduceLogSumExp", "z", "out", keepdims=0)], [], lambda z: z.logsumexp((0, 1))),
        ([node("Reshape", "z square", "s"), node("Exp", "s", "out")], ["N", 2, 2], lambda z: z.exp().reshape(-1, 2, 2)),
    ],
    ids=["(N, D)", "(N,)", "()", "(N, 2, 2)"],
)
def test_sum_of_a_regression_output(nodes, shape, function):
    """In float64, and every size of the output open."""
    regression = model()
    regression.graph.node.extend(nodes)
    regression.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([1]), "one"))
    regression.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([-1, 2, 2]), "square"))
    regression.graph.output[0].CopyFrom(value("out", shape, DOUBLE))
    got = vogcore.gradient_model(regression, of="output")
    assert [entry.name for entry in got.graph.input] == ["x"]
    x = torch.tensor(X, requires_grad=True)
    y = function(torch_scores(x)[1])
    y.sum().backward()
    output, gradient = evaluator(got).run(None, {"x": X})
    np.testing.assert_allclose(output, y.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-9, atol=1e-12)


def two_inputs() -> onnx.ModelProto:
    """Token ids and a mask of floats: a text classifier in small."""
    return build(
        [
            node("Gather", "table ids", "embedded"),
            node("Unsqueeze", "mask last", "wide"),
            node("Mul", "embedded wide", "kept"),
            node("MatMul", "kept w1", "a", name="first"),
            node("Tanh", "a", "t"),
            node("ReduceMean", "t one", "pooled", keepdims=0),
            node("MatMul", "pooled w2", "z", name="second"),
        ],
        [value("ids", ["N", 3], INT64), value("mask", ["N", 3], DOUBLE)],
        [value("z", ["N", 4], DOUBLE)],
        {"table": np.random.default_rng(1).normal(size=(9, 6)), "w1": W1, "w2": W2,
         "last": np.asarray([2]), "one": np.asarray([1])},
    )  # fmt: skip


@pytest.mark.parametrize("wrt", ["embedded", "mask"])
def test_the_other_inputs_stay_inputs(wrt):
    got = vogcore.gradient_model(two_inputs(), wrt=wrt, of="loss")
    assert [entry.name for entry in got.graph.input] == ["ids", "mask", "vogcore_target"]
    ids, mask, y = RNG.integers(0, 9, (5, 3)), RNG.integers(0, 2, (5, 3)).astype(np.float64), Y
    table = torch.tensor(np.random.default_rng(1).normal(size=(9, 6)))
    sources = {"embedded": table[torch.tensor(ids)].requires_grad_(), "mask": torch.tensor(mask, requires_grad=True)}
    hidden = torch.tanh((sources["embedded"] * sources["mask"][..., None]) @ torch.tensor(W1)).mean(1)
    loss = functional.cross_entropy(hidden @ torch.tensor(W2), torch.tensor(y), reduction="sum")
    (want,) = torch.autograd.grad(loss, sources[wrt])
    _, gradient = evaluator(got).run(None, {"ids": ids, "mask": mask, "vogcore_target": y})
    np.testing.assert_allclose(gradient, want.numpy(), rtol=1e-9, atol=1e-12)


def test_cotangent_of_the_caller_s_own_for_several_tensors_at_once():
    got = vogcore.vjp_model(two_inputs(), ["mask", "embedded", "w2"])
    ids, mask = RNG.integers(0, 9, (5, 3)), RNG.normal(size=(5, 3))
    cotangent = RNG.normal(size=(5, 4))
    table = torch.tensor(np.random.default_rng(1).normal(size=(9, 6)))
    embedded, weights = table[torch.tensor(ids)].requires_grad_(), torch.tensor(W2, requires_grad=True)
    scale = torch.tensor(mask, requires_grad=True)
    z = torch.tanh((embedded * scale[..., None]) @ torch.tensor(W1)).mean(1) @ weights
    want = torch.autograd.grad(z, [scale, embedded, weights], torch.tensor(cotangent))
    results = evaluator(got).run(None, {"ids": ids, "mask": mask, "vogcore_cotangent": cotangent})
    assert [entry.name for entry in got.graph.output] == ["z", *(f"vogcore_gradient_{i}" for i in range(3))]
    np.testing.assert_allclose(results[0], z.detach().numpy(), rtol=1e-12)
    for result, right in zip(results[1:], want, strict=True):
        np.testing.assert_allclose(result, right.numpy(), rtol=1e-9, atol=1e-12)


def test_one_tensor_may_be_named_without_a_list():
    one, several = vogcore.vjp_model(model(), "x"), vogcore.vjp_model(model(), ["x"])
    assert one.SerializeToString() == several.SerializeToString()


def test_a_class_that_the_model_lacks_is_refused():
    with pytest.raises(ModelError, match=r"target=4 is no class of 'z', which has the classes 0 to 3\."):
        vogcore.gradient_model(model(), target=4)


def test_a_class_that_turns_out_not_to_exist_fails_when_the_model_runs():
    """With the number of classes open the model cannot tell beforehand; a zero gradient would be a lie."""
    wide = build([node("MatMul", "x w", "z")], [value("x", ["N", 2]), value("w", [2, "C"])], [value("z", ["N", "C"])])
    run = session(vogcore.gradient_model(wide, wrt="x", target=3))
    x, w = np.ones((1, 2), np.float32), np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(run.run(None, {"x": x, "w": w})[1], [[3, 7]])
    with pytest.raises(Exception, match=r"out of data bounds|out of bounds"):
        run.run(None, {"x": x, "w": w[:, :3]})


@pytest.mark.parametrize("target", ["label", -1, 1.0, True, "sum"])
def test_an_unknown_target_is_refused(target):
    with pytest.raises(SettingsError, match=r"^target=.* 'input'|^target='sum' adds up .* of='output'"):
        vogcore.gradient_model(model(), target=target)


def test_a_column_of_an_output_without_columns_is_refused():
    flat = build([node("ReduceSum", "x one", "y", keepdims=0)], [value("x", ["N", 3])], [value("y", ["N"])],
                 {"one": np.asarray([1])})  # fmt: skip
    with pytest.raises(ModelError, match=r"target=0 chooses a column .*'y' has shape \(N\).*vogcore\.vjp_model"):
        vogcore.gradient_model(flat, of="output", target=0)


def test_an_integer_output_has_no_cotangent():
    labels = model()
    labels.graph.node.append(node("ArgMax", "z", "label", axis=1))
    labels.graph.output.append(value("label", ["N", 1], INT64))
    with pytest.raises(ModelError, match=r"output 'label' has type int64.*choose another output"):
        vogcore.vjp_model(labels, "x", "label")


def test_nothing_to_differentiate_with_respect_to_is_refused():
    with pytest.raises(SettingsError, match="wrt is empty"):
        vogcore.vjp_model(model(), [])


def test_names_that_a_product_adds_must_be_free():
    with pytest.raises(ModelError, match="already has a value named 'vogcore_cotangent'"):
        vogcore.vjp_model(vogcore.vjp_model(model(), "x"), "x")
