"""Logits of classifiers that end in probabilities without a Softmax operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.autodiff.sessions import session
from tests.graph.models import BOOL, FLOAT, build, node, random, value
from vogcore.graph import logits_model
from vogcore.graph.logits import find_logits
from vogcore.graph.prepare import prepare

ONE, THREE = random(4, 1), random(4, 3)
NUMBERS = {
    "one": np.float32([1]), "minus": np.float32([-1]), "zero": np.float32([0]), "axis": np.asarray([1], np.int64),
    "last": np.asarray([-1], np.int64), "first": np.asarray([0], np.int64), "two": np.asarray([2], np.int64),
    "three": np.float32([3]), "column": np.asarray([-1, 1], np.int64),
}  # fmt: skip


def classifier(tail: list[onnx.NodeProto], classes: int, width: int) -> onnx.ModelProto:
    """z (N, width) = x w, then ``tail``, which ends in y (N, classes)."""
    weights = {**NUMBERS, "w": ONE if width == 1 else THREE}
    return build([node("MatMul", "x w", "z"), *tail], [value("x", ["N", 4])], [value("y", ["N", classes])], weights)


SIGMOID = [node("Sigmoid", "z", "s")]
RECIPROCAL = [
    node("Mul", "z minus", "n"), node("Exp", "n", "e"), node("Add", "e one", "d"), node("Reciprocal", "d", "s"),
]  # fmt: skip
DIVISION = [node("Neg", "z", "n"), node("Exp", "n", "e"), node("Add", "one e", "d"), node("Div", "one d", "s")]
REST = node("Sub", "one s", "r")
PAIR, TURNED = node("Concat", "r s", "y", axis=1), node("Concat", "s r", "y", axis=-1)
TOTAL, RATIO = node("ReduceSum", "s axis", "t"), node("Div", "s t", "y")
TWO = {
    "sigmoid": [*SIGMOID, REST, PAIR],
    "reciprocal": [*RECIPROCAL, REST, PAIR],
    "division": [*DIVISION, REST, PAIR],
    "turned": [*SIGMOID, REST, TURNED],
}
GUARD = [
    node("Cast", "t", "b", to=BOOL), node("Not", "b", "nb"), node("Cast", "nb", "m", to=FLOAT, name="c2"),
    node("Add", "s m", "u", name="a2"), node("Mul", "m three", "m3", name="m2"), node("Add", "t m3", "v", name="a3"),
    node("Div", "u v", "y"),
]  # fmt: skip
MANY = {
    "one sigmoid each": [*SIGMOID, TOTAL, RATIO],
    "written out": [*RECIPROCAL, TOTAL, RATIO],
    "guarded sum": [*RECIPROCAL, TOTAL, *GUARD],
    "guarded by where": [
        *SIGMOID, node("Abs", "s", "a"), node("ReduceSum", "a last", "t"), node("Equal", "t zero", "b"),
        node("Where", "b one t", "v"), node("Div", "s v", "y"),
    ],
    "columns of softmaxes": [
        node("Softmax", "z", "p", name="p1"), node("Slice", "p first two axis", "left", name="s1"),
        node("Slice", "p two three_ axis", "right", name="s2"), node("Concat", "right left", "s", axis=1), TOTAL, RATIO,
    ],
    "softmax": [node("Exp", "z", "s"), TOTAL, RATIO],
    "shifted softmax": [
        node("ReduceMax", "z axis", "top"), node("Sub", "z top", "low"), node("Exp", "low", "s"), TOTAL, RATIO,
    ],
    "log-sum-exp": [
        node("ReduceLogSumExp", "z axis", "t", keepdims=0), node("Reshape", "t column", "c"), node("Sub", "z c", "l"),
        node("Exp", "l", "y"),
    ],
}  # fmt: skip
NUMBERS["three_"] = np.asarray([3], np.int64)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", TWO)
def test_two_classes_share_one_decision_value(name):
    model = classifier(TWO[name], 2, 1)
    x = random(6, 4, seed=3)
    logits = session(logits_model(model)).run(None, {"x": x})[0]
    z = x @ ONE / 2
    pair = [z, -z] if name == "turned" else [-z, z]
    np.testing.assert_allclose(logits, np.concatenate(pair, axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(softmax(logits), session(model).run(None, {"x": x})[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["sigmoid", "reciprocal", "division"])
def test_single_probability_is_that_of_the_second_class(name):
    tail = {"sigmoid": SIGMOID, "reciprocal": RECIPROCAL, "division": DIVISION}[name]
    model = classifier([*tail, node("Identity", "s", "y")], 1, 1)
    x = random(6, 4, seed=3)
    logits = session(logits_model(model)).run(None, {"x": x})[0]
    assert logits.shape == (6, 2)
    np.testing.assert_allclose(softmax(logits)[:, 1:], session(model).run(None, {"x": x})[0], rtol=1e-5)


@pytest.mark.parametrize("name", MANY)
def test_softmax_of_the_logits_gives_the_probabilities(name):
    model = classifier(MANY[name], 2 if name == "columns of softmaxes" else 3, 3)
    if name == "columns of softmaxes":
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    x = random(6, 4, seed=3)
    head = find_logits(prepare(model).graph)
    logits = session(logits_model(model)).run(None, {"x": x})[0]
    expected = session(model).run(None, {"x": x})[0]
    assert np.abs(logits - expected).max() > 0.1
    np.testing.assert_allclose(softmax(logits), expected, rtol=1e-5, atol=1e-7)
    exact = {"softmax", "shifted softmax", "log-sum-exp"}
    assert (head.logits.name == "z") == (name in exact)
    assert head.softmax == ("Softmax" if name in exact else "Sigmoid")


@pytest.mark.parametrize("name", ["one sigmoid each", "written out", "guarded sum"])
def test_logits_stay_finite_where_the_sigmoids_vanish(name):
    model = logits_model(classifier(MANY[name], 3, 3))
    x = 1e3 * random(6, 4, seed=3)
    np.testing.assert_allclose(
        session(model).run(None, {"x": x})[0], -np.logaddexp(0, -(x.astype(np.float64) @ THREE)), rtol=1e-5, atol=1e-5
    )


OTHERS = {
    "several sigmoids": ([node("Sigmoid", "z", "y")], 3, 3),
    "one minus something else": ([*SIGMOID, node("Sub", "z s", "r"), PAIR], 2, 1),
    "two minus": ([*SIGMOID, node("Sub", "three s", "r"), PAIR], 2, 1),
    "joined along the batch": ([*SIGMOID, REST, node("Concat", "r s", "y", axis=0)], 1, 1),
    "sum over the batch": ([*SIGMOID, node("ReduceSum", "s first", "t"), RATIO], 3, 3),
    "sum of something else": ([*SIGMOID, node("Exp", "z", "o"), node("ReduceSum", "o axis", "t"), RATIO], 3, 3),
    "may be zero": ([node("Relu", "z", "s"), TOTAL, RATIO], 3, 3),
    "may be negative": ([node("Tanh", "z", "s"), TOTAL, RATIO], 3, 3),
    "exponential": ([node("Exp", "z", "y")], 3, 3),
    "not a logistic function": (
        [node("Exp", "z", "e"), node("Add", "e three", "d"), node("Reciprocal", "d", "y")], 1, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_similar_is_left_alone(name):
    tail, classes, width = OTHERS[name]
    assert find_logits(prepare(classifier(tail, classes, width)).graph).logits.name == "y"
