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


def function_of(opset: int, body: list[onnx.NodeProto], name: str = "F", **imports: int) -> onnx.FunctionProto:
    domains = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in imports.items())]
    return helper.make_function("local", name, ["a"], ["b"], body, domains)


MEAN = helper.make_node("ReduceMean", ["a"], ["m"], axes=[1], keepdims=1)  # its axes are an attribute until opset 17


@pytest.mark.parametrize(
    ("opset", "function"),
    [
        (18, function_of(17, [MEAN, node("Sub", "a m", "b")])),
        (20, function_of(11, [MEAN, node("Sub", "a m", "b")])),
        (15, function_of(13, [MEAN, node("Sub", "a m", "b")])),
        (13, function_of(18, [node("ReduceMean", "a axes", "m"), node("Sub", "a m", "b")])),
        (9, function_of(13, [MEAN, node("Sub", "a m", "b")])),
    ],
    ids=["17in18", "11in20", "13in15", "18in13", "13in9"],
)
def test_functions_of_another_opset_are_converted(opset, function):
    body = list(function.node)
    if body[0].input[-1] == "axes":
        del function.node[:]
        function.node.extend([helper.make_node("Constant", [], ["axes"], value_ints=[1]), *body])
    # Softmax means something else before opset 13, where it flattens the axes behind its own.
    nodes = [helper.make_node("F", ["x"], ["h"], domain="local"), node("Softmax", "h", "y", axis=1)]
    model = build(
        nodes,
        [value("x", [2, 3, 4])],
        [value("y", [2, 3, 4])],
        functions=[function],
        domains=["local"],
        opset=opset,
        check=False,
    )
    prepared = prepare(model)
    assert prepared.opset_imports[""] == 18
    assert not prepared.functions
    x = random(2, 3, 4)
    (got,) = ReferenceEvaluator(onnx_proto(prepared)).run(None, {"x": x})
    centred = np.exp(x - x.mean(1, keepdims=True))
    np.testing.assert_allclose(got, centred / centred.sum((1, 2) if opset < 13 else 1, keepdims=True), rtol=1e-5)


def test_nested_functions_of_other_opsets_are_converted():
    inner = function_of(13, [MEAN, node("Sub", "a m", "b")], "Inner")
    outer = function_of(18, [helper.make_node("Inner", ["a"], ["c"], domain="local"), node("Relu", "c", "b")], local=1)
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    model = build(
        [call],
        [value("x", [2, 3])],
        [value("y", [2, 3])],
        functions=[inner, outer],
        domains=["local"],
        opset=15,
        check=False,
    )
    x = random(2, 3)
    (got,) = ReferenceEvaluator(onnx_proto(prepare(model))).run(None, {"x": x})
    np.testing.assert_allclose(got, np.maximum(x - x.mean(1, keepdims=True), 0), rtol=1e-5)


def test_functions_with_attributes_are_inlined():
    body = helper.make_node("LeakyRelu", ["a"], ["b"])
    body.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function("local", "F", ["a"], ["b"], [body], [helper.make_opsetid("", 15)], ["slope"])
    call = helper.make_node("F", ["x"], ["y"], domain="local", slope=0.25)
    for opset in (15, 18):
        model = build(
            [call],
            [value("x", [4])],
            [value("y", [4])],
            functions=[function],
            domains=["local"],
            opset=opset,
            check=False,
        )
        (n,) = prepare(model).graph
        assert (n.op_type, n.attributes["alpha"].as_float()) == ("LeakyRelu", 0.25)


def test_a_model_of_calls_alone_takes_the_opset_of_its_functions():
    function = function_of(17, [MEAN, node("Sub", "a m", "b")])
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    model = build(
        [call], [value("x", [2, 3])], [value("y", [2, 3])], functions=[function], domains=["local"], check=False
    )
    del model.opset_import[0]
    prepared = prepare(model)
    assert prepared.opset_imports[""] == 18
    assert [n.op_type for n in prepared.graph] == ["ReduceMean", "Sub"]


def test_function_that_cannot_be_converted_is_refused():
    function = function_of(2, [node("Upsample", "a", "b", scales=[1.0, 1.0, 2.0, 2.0])])
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    model = build([call], BATCH, OUT, functions=[function], domains=["local"], opset=18, check=False)
    with pytest.raises(ModelError, match=r"local function .* could not convert it .*without local functions"):
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


def test_notes_of_the_exporter_are_dropped_and_metadata_of_the_model_kept():
    model = linear()
    model.metadata_props.add(key="vogcore.step", value="7")
    for part in (model.graph, model.graph.node[0], model.graph.output[0]):
        part.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File ...")
    model.graph.node[0].doc_string = "File ..."
    proto = onnx_proto(prepare(model))
    assert b"File ..." not in proto.SerializeToString()
    assert [(p.key, p.value) for p in proto.metadata_props] == [("vogcore.step", "7")]


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
