"""Rules that users register: for operators of their own domain, for local functions, over rules of vogcore's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import vogcore
from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from tests.graph.models import DOUBLE, build, node, random, value
from vogcore.autodiff import Call, Emitter, register_vjp, unregister_vjp
from vogcore.autodiff.custom import own_operators
from vogcore.autodiff.registry import NO_GRADIENT, RULES
from vogcore.errors import ModelError, SettingsError, UnsupportedOpError
from vogcore.testing import check_vjp, one_node, temporary_vjp

ROOT = Path(__file__).parents[2]
DOMAIN = "com.example"
X = np.random.default_rng(0).normal(size=(4, 3))


def swish(call: Call):
    emit, x = call.emit, call.x
    s = emit.op("Sigmoid", x)
    slope = emit.op("Add", s, emit.op("Mul", call.y, emit.op("Sub", emit.scalar(1.0, x), s)))
    return [emit.op("Mul", call.dy, slope)]


def in_python(x):
    return x / (1 + np.exp(-x))


def fed(op: str = "Mine") -> onnx.ModelProto:
    """x -> Mine -> Softmax over the last axis -> w: what comes behind the operator needs its rank."""
    return build(
        [
            helper.make_node(op, ["x"], ["h"], "mine", domain=DOMAIN),
            node("Softmax", "h", "p", axis=1),
            node("MatMul", "p w", "z"),
        ],
        [value("x", ["N", 3], DOUBLE)],
        [value("z", ["N", 4], DOUBLE)],
        {"w": random(3, 4).astype(np.float64)},
        domains=[DOMAIN],
    )


def function_model(opset: int = 18, name: str = "Mine") -> onnx.ModelProto:
    """The same with float32 and the operator as a local function, which calls another one."""
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": {opset}, "{DOMAIN}": 1]>
        test (float[N, 3] x) => (float[N, 3] z)
        {{ h = {DOMAIN}.{name} (x)  z = {DOMAIN}.Twice (h) }}
        <domain: "{DOMAIN}", opset_import: ["": {opset}, "{DOMAIN}": 1]>
        {name} (x) => (y) {{ s = Sigmoid (x)  y = Mul (x, s) }}
        <domain: "{DOMAIN}", opset_import: ["": {opset}]>
        Twice (x) => (y) {{ y = Add (x, x) }}
    """)


@pytest.fixture(autouse=True)
def nothing_stays_registered():
    before = dict(RULES)
    yield
    assert dict(RULES) == before
    assert own_operators() == {}


def test_rule_of_an_operator_that_onnx_does_not_know():
    with temporary_vjp(DOMAIN, "Mine", swish, like=0):
        assert check_vjp(fed(), {"x": X}, functions={(DOMAIN, "Mine"): in_python}) < 1e-7


@pytest.mark.parametrize("like", [None, 0])
def test_what_comes_behind_needs_the_shape(like):
    with temporary_vjp(DOMAIN, "Mine", swish, like=like):
        if like is None:
            with pytest.raises(UnsupportedOpError, match=r"rank of .* is not known"):
                vogcore.vjp_model(fed(), "x")
        else:
            vogcore.vjp_model(fed(), "x")


def test_shapes_stored_in_the_model_do_as_well():
    model = fed()
    model.graph.value_info.append(value("h", ["N", 3], DOUBLE))
    with temporary_vjp(DOMAIN, "Mine", swish):
        assert check_vjp(model, {"x": X}, functions={(DOMAIN, "Mine"): in_python}) < 1e-7


def test_tensor_of_unknown_type_is_no_source():
    with temporary_vjp(DOMAIN, "Mine", swish), pytest.raises(ModelError, match=r"The type of 'h' is not known"):
        vogcore.gradient_model(fed(), wrt="h")


def test_operator_at_the_end_and_several_in_a_row():
    nodes = [helper.make_node("Mine", [f"h{i}"], [f"h{i + 1}"], f"mine {i}", domain=DOMAIN) for i in range(3)]
    model = build(nodes, [value("h0", ["N", 3], DOUBLE)], [value("h3", ["N", 3], DOUBLE)], domains=[DOMAIN])
    with temporary_vjp(DOMAIN, "Mine", swish, like=0):
        assert check_vjp(model, {"h0": X}, functions={(DOMAIN, "Mine"): in_python}) < 1e-7
        gradient = vogcore.gradient_model(model)
    assert [n.op_type for n in gradient.graph.node].count("Mine") == 3
    onnx.checker.check_model(gradient)


def test_operator_of_an_old_model():
    model = fed()
    model.opset_import[0].version = 13
    with temporary_vjp(DOMAIN, "Mine", swish, like=0):
        assert check_vjp(model, {"x": X}, functions={(DOMAIN, "Mine"): in_python}) < 1e-7


