"""Lowering the opset of a model, and writing out what an older opset lacks."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, defs, helper
from onnx.reference import ReferenceEvaluator

from tests.autodiff.sessions import session
from tests.graph.models import build, node, random, value
from vogcore.graph.decompose import decompose_for_cuda
from vogcore.graph.lower_opset import lower_opset, lowest_opset

X = [value("x", ["N", 6, 8, 8])]
Y = [value("y", ["N", None, None, None])]
IR = 12


def lowered(model: onnx.ModelProto, *, decompose: bool = False) -> onnx.ModelProto:
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    if decompose:
        decompose_for_cuda(inferred)
    lower_opset(inferred)
    result = ir.to_proto(inferred)
    onnx.checker.check_model(result)
    return result


def opset(model: onnx.ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain == "")


def one(op: str, version: int, inputs: str = "x", element: int = TensorProto.FLOAT, **attributes) -> onnx.ModelProto:
    weights = {"w": random(4, 6, 3, 3), "s": np.asarray([1, 1, 2, 2], np.float32), "p": np.asarray([0, 0, 1, 1] * 2)}
    used = {name: array for name, array in weights.items() if name in inputs.split()}
    outputs = [value("y", ["N", None, None, None], element)]
    return build(
        [node(op, inputs, "y", **attributes)],
        [value("x", ["N", 6, 8, 8], element)],
        outputs,
        used,
        opset=version,
        ir_version=IR,
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (one("Conv", 22, "x w"), 18),
        (one("Relu", 24), 18),
        (one("MaxPool", 22, kernel_shape=[2, 2]), 18),
        (one("AveragePool", 22, kernel_shape=[2, 2]), 18),
        (one("AveragePool", 22, kernel_shape=[2, 2], dilations=[1, 1]), 18),
        (one("AveragePool", 22, kernel_shape=[2, 2], dilations=[2, 2]), 19),
        (one("AveragePool", 22, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1), 19),
        (one("Resize", 24, "x _ s"), 18),
        (one("Resize", 24, "x _ s", coordinate_transformation_mode="half_pixel_symmetric"), 19),
        (one("Pad", 24, "x p"), 18),
        (one("Pad", 24, "x p", mode="wrap"), 19),
        (one("Gelu", 24), 20),
        (one("Swish", 24), 24),
        (one("Elu", 22, element=TensorProto.BFLOAT16), 22),
        (one("Elu", 22, element=TensorProto.FLOAT16), 18),
        (one("Transpose", 24, element=TensorProto.FLOAT8E5M2), 21),
        (one("Einsum", 28, equation="abcd->abdc"), 18),
        (one("Mod", 28, "x x", fmod=0), 28),
        (one("Cast", 24, to=TensorProto.FLOAT16, saturate=1), None),
    ],
    ids=lambda value: value.graph.node[0].op_type if isinstance(value, onnx.ModelProto) else str(value),
)
def test_lowest_opset(model: onnx.ModelProto, expected: int | None) -> None:
    if expected is None:  # the output has another type than the input
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        expected = 18
    result = lowered(model)
    assert opset(result) == expected
    assert [n.op_type for n in result.graph.node] == [n.op_type for n in model.graph.node]


def test_lowered_nodes_lose_the_attributes_that_their_version_lacks():
    result = lowered(one("AveragePool", 22, kernel_shape=[2, 2], dilations=[1, 1]))
    assert {a.name for a in result.graph.node[0].attribute} == {"kernel_shape"}


def test_grid_sample_modes_get_their_old_names():
    grid = value("g", ["N", 3, 3, 2])
    model = build([node("GridSample", "x g", "y", mode="linear")], [*X, grid], Y, opset=22, ir_version=IR)
    result = lowered(model)
    assert opset(result) == 18
    assert [a.s for a in result.graph.node[0].attribute if a.name == "mode"] == [b"bilinear"]


def test_nodes_in_bodies_count():
    body = helper.make_graph([node("Gelu", "x", "b")], "body", [], [value("b", ["N", 6, 8, 8])])
    branch = node("If", "c", "y", then_branch=body, else_branch=body)
    model = build([branch], [*X, value("c", [], TensorProto.BOOL)], Y, opset=24, ir_version=IR)
    assert opset(lowered(model)) == 20


def test_an_unknown_type_is_not_lowered_where_types_decide():
    model = ir.from_proto(one("Elu", 22))
    assert lowest_opset(model) == 18
    model.graph.inputs[0].type = None
    assert lowest_opset(model) == 22


def test_older_models_stay():
    assert opset(lowered(one("Relu", 18))) == 18
    assert lowest_opset(ir.from_proto(one("Relu", 14))) == 14


def widened() -> list[tuple[str, int]]:
    from vogcore.graph.lower_opset import _WIDENED

    known = {(schema.name, schema.since_version) for schema in defs.get_all_schemas_with_history()}
    return sorted((op, version) for op, versions in _WIDENED.items() for version in versions if (op, version) in known)


def test_versions_that_are_taken_for_wider_ones_are_supersets_of_the_older_ones():
    """Inputs, outputs and attributes of the older version exist in the newer one, with the same defaults."""
    steps = widened()
    assert len(steps) > 110
    for op, version in steps:
        newer = defs.get_schema(op, version, "")
        older = defs.get_schema(op, version - 1, "")
        assert older.since_version < version, op
        assert older.max_input <= newer.max_input
        assert set(older.attributes) <= set(newer.attributes), op
        for name, attribute in older.attributes.items():
            if (op, name) != ("GridSample", "mode"):  # renamed
                assert attribute.default_value == newer.attributes[name].default_value, (op, name)


def test_lowered_average_pooling_gives_the_same_numbers():
    x = random(2, 6, 9, 8)
    for attributes in ({}, {"ceil_mode": 1}, {"count_include_pad": 1, "pads": [1, 1, 1, 1]}, {"pads": [1, 0, 0, 1]}):
        model = one("AveragePool", 22, kernel_shape=[3, 3], strides=[2, 2], **attributes)
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 9
        older = lowered(model)
        assert opset(older) == 18
        (wanted,), (got,) = (session(m).run(None, {"x": x}) for m in (model, older))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


RMS = {"scale": 1 + random(8)}


def rms(version: int = 23, tail: tuple[str, ...] = (), **attributes) -> onnx.ModelProto:
    scale = {"scale": np.ones((8, 8), np.float32) + random(8, 8)} if attributes.get("axis") == 2 else RMS
    nodes = [node("RMSNormalization", "x scale", "n", **attributes), node("Swish", "n", "s0", alpha=1.5)]
    nodes = nodes if version >= 24 else nodes[:1]
    last = nodes[-1].output[0]
    nodes += [node(op, last if i == 0 else f"t{i}", f"t{i + 1}", name=f"tail{i}") for i, op in enumerate(tail)]
    nodes[-1].output[0] = "y"
    return build(nodes, X, Y, scale, opset=version, ir_version=IR)


@pytest.mark.parametrize("attributes", [{}, {"axis": 2}, {"epsilon": 0.5}])
@pytest.mark.parametrize("version", [23, 24])
def test_decomposed_nodes_compute_the_same(version, attributes):
    model = rms(version, ("Elu",), **attributes)
    result = lowered(model, decompose=True)
    assert opset(result) == 18
    assert not {"RMSNormalization", "Swish"} & {n.op_type for n in result.graph.node}
    x = random(2, 6, 8, 8)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x})
    (got,) = session(result).run(None, {"x": x})
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_half_precision_is_normalised_in_single_precision():
    model = build(
        [node("RMSNormalization", "x scale", "y")],
        [value("x", ["N", 6, 8, 8], TensorProto.FLOAT16)],
        [value("y", ["N", 6, 8, 8], TensorProto.FLOAT16)],
        {"scale": RMS["scale"].astype(np.float16)},
        opset=23,
        ir_version=IR,
    )
    result = lowered(model, decompose=True)
    assert [n.op_type for n in result.graph.node].count("Cast") == 2
    x = (1000 * random(2, 6, 8, 8)).astype(np.float16)  # squares overflow float16
    (got,) = session(result).run(None, {"x": x})
    wide = x.astype(np.float64)
    wanted = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * RMS["scale"]
    np.testing.assert_allclose(got, wanted, rtol=5e-3, atol=1e-3)


def test_nothing_is_decomposed_where_another_node_keeps_the_opset():
    nodes = [*rms(24).graph.node, node("CumProd", "s axis", "y")]
    nodes[1].output[0] = "s"
    model = build(nodes, X, Y, {**RMS, "axis": np.asarray(1)}, opset=26, ir_version=IR)
    result = lowered(model, decompose=True)
    assert opset(result) == 26
    assert [n.op_type for n in result.graph.node] == ["RMSNormalization", "Swish", "CumProd"]


def test_nothing_is_decomposed_where_the_opset_is_clean_already():
    result = lowered(one("Gelu", 22), decompose=True)
    assert [n.op_type for n in result.graph.node] == ["Gelu"]
    assert opset(result) == 20
