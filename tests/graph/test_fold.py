"""Shape arithmetic that is computed before the model runs, and branches that are decided by it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.autodiff.sessions import session
from tests.graph.models import INT64, build, node, random, value
from vogcore.errors import ModelError
from vogcore.graph.fold import fold_shape_arithmetic
from vogcore.graph.prepare import prepare
from vogcore.graph.shapes import dims


def values(model: ir.Model) -> dict[str, ir.Value]:
    return {v.name: v for n in model.graph for v in n.outputs}


def heads(batch: int | str) -> onnx.ModelProto:
    """x (N, 6, 8) as (N, 2, 6, 4), with every size taken from Shape, as the legacy exporter of torch writes it."""
    nodes = [
        node("Shape", "x", "s", name="s"),
        node("Gather", "s i0", "n", name="n"),
        node("Gather", "s i1", "t", name="t"),
        node("Gather", "s i2", "d", name="d"),
        node("Div", "d two", "half", name="half"),
        node("Cast", "half", "cast", to=INT64, name="cast"),
        *(node("Unsqueeze", f"{a} zero", f"{a}_1", name=f"{a}_1") for a in ("n", "t", "cast")),
        node("Concat", "n_1 t_1 two_1 cast_1", "shape", axis=0, name="shape"),
        node("Reshape", "x shape", "r", name="r"),
        node("Transpose", "r", "y", perm=[0, 2, 1, 3]),
    ]
    weights = {"i0": 0, "i1": 1, "i2": 2, "two": 2, "zero": [0], "two_1": [2]}
    return build(
        nodes,
        [value("x", [batch, 6, 8])],
        [value("y", [None] * 4)],
        {name: np.asarray(number, np.int64) for name, number in weights.items()},
    )


def test_sizes_are_followed_through_the_arithmetic():
    prepared = prepare(heads("N"))
    assert dims(values(prepared)["r"]) == ("N", 6, 2, 4)
    # What depends on the open batch stays; everything else is computed.
    assert {n.op_type for n in prepared.graph} == {"Shape", "Gather", "Unsqueeze", "Concat", "Reshape", "Transpose"}
    x = random(3, 6, 8)
    (got,) = session(ir.to_proto(prepared)).run(None, {"x": x})
    np.testing.assert_array_equal(got, x.reshape(3, 6, 2, 4).transpose(0, 2, 1, 3))


def test_a_fixed_batch_leaves_no_arithmetic():
    prepared = prepare(heads(3))
    assert [n.op_type for n in prepared.graph] == ["Reshape", "Transpose"]


@pytest.mark.parametrize(
    ("shape", "target", "attributes", "expected"),
    [
        (["N", 6, 8], [0, -1], {}, ("N", 48)),
        (["N", 6, 8], [-1, 48], {}, ("N", 48)),
        (["N", 6, 8], [-1, 8], {}, (None, 8)),
        (["N", 6, 8], [0, 2, 3, -1], {}, ("N", 2, 3, 8)),
        ([4, 6, 8], [2, -1], {}, (2, 96)),
        ([None, None], [0, 0, 1], {}, (None, None, 1)),
    ],
)
def test_targets_of_reshape(shape, target, attributes, expected):
    model = build(
        [node("Identity", "x", "h"), node("Reshape", "h to", "r", **attributes), node("Relu", "r", "y")],
        [value("x", shape)],
        [value("y", [None] * len(target))],
        {"to": np.asarray(target, np.int64)},
    )
    loaded = ir.from_proto(model)
    values(loaded)["h"].shape = loaded.graph.inputs[0].shape
    fold_shape_arithmetic(loaded)
    assert dims(values(loaded)["r"]) == expected


def test_weights_behind_identities_are_weights():
    model = build(
        [node("Identity", "w", "a", name="a"), node("Identity", "a", "b", name="b"), node("Gemm", "x b", "y")],
        [value("x", ["N", 4])],
        [value("y", ["N", 3])],
        {"w": random(4, 3)},
    )
    prepared = prepare(model)
    assert [n.op_type for n in prepared.graph] == ["Gemm"]
    assert list(prepared.graph.initializers) == ["w"]


@pytest.mark.parametrize("mode", [False, True])
def test_the_mode_of_a_dropout_may_lie_behind_an_identity_or_a_comparison(mode):
    nodes = [
        node("Identity", "flag", "f1"),
        node("Not", "f1", "f2"),
        node("Not", "f2", "f3", name="again"),
        node("Dropout", "x ratio f3", "y"),
    ]
    weights = {"ratio": np.float32(0.5), "flag": np.asarray(mode)}
    model = build(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], weights)
    if mode:
        with pytest.raises(ModelError, match="training mode"):
            prepare(model)
    else:
        assert [n.op_type for n in prepare(model).graph] == ["Dropout"]


def branching(condition: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """y = If(c, relu(h * w), h) + h, with a weight in the branch whose name is taken outside."""
    then_weight = onnx.numpy_helper.from_array(np.float32(3), "w")
    then = helper.make_graph(
        [node("Mul", "h w", "m", name="the_Gemm"), node("Relu", "m", "t")],
        "then",
        [],
        [value("t", None)],
        [then_weight],
    )
    other = helper.make_graph([node("Identity", "h", "e")], "else", [], [value("e", None)])
    nodes = [
        node("Gemm", "x w", "h"),
        *condition,
        node("If", "c", "b", then_branch=then, else_branch=other),
        node("Add", "b h", "y"),
    ]
    return build(nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], {"w": random(4, 3), **weights}, check=False)


RANK = [node("Shape", "x", "s"), node("Size", "s", "k"), node("Equal", "k rank", "c")]


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("how", ["constant", "computed"])
def test_branch_of_a_constant_condition_is_inlined(taken, how):
    if how == "constant":
        model = branching([], {"c": np.asarray(taken)})
    else:
        model = branching(RANK, {"rank": np.asarray(2 if taken else 3, np.int64)})
    prepared = prepare(model)
    ops = [n.op_type for n in prepared.graph]
    assert ops == (["Gemm", "Mul", "Relu", "Identity", "Add"] if taken else ["Gemm", "Identity", "Identity", "Add"])
    assert "b" in values(prepared)
    names = [n.name for n in prepared.graph]
    assert len(set(names)) == len(names)
    x = random(5, 4)
    h = x @ random(4, 3)
    (got,) = session(ir.to_proto(prepared)).run(None, {"x": x})
    np.testing.assert_allclose(got, (np.maximum(3 * h, 0) if taken else h) + h, rtol=1e-5, atol=1e-6)


def test_branch_whose_result_is_the_output_keeps_its_name():
    branch = helper.make_graph([], "then", [], [value("x", ["N", 4])])
    other = helper.make_graph([node("Relu", "x", "r")], "else", [], [value("r", None)])
    model = build(
        [node("If", "c", "y", then_branch=branch, else_branch=other)],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
        {"c": np.asarray(True)},
        check=False,
    )
    proto = ir.to_proto(prepare(model))
    onnx.checker.check_model(proto)
    assert [v.name for v in proto.graph.output] == ["y"]


def test_branches_inside_of_branches_are_inlined():
    inner = helper.make_graph([node("Relu", "x", "deep")], "inner", [], [value("deep", None)])
    outer = helper.make_graph(
        [node("If", "c", "mid", then_branch=inner, else_branch=inner)], "outer", [], [value("mid", None)]
    )
    model = build(
        [node("If", "c", "y", then_branch=outer, else_branch=outer)],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
        {"c": np.asarray(True)},
        check=False,
    )
    prepared = prepare(model)
    assert [n.op_type for n in prepared.graph if n.op_type != "Identity"] == ["Relu"]


def test_a_branch_that_the_data_decides_stays():
    condition = [node("ReduceMax", "x", "top", keepdims=0), node("Greater", "top zero", "c")]
    prepared = prepare(branching(condition, {"zero": np.float32(0)}))
    assert "If" in [n.op_type for n in prepared.graph]


def test_newest_file_format_is_lowered_with_the_opset():
    model = build([node("Relu", "x", "y")], [value("x", ["N", 4])], [value("y", ["N", 4])], opset=24, ir_version=13)
    proto = ir.to_proto(prepare(model))
    assert (proto.ir_version, proto.opset_import[0].version) == (8, 18)


def test_a_type_of_the_newest_format_keeps_it():
    scaled = node("QuantizeLinear", "x s", "y", output_dtype=TensorProto.FLOAT4E2M1)
    outputs = [value("y", ["N", 4], TensorProto.FLOAT4E2M1)]
    model = build([scaled], [value("x", ["N", 4])], outputs, {"s": np.float32(1)}, opset=23, ir_version=11)
    assert prepare(model).ir_version == 11


# -- random arithmetic -----------------------------------------------------------------------------------------------

PAIRS = ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Equal", "Less", "GreaterOrEqual"]


@st.composite
def arithmetic(draw: st.DrawFn) -> onnx.ModelProto:
    """A chain of integer arithmetic on the shape of x, whose every intermediate vector is an output."""
    nodes, vectors = [node("Shape", "x", "v0")], ["v0"]
    weights = {"axis0": np.asarray([0], np.int64)}
    for i in range(1, draw(st.integers(2, 8))):
        kind = draw(st.sampled_from(["pair", "gather", "concat", "slice", "where", "cast", "reduce"]))
        a, b = draw(st.sampled_from(vectors)), draw(st.sampled_from(vectors))
        one = f"c{i}"
        weights[one] = np.asarray([draw(st.sampled_from([-7, -2, 1, 2, 3]))], np.int64)
        if kind == "pair":
            op = draw(st.sampled_from(PAIRS))
            nodes.append(node(op, f"{a} {one}", f"p{i}", name=f"p{i}"))
            nodes.append(node("Cast", f"p{i}", f"v{i}", to=INT64, name=f"v{i}"))
        elif kind == "gather":
            weights[one] = np.asarray([draw(st.sampled_from([0, -1]))] * draw(st.integers(1, 2)), np.int64)
            nodes.append(node("Gather", f"{a} {one}", f"v{i}", name=f"v{i}", axis=0))
        elif kind == "concat":
            nodes.append(node("Concat", f"{a} {b}", f"v{i}", name=f"v{i}", axis=0))
        elif kind == "slice":
            weights |= {f"b{i}": np.asarray([draw(st.sampled_from([0, -1]))], np.int64)}
            end, step = draw(st.sampled_from([(2**63 - 1, 1), (1, 1), (-1, 1), (1, -1), (-(2**63), -1)]))
            weights |= {f"e{i}": np.asarray([end], np.int64), f"s{i}": np.asarray([step], np.int64)}
            nodes.append(node("Slice", f"{a} b{i} e{i} axis0 s{i}", f"w{i}", name=f"w{i}"))
            nodes.append(node("Concat", f"w{i} {one}", f"v{i}", name=f"v{i}", axis=0))  # never empty
        elif kind == "where":
            nodes.append(node("Greater", f"{a} {one}", f"p{i}", name=f"p{i}"))
            nodes.append(node("Where", f"p{i} {a} {one}", f"v{i}", name=f"v{i}"))
        elif kind == "cast":
            nodes.append(node("Cast", a, f"f{i}", to=TensorProto.FLOAT, name=f"f{i}"))
            weights[one] = np.asarray([draw(st.sampled_from([0.5, -1.5, 2.0]))], np.float32)
            nodes.append(node("Mul", f"f{i} {one}", f"g{i}", name=f"g{i}"))
            nodes.append(node(draw(st.sampled_from(["Floor", "Ceil", "Neg", "Abs"])), f"g{i}", f"h{i}", name=f"h{i}"))
            nodes.append(node("Cast", f"h{i}", f"v{i}", to=INT64, name=f"v{i}"))
        else:
            op = draw(st.sampled_from(["ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin"]))
            nodes.append(node(op, f"{a} axis0", f"v{i}", name=f"v{i}", keepdims=1))
        vectors.append(f"v{i}")
    batch = draw(st.sampled_from([3, "N"]))
    outputs = [node("Identity", name, f"out_{name}", name=f"out_{name}") for name in vectors]
    return build(
        [*nodes, *outputs], [value("x", [batch, 5, 4])], [value(f"out_{v}", [None], INT64) for v in vectors], weights
    )


@settings(max_examples=60, deadline=None)
@given(arithmetic())
def test_random_arithmetic_keeps_its_values(model: onnx.ModelProto) -> None:
    x = random(3, 5, 4)
    wanted = ReferenceEvaluator(model).run(None, {"x": x})
    prepared = ir.to_proto(prepare(model))
    for one, other in zip(wanted, session(prepared).run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(other, one)