def test_several_inputs_attributes_and_broadcasting():
    def rule(call: Call):
        """y = a b ** k with integer k."""
        emit, k = call.emit, call.attribute("k")
        power = emit.op("Pow", call.input(1), emit.scalar(float(k), call.x))
        less = emit.op("Pow", call.input(1), emit.scalar(float(k - 1), call.x))
        db = emit.op("Mul", emit.op("Mul", call.dy, call.x), emit.op("Mul", less, emit.scalar(float(k), call.x)))
        return [emit.op("Mul", call.dy, power), db]

    def forward(a, b, k):
        return a * b**k

    positive = np.random.default_rng(1).uniform(0.5, 2, size=(2, 4, 1))
    for dynamic in (False, True):
        model, feeds = one_node(DOMAIN, "Power", [X[:, :1], positive], {"k": 3}, dynamic=dynamic)
        model.graph.output[0].CopyFrom(value("out0", ["A", "B", "C"] if dynamic else [2, 4, 1], DOUBLE))
        with temporary_vjp(DOMAIN, "Power", rule, broadcasts=True):
            assert check_vjp(model, feeds, functions={(DOMAIN, "Power"): forward}) < 1e-7


def test_second_output():
    def rule(call: Call):
        """u = 2 x, v = 3 x."""
        parts = [
            call.emit.op("Mul", dy, call.emit.scalar(factor, call.x))
            for dy, factor in zip(call.cotangents, (2.0, 3.0))
            if dy is not None
        ]
        return [parts[0] if len(parts) == 1 else call.emit.op("Add", *parts)]

    model = build(
        [helper.make_node("Both", ["x"], ["u", "v"], "both", domain=DOMAIN), node("Mul", "u v", "y")],
        [value("x", ["N", 3], DOUBLE)], [value("y", ["N", 3], DOUBLE)], domains=[DOMAIN],
    )  # fmt: skip
    functions = {(DOMAIN, "Both"): lambda x: (2 * x, 3 * x)}
    with temporary_vjp(DOMAIN, "Both", rule, like=0, all_outputs=True):
        assert check_vjp(model, {"x": X}, functions=functions) < 1e-7
    with (
        temporary_vjp(DOMAIN, "Both", rule, like=0),
        pytest.raises(UnsupportedOpError, match="an output other than its first"),
    ):
        vogcore.vjp_model(model, "x")


def test_rule_may_emit_an_operator_of_its_domain():
    def rule(call: Call):
        return call.emit.multi("MineGrad", [call.x, call.dy], 1, {"exact": 1}, domain="org.other")

    def backward(x, dy, exact):
        s = 1 / (1 + np.exp(-x))
        return dy * (s + x * s * (1 - s)) * exact

    functions = {(DOMAIN, "Mine"): in_python, ("org.other", "MineGrad"): backward}
    with temporary_vjp(DOMAIN, "Mine", rule, like=0):
        assert check_vjp(fed(), {"x": X}, functions=functions) < 1e-7
        gradient = vogcore.vjp_model(fed(), "x")
    onnx.checker.check_model(gradient)
    assert {entry.domain: entry.version for entry in gradient.opset_import}["org.other"] == 1


