"""The table of CUDA kernels, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import vogcore.graph.cuda
from tests.graph.models import INT64, build, node, random, value
from vogcore.graph.cuda import cuda_fallbacks

IMAGE = [value("x", ["N", 3, 8, 8])]
OUT = [value("y", [None, None, None, None])]


def reasons(model: onnx.ModelProto) -> list[tuple[str, str]]:
    return [(fallback.op, fallback.why) for fallback in cuda_fallbacks(model)]


def test_table_says_which_versions_it_holds_for():
    table = json.loads(Path(vogcore.graph.cuda.__file__).with_name("cuda_kernels.json").read_text())
    assert table["onnxruntime"] == ["1.27.0", "1.31.1"]
    assert len(table["kernels"]) > 130


def test_an_operator_can_be_covered_at_one_opset_and_not_at_another():
    def pool(opset: int) -> onnx.ModelProto:
        return build([node("MaxPool", "x", "y", kernel_shape=[2, 2])], IMAGE, OUT, opset=opset, ir_version=10)

    assert reasons(pool(18)) == []
    assert reasons(pool(22)) == [("MaxPool", "no kernel at opset 22")]


def test_types_count():
    condition = [value("c", ["N"], TensorProto.BOOL), value("a", ["N"], TensorProto.INT16)]
    model = build([node("Where", "c a a", "y")], condition, [value("y", ["N"], TensorProto.INT16)])
    assert reasons(model) == [("Where", "no kernel for these types (bool, int16, int16, int16)")]


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"pads": [1, 0, 0, 1]}, ["asymmetric pads"]),
        ({"auto_pad": "SAME_UPPER"}, ["auto_pad"]),
        ({"pads": [1, 1, 1, 1]}, []),
    ],
)
def test_transposed_convolutions_that_the_provider_refuses(attributes, why):
    deconv = node("ConvTranspose", "x w", "y", strides=[2, 2], **attributes)
    model = build([deconv], IMAGE, OUT, {"w": random(3, 2, 3, 3)})
    assert reasons(model) == [("ConvTranspose", reason) for reason in why]


@pytest.mark.parametrize("before", [0, 1])
def test_gru_needs_linear_before_reset(before):
    gru = node("GRU", "x w r", "y", hidden_size=4, linear_before_reset=before)
    model = build([gru], [value("x", [5, "N", 3])], OUT, {"w": random(1, 12, 3), "r": random(1, 12, 4)})
    assert reasons(model) == ([] if before else [("GRU", "linear_before_reset=0")])


def test_arithmetic_on_shapes_and_constants_is_no_fallback():
    nodes = [
        node("Shape", "x", "s"),
        node("BitShift", "s one", "t", direction="LEFT"),  # no kernel, but never on the data
        node("Acos", "half", "c"),  # constant, so computed when the model is loaded
        node("Acos", "x", "y", name="on_path"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        IMAGE,
        [*OUT, value("t", [4], INT64), value("c", [])],
        [onnx.numpy_helper.from_array(np.uint64(1), "one"), onnx.numpy_helper.from_array(np.float32(0.5), "half")],
    )
    graph.value_info.append(value("s", [4], INT64))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert [fallback.name for fallback in cuda_fallbacks(model)] == ["on_path"]


def test_bodies_and_other_domains_are_looked_at():
    body = helper.make_graph([node("Acos", "x", "b")], "body", [], [value("b", None)])
    branch = node("If", "c", "y", then_branch=body, else_branch=body)
    scaler = helper.make_node("Scaler", ["y"], ["z"], domain="ai.onnx.ml")
    graph = helper.make_graph([branch, scaler], "g", [*IMAGE, value("c", [], TensorProto.BOOL)], [value("z", None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)])
    assert reasons(model) == [("Acos", "no kernel at opset 18")] * 2 + [
        ("Scaler", "no kernel for the domain ai.onnx.ml")
    ]


@pytest.mark.parametrize("opset", [18, 21])
def test_operators_that_are_written_out_count_by_their_parts(opset):
    losses = [node("SoftmaxCrossEntropyLoss", "x t", "y"), node("Mish", "x", "m")]
    inputs = [value("x", ["N", 5]), value("t", ["N"], INT64)]
    model = build(losses, inputs, [value("y", []), value("m", ["N", 5])], opset=opset, ir_version=10)
    assert reasons(model) == []
