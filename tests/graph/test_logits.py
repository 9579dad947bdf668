"""Finding the pre-softmax logits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from tests.graph.models import DOUBLE, FLOAT, INT64, build, linear, node, random, value
from vogcore.errors import ModelError
from vogcore.graph import logits_model
from vogcore.graph.logits import choose_output, find_logits
from vogcore.graph.prepare import prepare

WEIGHTS = {"w": random(4, 3), "flat": np.asarray([0, -1], np.int64), "axis": np.asarray([1], np.int64)}
PRODUCT = node("MatMul", "x w", "z")


def classifier(tail: list[onnx.NodeProto], shape: list, dtype: int = FLOAT, opset: int = 18) -> onnx.ModelProto:
    """z = x w, then `tail`, which ends in y."""
    return build([PRODUCT, *tail], [value("x", ["N", 4])], [value("y", shape, dtype)], WEIGHTS, opset=opset)


def head_of(model: onnx.ModelProto, output: str | None = None):
    return find_logits(prepare(model).graph, output)


TAILS = {
    "softmax": ([node("Softmax", "z", "y")], ["N", 3], FLOAT),
    "softmax over axis 1": ([node("Softmax", "z", "y", axis=1)], ["N", 3], FLOAT),
    "log-softmax": ([node("LogSoftmax", "z", "y", axis=-1)], ["N", 3], FLOAT),
    "softmax, identity": ([node("Softmax", "z", "p"), node("Identity", "p", "y")], ["N", 3], FLOAT),
    "softmax, flatten": ([node("Softmax", "z", "p"), node("Flatten", "p", "y")], ["N", 3], FLOAT),
    "softmax, reshape": ([node("Softmax", "z", "p"), node("Reshape", "p flat", "y")], ["N", 3], FLOAT),
    "softmax, cast": ([node("Softmax", "z", "p"), node("Cast", "p", "y", to=DOUBLE)], ["N", 3], DOUBLE),
    "softmax, dropout": ([node("Softmax", "z", "p"), node("Dropout", "p", "y")], ["N", 3], FLOAT),
    "softmax, unsqueeze": ([node("Softmax", "z", "p"), node("Unsqueeze", "p two", "y")], ["N", 3, 1], FLOAT),
}


@pytest.mark.parametrize("name", TAILS)
def test_trailing_softmax_is_looked_through(name):
    tail, shape, dtype = TAILS[name]
    weights = {**WEIGHTS, "two": np.asarray([2], np.int64)}
    model = build([PRODUCT, *tail], [value("x", ["N", 4])], [value("y", shape, dtype)], weights)
    head = head_of(model)
    assert head.logits.name == "z"
    assert head.softmax == ("LogSoftmax" if name == "log-softmax" else "Softmax")
    x = random(5, 4)
    (got,) = ReferenceEvaluator(logits_model(model)).run(None, {"x": x})
    np.testing.assert_allclose(got, x @ WEIGHTS["w"], rtol=1e-5)


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_softmax_of_old_opsets_is_looked_through(opset):
    model = classifier([node("Softmax", "z", "y")], ["N", 3], opset=opset)
    assert head_of(model).logits.name == "z"


def test_model_without_softmax_gives_its_output():
    head = head_of(linear())
    assert (head.logits.name, head.softmax) == ("z", None)


def test_sigmoid_is_not_looked_through():
    assert head_of(classifier([node("Sigmoid", "z", "y")], ["N", 3])).logits.name == "y"


def test_softmax_inside_the_network_is_not_the_end():
    model = classifier([node("Softmax", "z", "p"), node("Relu", "p", "y")], ["N", 3])
    assert head_of(model).logits.name == "y"


def test_softmax_over_the_batch_is_not_a_classifier_s():
    assert head_of(classifier([node("Softmax", "z", "y", axis=0)], ["N", 3])).logits.name == "y"


@pytest.mark.parametrize(("softmax", "opset"), [(False, 18), (True, 18), (True, 9)])
def test_spatial_logits_of_size_one_are_flattened(softmax, opset):
    conv = node("Conv", "x k", "z")
    tail = [node("Softmax", "z", "y", axis=1)] if softmax else [node("Identity", "z", "y")]
    kernel = random(3, 2, 4, 4)
    model = build([conv, *tail], [value("x", ["N", 2, 4, 4])], [value("y", ["N", 3, 1, 1])], {"k": kernel}, opset=opset)
    forward = logits_model(model)
    onnx.checker.check_model(forward)
    x = random(5, 2, 4, 4)
    (got,) = ReferenceEvaluator(forward).run(None, {"x": x})
    np.testing.assert_allclose(got, np.einsum("nchw,mchw->nm", x, kernel), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [["N", 3, 4, 4], ["N", 3, 2], ["N"], []])
def test_output_that_is_not_one_row_of_scores_is_refused(shape):
    model = build([node("Relu", "x", "y")], [value("x", shape)], [value("y", shape)])
    with pytest.raises(ModelError, match=r"class scores at 'y' have shape \(.*\), but a classifier .*\(N, C\); choose"):
        head_of(model)


def test_scores_of_every_token_are_refused_behind_a_reshape_too():
    shapes = {"rows": np.asarray([-1, 3], np.int64), "back": np.asarray([-1, 5, 3], np.int64)}
    model = build(
        [node("Reshape", "x rows", "z"), node("Softmax", "z", "p"), node("Reshape", "p back", "y")],
        [value("x", ["N", 5, 3])],
        [value("y", ["N", 5, 3])],
        shapes,
    )
    with pytest.raises(ModelError, match=r"class scores at 'y' have shape \(N, 5, 3\)"):
        head_of(model)


def several(*outputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    nodes = [PRODUCT, node("Sigmoid", "z", "s"), node("ArgMax", "z", "label", axis=1)]
    return build(nodes, [value("x", ["N", 4])], list(outputs), WEIGHTS)


LABEL, SCORES, OTHER = value("label", ["N", 1], INT64), value("z", ["N", 3]), value("s", ["N", 3])


def test_only_floating_point_output_is_chosen():
    assert choose_output(prepare(several(LABEL, SCORES)).graph, None).name == "z"


def test_several_floating_point_outputs_need_a_choice():
    graph = prepare(several(LABEL, SCORES, OTHER)).graph
    with pytest.raises(ModelError, match=r"2 floating-point outputs \('z', 's'\); choose .*output=.*--output-name"):
        choose_output(graph, None)
    assert choose_output(graph, "s").name == "s"


def test_unknown_output_lists_those_there_are():
    with pytest.raises(ModelError, match=r"no output 'logit'; its outputs are 'label', 'z'\."):
        choose_output(prepare(several(LABEL, SCORES)).graph, "logit")


def test_integer_output_is_refused():
    with pytest.raises(ModelError, match=r"output 'label' has type int64, but class scores are floating-point"):
        choose_output(prepare(several(LABEL, SCORES)).graph, "label")
    with pytest.raises(ModelError, match=r"No output of the model has a floating-point type \(outputs: 'label'\)"):
        choose_output(prepare(several(LABEL)).graph, None)


def test_logits_model_drops_everything_else():
    forward = logits_model(several(LABEL, SCORES, OTHER), "z")
    assert [n.op_type for n in forward.graph.node] == ["MatMul"]
    assert [o.name for o in forward.graph.output] == ["z"]
    assert [i.name for i in forward.graph.initializer] == ["w"]
    assert forward.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
