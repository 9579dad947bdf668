"""Preparation for differentiation: evaluation mode, functions, constants, opsets."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from tests.graph.models import build, linear, node, random, value
from vogcore.errors import ModelError
from vogcore.graph.prepare import prepare

NORM = {"scale": random(3), "bias": random(3, seed=1), "mean": random(3, seed=2), "var": np.ones(3, np.float32)}
BATCH = [value("x", ["N", 3, 4, 4])]
OUT = [value("y", ["N", 3, None, None])]


def dropout(mode: bool | None, opset: int = 18) -> onnx.ModelProto:
    weights = {"ratio": np.float32(0.5)} | ({} if mode is None else {"mode": np.asarray(mode)})
    inputs = "x ratio" if mode is None else "x ratio mode"
    return build([node("Dropout", inputs, "y")], BATCH, OUT, weights, opset=opset)


def test_dropout_in_training_mode_is_refused_by_name():
    with pytest.raises(ModelError, match=r"Dropout node 'the_Dropout' is in training mode.*model\.eval\(\).*export"):
        prepare(dropout(True))


@pytest.mark.parametrize("mode", [False, None])
def test_dropout_in_evaluation_mode_passes(mode):
    assert [n.op_type for n in prepare(dropout(mode)).graph] == ["Dropout"]


def test_dropout_whose_mode_is_only_known_at_run_time_is_refused():
    model = dropout(True)
    del model.graph.initializer[1:]
    model.graph.input.append(value("mode", [], onnx.TensorProto.BOOL))
    with pytest.raises(ModelError, match="Dropout node 'the_Dropout' is in training mode"):
        prepare(model)


def test_dropout_whose_mode_is_an_initializer_with_a_default_passes():
    model = dropout(False)
    model.graph.input.append(value("mode", [], onnx.TensorProto.BOOL))
    prepare(model)


@pytest.mark.parametrize("opset", [14, 15, 18])
def test_batch_normalization_with_the_training_attribute_is_refused_by_name(opset):
    bn = node("BatchNormalization", "x scale bias mean var", "y m v", training_mode=1)
    with pytest.raises(ModelError, match="BatchNormalization node 'the_BatchNormalization' is in training mode"):
        prepare(build([bn], BATCH, OUT, NORM, opset=opset))


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_batch_normalization_with_extra_outputs_is_refused_by_name(opset):
    bn = node("BatchNormalization", "x scale bias mean var", "y m v sm sv")
    with pytest.raises(ModelError, match="BatchNormalization node 'the_BatchNormalization' is in training mode"):
        prepare(build([bn], BATCH, OUT, NORM, opset=opset))


@pytest.mark.parametrize("opset", [7, 9, 14, 15, 18])
def test_batch_normalization_in_evaluation_mode_passes(opset):
    bn = node("BatchNormalization", "x scale bias mean var", "y")
    prepared = prepare(build([bn], BATCH, OUT, NORM, opset=opset))
    assert [n.op_type for n in prepared.graph] == ["BatchNormalization"]
    assert prepared.opset_imports[""] == 18


def test_training_mode_inside_a_local_function_is_refused():
    body = [helper.make_node("Constant", [], ["t"], value=onnx.numpy_helper.from_array(np.asarray(True)))]
    body += [helper.make_node("Constant", [], ["r"], value_float=0.5), node("Dropout", "a r t", "b")]
    function = helper.make_function("local", "Drop", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    call = helper.make_node("Drop", ["x"], ["y"], domain="local")
    model = build([call], BATCH, OUT, functions=[function], domains=["local"])
    with pytest.raises(ModelError, match=r"Dropout node .*the_Dropout.* is in training mode"):
        prepare(model)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(6)], ids=["dropout", "batchnorm"])
def test_torch_export_in_training_mode_is_refused(layer):
    network = nn.Sequential(nn.Linear(4, 6), layer, nn.ReLU(), nn.Linear(6, 3)).train()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.randn(5, 4),), buffer, dynamo=False, opset_version=17, do_constant_folding=False,
            training=torch.onnx.TrainingMode.TRAINING,
        )  # fmt: skip
    with pytest.raises(ModelError, match=r"is in training mode, so its output .* export the checkpoint again"):
        prepare(onnx.load_model_from_string(buffer.getvalue()))


@pytest.mark.parametrize("opset", [15, 17, 18, 21])
def test_local_functions_are_inlined(opset):
    inner = helper.make_function(
        "local", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", opset)]
    )
    outer = helper.make_function(
        "local",
        "Block",
        ["a"],
        ["c"],
        [helper.make_node("Twice", ["a"], ["b"], domain="local"), node("Relu", "b", "c")],
        [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)],
    )
    calls = [helper.make_node("Block", [a], [b], domain="local") for a, b in (("x", "h"), ("h", "y"))]
    model = build(
        calls, [value("x", ["N", 3])], [value("y", ["N", 3])], functions=[inner, outer], domains=["local"], opset=opset
    )
    prepared = prepare(model)
    assert [n.op_type for n in prepared.graph] == ["Add", "Relu", "Add", "Relu"]
    assert not prepared.functions
    x = random(2, 3)
    (got,) = ReferenceEvaluator(onnx_proto(prepared)).run(None, {"x": x})
    np.testing.assert_allclose(got, 4 * np.maximum(x, 0))


def test_function_of_another_opset_is_refused():
    function = helper.make_function("local", "F", ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 17)])
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    model = build([call], [value("x", [2])], [value("y", [2])], functions=[function], domains=["local"], opset=18)
    with pytest.raises(ModelError, match="function 'F' has opset 17 but the model has opset 18; export"):
        prepare(model)


def test_initializers_among_the_inputs_and_constant_nodes_become_initializers():
    model = build(
        [
            helper.make_node("Constant", [], ["axes"], value_ints=[1]),
            node("Gemm", "x w b", "h"),
            node("ReduceMean", "h axes", "z"),
        ],
        [value("x", ["N", 4]), value("w", [4, 3]), value("b", [3])],
        [value("z", ["N", None])],
        {"w": random(4, 3), "b": random(3)},
    )
    prepared = prepare(model)
    assert [v.name for v in prepared.graph.inputs] == ["x"]
    assert set(prepared.graph.initializers) == {"w", "b", "axes"}
    assert [n.op_type for n in prepared.graph] == ["Gemm", "ReduceMean"]


def test_old_file_format_is_raised_with_the_opset():
    model = build(
        [node("Gemm", "x w b", "z")],
        [value("x", ["N", 4]), value("w", [4, 3]), value("b", [3])],
        [value("z", ["N", None])],
        {"w": random(4, 3), "b": random(3)},
        opset=9,
        ir_version=3,
    )
    onnx.checker.check_model(onnx_proto(prepare(model)))


def test_unused_nodes_are_dropped_and_the_model_is_left_alone():
    model = linear()
    model.graph.node.append(node("Relu", "z", "unused"))
    before = model.SerializeToString()
    assert [n.op_type for n in prepare(model).graph] == ["Gemm"]
    assert model.SerializeToString() == before


def test_opset_that_cannot_be_raised_is_refused():
    model = build([node("Upsample", "x s", "y")], BATCH, OUT, {"s": np.asarray([1, 1, 2, 2], np.float32)}, opset=9)
    model.opset_import[0].version = 2
    with pytest.raises(ModelError, match=r"opset 2 and ONNX could not raise it to 18 .*export it again"):
        prepare(model)


def onnx_proto(model) -> onnx.ModelProto:
    import onnx_ir

    return onnx_ir.to_proto(model)
