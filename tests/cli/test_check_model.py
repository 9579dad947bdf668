"""``vogcore check-model``: what it prints, and its exit status."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper


@pytest.fixture
def check(cli):
    def call(*words):
        return cli("check-model", "--threads", "1", *words)

    return call


def save(folder, tools, name, nodes, inputs, weights, outputs=(("logits", TensorProto.FLOAT, ["n", 4]),)):
    model = tools.build(nodes, inputs, outputs, weights)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    tools.save(model, folder / name, {})


@pytest.fixture
def odd(run_folder, tools):
    """Six nodes of an operator without a rule, and one of another."""
    middle = [
        helper.make_node("Odd", [f"a{i or ''}"], [f"a{i + 1}"], f"odd {i}", domain="com.example") for i in range(6)
    ]
    middle.append(helper.make_node("Strange", ["a6"], ["h"], "strange", domain="com.example"))
    model = tools.classifier(middle=middle)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    tools.save(model, run_folder / "odd.onnx", {})
    return run_folder


@pytest.fixture
def text(run_folder, tools):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["embedded"], "embed"),
        helper.make_node("ReduceMean", ["embedded", "axis"], ["pooled"], "pool", keepdims=0),
        helper.make_node("MatMul", ["pooled", "w"], ["logits"], "last"),
    ]
    weights = {
        "table": rng.standard_normal((9, 5)).astype(np.float32),
        "w": rng.standard_normal((5, 4)).astype(np.float32),
        "axis": np.array([1]),
    }
    save(run_folder, tools, "text.onnx", nodes, [("tokens", TensorProto.INT64, ["n", 6])], weights)
    return run_folder


def test_a_model_that_can_be_differentiated(run_folder, check):
    result = check("ckpt-0.onnx")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "ckpt-0.onnx"
    assert "opset 18, 3 nodes, 80 weights (320 bytes)" in lines[1]
    for words in (
        "  input   x       float (n, 6)",
        "  output  logits  float (n, 4)",
        "The batch is open.",
        "Logits: 'logits', float (n, 4), computed by the MatMul node 'last'.",
        "Path from 'x', float (n, 6), to 'logits': 3 nodes (2 MatMul, 1 Tanh).",
        "Compared with finite differences on random input (4 examples, 3 directions): relative error ",
    ):
        assert words in result.out
    assert lines[-1] == "OK: the model can be differentiated, and its gradient agrees with finite differences."


def test_a_softmax_that_is_looked_through(run_folder, tools, check):
    model = tools.classifier()
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"], "normalise", axis=-1))
    model.graph.output[0].name = "p"
    tools.save(model, run_folder / "softmax.onnx", {})
    result = check("softmax.onnx")
    assert result.status == 0
    assert "Logits: 'logits', " in result.out
    assert "; the Softmax behind them is looked through." in " ".join(result.out.split())


def test_operators_without_a_rule(odd, check):
    result = check("odd.onnx")
    assert (result.status, result.err) == (1, "")
    assert "  com.example.Odd, 6 nodes: 'odd 0', 'odd 1', 'odd 2', 'odd 3', and 2 more\n" in result.out
    assert "  com.example.Strange, 1 node: 'strange'\n" in result.out
    verdict = " ".join(result.out.split("\n\n")[-1].split())
    assert verdict.startswith("NO GRADIENT: The operators com.example.Odd, com.example.Strange on the path ")
    assert "Compared" not in result.out


def test_nodes_lists_the_path(odd, check):
    lines = [line.split() for line in check("odd.onnx", "--nodes").out.splitlines()]
    assert ["MatMul", "first"] in lines
    assert ["com.example.Odd", "odd", "5", "no", "rule"] in lines
    assert ["com.example.Strange", "strange", "no", "rule"] in lines
    assert ["MatMul", "last"] in lines


def test_tokens_lead_to_the_embedding(text, check):
    result = check("text.onnx")
    assert result.status == 1
    assert "  embedded  float (n, 6, 5)\nTry: vogcore check-model text.onnx --wrt embedded\n" in result.out
    assert "NO GRADIENT: The input 'tokens' has type int64" in result.out
    result = check("text.onnx", "--wrt", "embedded")
    assert result.status == 0
    assert "Path from 'embedded', float (n, 6, 5), to 'logits': 2 nodes (1 ReduceMean, 1 MatMul)." in result.out


def test_several_outputs(run_folder, tools, check):
    tools.save(tools.classifier(more_outputs=True), run_folder / "two.onnx", {})
    result = check("two.onnx")
    assert result.status == 1
    assert "--output-name" in result.out
    assert check("two.onnx", "--output-name", "auxiliary").status == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--of", "margin", "--target", "predicted"],
        ["--of", "loss", "--target", "2"],
        ["--of", "output"],
        ["--of", "output", "--target", "1"],
        ["--wrt", "h", "--lowering", "cuda"],
        ["--shape", "x=2,6", "--seed", "5"],
    ],
    ids=" ".join,
)
def test_options(words, run_folder, check):
    result = check("ckpt-0.onnx", *words)
    assert result.status == 0, result.out
    assert ("Output: 'logits'" in result.out) == ("output" in words)


def test_a_regression_is_told_of_its_option(run_folder, tools, check):
    tools.save(tools.classifier(classes=1), run_folder / "price.onnx", {})
    assert "for the output of a regression choose --of output." in " ".join(check("price.onnx").out.split())
    assert "--of output" not in check("price.onnx", "--of", "output").out


def test_a_class_that_is_missing(run_folder, check):
    result = check("ckpt-0.onnx", "--target", "4")
    assert result.status == 1
    assert "NO GRADIENT: target=4 is no class of 'logits', which has the classes 0 to 3." in result.out


def test_a_wrong_gradient(run_folder, check):
    from vogcore.testing import temporary_vjp

    with temporary_vjp("", "Tanh", lambda call: [call.dy]):
        result = check("ckpt-0.onnx")
    assert result.status == 1
    assert "\n\nWRONG: The gradient differs from finite differences by " in result.out
    assert "Please report this with the model." in result.out


def test_json(odd, check):
    good = json.loads(check("ckpt-0.onnx", "--json").out)
    assert (good["ok"], good["self_check"]["verdict"], good["wrt"]["name"]) == (True, "agrees", "x")
    result = check("odd.onnx", "--json")
    assert result.status == 1
    bad = json.loads(result.out)
    assert (bad["ok"], len(bad["problems"])) == (False, 7)
    assert bad["path"][0] == {"op": "MatMul", "name": "first", "output": "a"}


def test_names_in_the_model_are_printed_harmlessly(run_folder, tools, check):
    evil = "x\x1b[2J"
    model = tools.classifier()
    model.graph.input[0].name = model.graph.node[0].input[0] = evil
    model.graph.node[0].name = "n\x1b[2J"
    model.producer_name = "p\x1b[2J"
    tools.save(model, run_folder / "evil.onnx", {})
    for words in ([], ["--nodes"], ["--json"], ["--wrt", "nope"]):
        out = check("evil.onnx", *words).out
        assert "\x1b" not in out
        assert "[2J" in out


def test_lines_fit_a_terminal(odd, text, check):
    for name in ("ckpt-0.onnx", "odd.onnx", "text.onnx"):
        for words in ([], ["--nodes"]):
            assert max(map(len, check(name, *words).out.splitlines())) <= 100


def test_nothing_is_written(run_folder, tools, check):
    before = tools.listing(run_folder)
    check("ckpt-0.onnx")
    assert tools.listing(run_folder) == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nope.onnx"], ["nope.onnx", "does not exist"]),
        (["train.npz"], ["train.npz", "not an ONNX model"]),
        ([], ["ONNX"]),
        (["ckpt-0.onnx", "--of", "logits"], ["--of", "logits"]),
        (["ckpt-0.onnx", "--target", "label"], ["--target", "'label'", "predicted"]),
        (["ckpt-0.onnx", "--target", "-1"], ["--target"]),
        (["ckpt-0.onnx", "--target", "sum"], ["target='sum'", "of='output'"]),
        (["ckpt-0.onnx", "--shape", "x"], ["--shape", "x=4,3,32,32"]),
        (["ckpt-0.onnx", "--shape", "x=0"], ["--shape", "positive"]),
        (["ckpt-0.onnx", "--shape", "y=1,6"], ["'y'", "'x'"]),
        (["ckpt-0.onnx", "--shape", "x=1,7"], ["(1, 7)", "(n, 6)"]),
        (["ckpt-0.onnx", "--lowering", "tpu"], ["--lowering", "tpu"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_bad_input(words, named, run_folder, check, tools):
    tools.refused(check(*words), *named)