def test_local_function_with_a_rule_is_kept_whole():
    x = X.astype(np.float32)
    cotangent = random(4, 3, seed=3)
    written_out = vogcore.vjp_model(function_model(), "x")
    assert not written_out.functions
    with temporary_vjp(DOMAIN, "Mine", swish):
        kept = vogcore.vjp_model(function_model(), "x")
        assert check_vjp(function_model(), {"x": x}, engine="onnxruntime") < 1e-3
        assert vogcore.check_model(function_model(), of="output", threads=1).ok
    assert [function.name for function in kept.functions] == ["Mine"]
    assert [n.op_type for n in kept.graph.node].count("Mine") == 1
    feeds = {"x": x, "vogcore_cotangent": cotangent}
    for got, want in zip(session(kept).run(None, feeds), session(written_out).run(None, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_rule_of_a_local_function_is_what_counts():
    def twice_the_gradient(call: Call):
        return [call.emit.op("Mul", call.dy, call.emit.scalar(2.0, call.x))]

    with temporary_vjp(DOMAIN, "Twice", twice_the_gradient), temporary_vjp(DOMAIN, "Mine", lambda call: [call.dy]):
        run = session(vogcore.vjp_model(function_model(), "x"))
    ones = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(run.run(None, {"x": X.astype(np.float32), "vogcore_cotangent": ones})[1], 2 * ones)


def test_local_function_of_an_old_model():
    """Without a rule it is written out and raised with the rest; with one that is not possible."""
    vogcore.vjp_model(function_model(opset=13), "x")
    with (
        temporary_vjp(DOMAIN, "Mine", swish),
        pytest.raises(ModelError, match=r"opset 13, and its local function 'Mine'.*export the model with opset 18"),
    ):
        vogcore.vjp_model(function_model(opset=13), "x")


def test_the_forward_model_for_the_logits_needs_no_rule():
    from vogcore.graph import logits_model

    with temporary_vjp(DOMAIN, "Mine", swish):
        assert not logits_model(function_model()).functions


def test_decorator_registers_until_it_is_taken_back():
    decorated = register_vjp(DOMAIN, "Mine", like=0)(swish)
    assert decorated is swish
    vogcore.vjp_model(fed(), "x")
    unregister_vjp(DOMAIN, "Mine")
    with pytest.raises(UnsupportedOpError, match=r"com\.example\.Mine node 'mine'"):
        vogcore.vjp_model(fed(), "x")


def test_rule_that_there_is_is_replaced_on_request_only():
    register_vjp(DOMAIN, "Mine")(swish)
    with pytest.raises(
        SettingsError, match=r"com\.example\.Mine has a gradient rule that was registered before; .*replace=True"
    ):
        register_vjp(DOMAIN, "Mine")
    with pytest.raises(SettingsError, match=r"Relu has a gradient rule in vogcore; .*replace=True"):
        register_vjp("", "Relu")
    with pytest.raises(SettingsError, match=r"Round is known to have no gradient; .*replace=True"):
        register_vjp("ai.onnx", "Round")

    def other(call: Call):
        return [call.dy]

    built_in = RULES["Relu"]
    register_vjp(DOMAIN, "Mine", replace=True)(other)
    register_vjp("", "Relu", replace=True)(other)
    register_vjp("", "Relu", replace=True)(swish)
    assert RULES[f"{DOMAIN}.Mine"].function is other
    assert RULES["Relu"].function is swish
    unregister_vjp(DOMAIN, "Mine")
    unregister_vjp("", "Relu")
    assert RULES["Relu"] is built_in
    for domain, op in ((DOMAIN, "Mine"), ("", "Relu"), ("", "Nope")):
        with pytest.raises(SettingsError, match=f"No gradient rule was registered for .*{op}"):
            unregister_vjp(domain, op)


def test_temporary_rule_gives_way_to_what_was_registered():
    register_vjp(DOMAIN, "Mine", like=0)(swish)

    def fail_inside() -> None:
        with temporary_vjp(DOMAIN, "Mine", lambda call: [call.dy]):
            assert own_operators() == {(DOMAIN, "Mine"): None}
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail_inside()
    assert RULES[f"{DOMAIN}.Mine"].function is swish
    assert own_operators() == {(DOMAIN, "Mine"): 0}
    unregister_vjp(DOMAIN, "Mine")


def test_rounding_can_be_given_a_gradient():
    """The straight-through estimator, for an operator whose derivative is zero."""
    assert "Round" in NO_GRADIENT
    model = build([node("Round", "x", "h"), node("Mul", "h h", "y")], [value("x", ["N"], DOUBLE)],
                  [value("y", ["N"], DOUBLE)])  # fmt: skip
    with pytest.raises(ModelError, match="does not depend on 'x'"):
        vogcore.vjp_model(model, "x")
    with temporary_vjp("", "Round", lambda call: [call.dy]):
        run = evaluator(vogcore.vjp_model(model, "x"))
    x = np.asarray([0.4, 1.7, -2.2])
    np.testing.assert_array_equal(run.run(None, {"x": x, "vogcore_cotangent": np.ones(3)})[1], 2 * np.round(x))


def test_rule_that_forgets_an_input_is_refused():
    with (
        temporary_vjp(DOMAIN, "Mine", lambda call: [None], like=0),
        pytest.raises(UnsupportedOpError, match="its input 0 depends on the model's input"),
    ):
        vogcore.vjp_model(fed(), "x")


def test_the_language_of_rules_is_what_the_document_says():
    """Every name in its two tables exists; renaming one would break rules that users wrote."""
    text = (ROOT / "docs/custom-operators.md").read_text(encoding="utf-8")
    for owner, heading in ((Call, "of the `Call`"), (Emitter, "of the emitter")):
        table = text.split(f"| {heading} | |")[1].split("\n\n")[0]
        cells = [row.split("|")[1] for row in table.splitlines()[2:]]
        names = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
        assert len(names) > 10
        known = {*vars(owner), *getattr(owner, "__dataclass_fields__", {})}
        assert names - known == set()
