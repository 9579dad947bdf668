"""What cannot be differentiated, and what the refusal says: one sentence with the node, the reason, the way out."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.autodiff.sessions import session
from tests.graph.models import FLOAT, INT64, build, linear, node, random, value
from vogcore.autodiff import gradient_model, vjp_model
from vogcore.autodiff.registry import RULES
from vogcore.errors import ModelError, SettingsError, UnsupportedOpError

X, Z = value("x", ["N", 4]), value("z", ["N", 4])
SQUARE = {"w": random(4, 4)}


def refusal(kind: type[Exception], model, **settings) -> str:
    with pytest.raises(kind) as caught:
        gradient_model(model, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message.replace("...", ""), "one sentence"
    return message


def chain(*ops: str, domain: str = "") -> onnx.ModelProto:
    """x through operators of one input, then a matrix."""
    names = ["x", *(f"h{i}" for i in range(len(ops)))]
    nodes = [
        helper.make_node(op, [a], [b], name=f"layer_{i}", domain=domain if op == "Odd" else "")
        for i, (op, a, b) in enumerate(zip(ops, names, names[1:]))
    ]
    graph = helper.make_graph([*nodes, node("MatMul", f"{names[-1]} w", "z")], "g", [X], [Z],
                              [onnx.numpy_helper.from_array(SQUARE["w"], "w")])  # fmt: skip
    imports = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_integer_input():
    model = build(
        [node("Gather", "table i", "z")], [value("i", ["N"], INT64)], [value("z", ["N", 4])], {"table": random(9, 4)}
    )
    message = refusal(ModelError, model)
    for words in ("'i'", "int64", "only floating-point values have gradients", "embedding", "wrt=", "--wrt"):
        assert words in message


def test_several_inputs_are_listed_with_their_types():
    model = build([node("Add", "x mask", "z")], [X, value("mask", ["N", 4])], [Z])
    message = refusal(ModelError, model)
    for words in ("2 inputs", "'x' (float)", "'mask' (float)", "wrt=", "--wrt"):
        assert words in message
    assert gradient_model(model, wrt="x").graph.output[1].name == "vogcore_gradient"


def test_several_outputs():
    model = build([node("MatMul", "x w", "z"), node("Relu", "z", "s")], [X], [Z, value("s", ["N", 4])], SQUARE)
    message = refusal(ModelError, model)
    for words in ("2 floating-point outputs", "'z'", "'s'", "output=", "--output-name"):
        assert words in message


def test_unknown_operator_is_named_with_its_node_and_the_others():
    message = refusal(UnsupportedOpError, chain("Det2", "Relu", "Cheese", "Det2"))
    for words in ("Det2 node 'layer_0'", "no gradient rule for Det2", "also without a rule in this model: Cheese",
                  "export the model with other operators", "vogcore.score_gradients"):  # fmt: skip
        assert words in message


def test_unknown_operator_error_carries_operator_and_node():
    with pytest.raises(UnsupportedOpError) as caught:
        gradient_model(chain("Relu", "Odd", domain="com.example"))
    assert (caught.value.op, caught.value.node) == ("com.example.Odd", "layer_1")
    assert "com.example.Odd node 'layer_1'" in str(caught.value)


def test_node_without_a_name_is_called_by_its_output():
    model = chain("Det2")
    model.graph.node[0].name = ""
    assert "Det2 node 'h0'" in refusal(UnsupportedOpError, model)


def test_unknown_operator_off_the_path_does_no_harm():
    model = chain("Relu")
    model.graph.node.insert(0, helper.make_node("Det2", ["w"], ["unused"]))
    gradient_model(model)


def test_path_of_the_file_is_named(tmp_path):
    path = tmp_path / "epoch_3.onnx"
    onnx.save(build([node("Det", "x", "z")], [X], [Z]), path)
    assert refusal(UnsupportedOpError, path).startswith(f"{path}: Det node 'the_Det'")


def test_unknown_quantity_lists_those_there_are():
    message = refusal(SettingsError, linear(), of="logits")
    for words in ("'logits'", "logit", "probability", "log-probability", "loss", "margin", "centred-logit"):
        assert words in message


def test_unknown_wrt():
    message = refusal(ModelError, linear(), wrt="pixels")
    assert "no value named 'pixels' to differentiate with respect to" in message
    assert "'x'" in message


def test_unknown_output():
    message = refusal(ModelError, linear(), output="scores")
    assert "no output 'scores'" in message
    assert "'z'" in message
    with pytest.raises(ModelError, match=r"no output 'scores'; its outputs are 'z'\."):
        vjp_model(linear(), ["x"], "scores")


def test_integer_output():
    model = build(
        [node("MatMul", "x w", "z"), node("ArgMax", "z", "label", axis=1)],
        [X],
        [Z, value("label", ["N", 1], INT64)],
        SQUARE,
    )
    assert "'label' has type int64" in refusal(ModelError, model, output="label")


def test_model_without_floating_point_output():
    model = build([node("ArgMax", "x", "label", axis=1)], [X], [value("label", ["N", 1], INT64)])
    message = refusal(ModelError, model)
    for words in ("No output", "floating-point", "'label'", "export the class scores"):
        assert words in message


@pytest.mark.parametrize(
    "model",
    [
        build([node("ConstantOfShape", "s", "z")], [X], [value("z", [2, 4])], {"s": np.asarray([2, 4], np.int64)}),
        build([node("Sign", "x", "h"), node("MatMul", "h w", "z")], [X], [Z], SQUARE),
    ],
    ids=["constant", "piecewise constant"],
)
def test_output_that_does_not_depend_on_the_input(model):
    message = refusal(ModelError, model)
    for words in ("'z'", "does not depend on 'x'", "nothing to score"):
        assert words in message


def test_wrt_behind_the_logits():
    model = build([node("MatMul", "x w", "z"), node("Relu", "z", "late")], [X], [Z, value("late", ["N", 4])], SQUARE)
    assert "'z' does not depend on 'late'" in refusal(ModelError, model, wrt="late", output="z")


def test_gradient_model_given_again():
    message = refusal(ModelError, gradient_model(linear()))
    for words in ("'vogcore_target'", "gradient model", "give the forward model"):
        assert words in message


def test_branch_that_reads_the_input_is_not_skipped():
    # Its inputs do not say so: the branches read h from outside. A sum beside it would hide the loss.
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(op, "h", f"{name}_out", name="inside", domain=domain)], name, [], [value(f"{name}_out", ["N", 4])]
        )
        for name, op, domain in (("then", "Relu", ""), ("else", "Odd", "custom"))
    }
    model = build(
        [
            node("MatMul", "x w", "h"),
            node("ReduceMax", "h", "top", keepdims=0),
            node("Greater", "top zero", "flag"),
            node("If", "flag", "b", **branches),
            node("Add", "h b", "z"),
        ],
        [X],
        [Z],
        {**SQUARE, "zero": np.float32(0)},
        domains=["custom"],
    )
    assert "custom.Odd node 'inside'" in refusal(UnsupportedOpError, model)


def test_quantised_model_is_refused_at_the_quantisation():
    model = build(
        [
            node("QuantizeLinear", "x step", "q"),
            node("DequantizeLinear", "q step", "d"),
            node("Add", "x d", "z"),
        ],
        [X],
        [Z],
        {"step": np.float32(0.1)},
    )
    message = refusal(UnsupportedOpError, model)
    for words in ("QuantizeLinear node 'the_QuantizeLinear' rounds", "straight_through=True", "--straight-through"):
        assert words in message


def test_second_input_that_depends_on_the_input_is_not_dropped():
    nodes = [node("ReduceMax", "x", "bound", keepdims=0), node("Pad", "x pads bound", "z")]
    model = build(nodes, [X], [value("z", ["N", 4])], {"pads": np.zeros(4, np.int64)})
    with pytest.raises(UnsupportedOpError, match=r"Pad node 'the_Pad' cannot be differentiated: its .* depend"):
        vjp_model(model, ["x"])


def test_second_output_on_the_path_is_not_dropped(monkeypatch):
    """A rule that reads the first cotangent only, for an operator with three outputs."""
    monkeypatch.setitem(
        RULES, "LayerNormalization", dataclasses.replace(RULES["LayerNormalization"], all_outputs=False)
    )
    model = build(
        [node("LayerNormalization", "x s", "y m"), node("Add", "y m", "z")], [X], [Z], {"s": np.ones(4, np.float32)}
    )
    assert "LayerNormalization node" in refusal(UnsupportedOpError, model)


def test_intermediate_tensor_behind_integer_tokens():
    """The output of an embedding, with token ids as the model's input, against torch in float64."""
    torch.manual_seed(3)
    table, first, last = torch.randn(11, 6), torch.randn(6, 8), torch.randn(8, 4)
    model = build(
        [
            node("Gather", "table ids", "embedded"),
            node("MatMul", "embedded first", "h"),
            node("Tanh", "h", "t"),
            node("ReduceMean", "t axis", "pooled", keepdims=0),
            node("MatMul", "pooled last", "z", name="classify"),
        ],
        [value("ids", ["N", 5], INT64)],
        [value("z", ["N", 4])],
        {"table": table.numpy(), "first": first.numpy(), "last": last.numpy(), "axis": np.asarray([1], np.int64)},
    )
    gradient = gradient_model(model, wrt="embedded")
    ids, target = torch.randint(0, 11, (7, 5)), torch.arange(7) % 4
    runner = session(gradient)
    logits, got = runner.run(None, {"ids": ids.numpy(), "vogcore_target": target.numpy()})

    embedded = table.double()[ids].requires_grad_()
    scores = torch.tanh(embedded @ first.double()).mean(1) @ last.double()
    (expected,) = torch.autograd.grad(scores[torch.arange(7), target].sum(), embedded)
    np.testing.assert_allclose(logits, scores.detach().numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-6)
    properties = {p.key: p.value for p in gradient.metadata_props}
    assert properties == {"vogcore.of": "logit", "vogcore.wrt": "embedded", "vogcore.logits": "z"}
    assert gradient.graph.output[1].type.tensor_type.elem_type == TensorProto.FLOAT == FLOAT
