"""Operators of ai.onnx.ml written in the default domain: the same numbers as ONNX Runtime's own kernels."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from tests.autodiff.sessions import session
from tests.graph.models import FLOAT, INT64, random, value
from vogcore.autodiff import gradient_model
from vogcore.errors import ModelError, UnsupportedOpError
from vogcore.graph.ml import DOMAIN
from vogcore.graph.prepare import prepare

X = np.asarray([[0.3, -0.2, 1.0], [1.0, 2.0, -3.0], [-1.0, -0.4, -0.7], [0.0, 0.0, 0.0]], np.float32)
NAN = float("nan")
W, B = random(3, 3).ravel().tolist(), random(3, seed=1).tolist()
VECTORS = random(6, 3, seed=2).ravel().tolist()


def model_of(
    op: str, x: np.ndarray = X, outputs: int = 1, opset: int = 18, shape=None, **attributes
) -> onnx.ModelProto:
    names = ["label", "y"] if outputs == 2 else ["y"]
    nodes = [helper.make_node(op, ["x"], names, domain=DOMAIN, name="the_op", **attributes)]
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    result = [value("label", ["N"], INT64)] if outputs == 2 else []
    graph = helper.make_graph(nodes, "g", [value("x", shape or ["N", *x.shape[1:]], kind)], [*result, value("y", None)])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    prepared = prepare(model)
    assert not [n for n in prepared.graph if n.domain == DOMAIN and "label" not in {v.name for v in n.outputs}]
    proto = ir.to_proto(prepared)
    onnx.checker.check_model(proto)
    return proto


def two(weights: list[float], **more) -> dict:
    return {"coefficients": weights, "classlabels_ints": [0, 1], **more}


CLASSIFIER = {"outputs": 2, "coefficients": W, "intercepts": B, "classlabels_ints": [0, 1, 2]}
ONE_ROW = {"outputs": 2, **two(W[:3], intercepts=B[:1])}
OPPOSITE = {"outputs": 2, **two([*W[:3], *(-w for w in W[:3])], intercepts=[B[0], -B[0]])}
SVC = {"outputs": 2, "support_vectors": VECTORS, "kernel_type": "RBF", "kernel_params": [0.4, 0.0, 3.0]}
CASES = [
    *(
        ("LinearClassifier", {**base, "post_transform": transform, "multi_class": multi})
        for base in (CLASSIFIER, ONE_ROW, OPPOSITE)
        for transform in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")
        for multi in (0, 1)
    ),
    ("LinearClassifier", {**CLASSIFIER, "x": X.astype(np.float64), "post_transform": "SOFTMAX"}),
    ("LinearClassifier", {**CLASSIFIER, "x": X.astype(np.int64)}),
    ("LinearClassifier", {**CLASSIFIER, "x": X[0], "shape": [3]}),
    ("LinearClassifier", {**CLASSIFIER, "opset": 9, "post_transform": "SOFTMAX"}),
    *(
        ("LinearRegressor", {"targets": targets, "coefficients": W[: 3 * targets], "intercepts": B[:targets],
                             "post_transform": transform})
        for targets in (1, 2) for transform in ("NONE", "SOFTMAX", "LOGISTIC")
    ),
    ("LinearRegressor", {"coefficients": W[:3]}),
    *(
        ("SVMRegressor", {"kernel_type": kind, "kernel_params": [0.5, 0.3, 3.0], "coefficients": W[:6],
                          "support_vectors": VECTORS, "n_supports": 6, "rho": [0.25]})
        for kind in ("LINEAR", "POLY", "RBF", "SIGMOID")
    ),
    ("SVMRegressor", {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 3.0], "coefficients": W[:3], "rho": [0.25]}),
    ("SVMClassifier", {**SVC, "coefficients": W[:6], "vectors_per_class": [2, 4], "rho": [0.3],
                       "classlabels_ints": [0, 1]}),
    ("SVMClassifier", {**SVC, "coefficients": [abs(w) for w in W[:6]], "vectors_per_class": [3, 3], "rho": [-0.3],
                       "classlabels_ints": [0, 1]}),
    ("SVMClassifier", {**SVC, "coefficients": random(2, 6, seed=4).ravel().tolist(), "vectors_per_class": [1, 2, 3],
                       "rho": [0.3, 0.1, -0.2], "classlabels_ints": [0, 1, 2]}),
    ("Scaler", {"scale": [2.0, 3.0, 0.5], "offset": [1.0, -1.0, 0.0]}),
    ("Scaler", {"scale": [2.0], "offset": [1.0]}),
    ("Scaler", {"x": X.astype(np.float64), "scale": [2.0, 3.0, 0.5], "offset": [1.0, -1.0, 0.0]}),
    ("Scaler", {"x": X.astype(np.int64), "scale": [2.0, 3.0, 0.5], "offset": [1.0, -1.0, 0.0]}),
    *(("Normalizer", {"norm": norm, "x": x}) for norm in ("MAX", "L1", "L2") for x in (X, X.astype(np.float64), X[0])),
    ("Imputer", {"x": np.where(X > 0.5, np.float32(NAN), X), "imputed_value_floats": [5.0, 6.0, 7.0],
                 "replaced_value_float": NAN}),
    ("Imputer", {"imputed_value_floats": [5.0], "replaced_value_float": 1.0}),
    ("Imputer", {"imputed_value_floats": [5.0, 6.0, 7.0]}),
    ("FeatureVectorizer", {"inputdimensions": [3]}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "settings"), CASES, ids=lambda part: part if isinstance(part, str) else "")
def test_same_numbers_as_onnx_runtime(op, settings):
    settings = dict(settings)
    x = settings.pop("x", X)
    if x.ndim == 1:
        settings.setdefault("shape", [3])
    model = model_of(op, x, **settings)
    expected = session(model).run(["y"], {"x": x})[0]
    got = session(lowered(model)).run(["y"], {"x": x})[0]
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_distances_far_from_the_origin_do_not_cancel():
    far = (X + 1000).astype(np.float32)
    vectors = (random(6, 3, seed=2) + 1000).astype(np.float32)
    model = model_of("SVMRegressor", kernel_type="RBF", kernel_params=[0.5, 0.0, 3.0], coefficients=W[:6],
                     support_vectors=vectors.ravel().tolist(), n_supports=6, rho=[0.0])  # fmt: skip
    difference = far[:, None].astype(np.float64) - vectors[None]
    expected = np.exp(-0.5 * (difference**2).sum(-1)) @ np.asarray(W[:6])
    np.testing.assert_allclose(session(lowered(model)).run(["y"], {"x": far})[0][:, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("columns", [[2], [0, 2], [[1, 1]], [1, 0, 2]])
@pytest.mark.parametrize("run_time", [False, True])
def test_array_feature_extractor(columns, run_time):
    columns = np.asarray(columns, np.int64)
    node = helper.make_node("ArrayFeatureExtractor", ["x", "c"], ["y"], domain=DOMAIN)
    inputs = [value("x", ["N", 3]), *([value("c", columns.shape, INT64)] if run_time else [])]
    weights = [] if run_time else [onnx.numpy_helper.from_array(columns, "c")]
    graph = helper.make_graph([node], "g", inputs, [value("y", None)], weights)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    feeds = {"x": X, **({"c": columns} if run_time else {})}
    got = session(lowered(model)).run(None, feeds)[0]
    np.testing.assert_array_equal(got, session(model).run(None, feeds)[0])


def test_several_inputs_of_a_feature_vectorizer():
    node = helper.make_node("FeatureVectorizer", ["x", "i"], ["y"], domain=DOMAIN, inputdimensions=[3, 2])
    graph = helper.make_graph([node], "g", [value("x", ["N", 3]), value("i", ["N", 2], INT64)], [value("y", None)])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    got = session(lowered(model)).run(None, {"x": X, "i": np.arange(8).reshape(4, 2)})[0]
    np.testing.assert_array_equal(got, np.concatenate([X, np.arange(8).reshape(4, 2)], axis=1))
    node.attribute[0].ints[:] = [3, 5]  # wider than the input
    graph = helper.make_graph([node], "g", [value("x", ["N", 3]), value("i", ["N", 2], INT64)], [value("y", None)])
    wider = helper.make_model(graph, opset_imports=imports, ir_version=8)
    assert [n.op_type for n in prepare(wider).graph] == ["FeatureVectorizer"]


def classifier(*, zipped: bool, kind: str = "int64s", **attributes) -> onnx.ModelProto:
    """What skl2onnx writes: scores, label, and a ZipMap over the scores."""
    nodes = [
        helper.make_node("LinearClassifier", ["x"], ["label", "p"], domain=DOMAIN, name="clf", coefficients=W,
                         intercepts=B, classlabels_ints=[0, 1, 2], post_transform="SOFTMAX"),
        helper.make_node("Normalizer", ["p"], ["q"], domain=DOMAIN, name="norm", norm="L1"),
    ]  # fmt: skip
    outputs = [value("label", ["N"], INT64), value("q", ["N", 3])]
    if zipped:
        labels = [0, 1, 2] if kind == "int64s" else ["a", "b", "c"]
        nodes.append(
            helper.make_node("ZipMap", ["q"], ["z"], domain=DOMAIN, name="zip", **{f"classlabels_{kind}": labels})
        )
        key = TensorProto.INT64 if kind == "int64s" else TensorProto.STRING
        mapped = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, []))
        outputs[1] = helper.make_value_info("z", helper.make_sequence_type_proto(mapped))
    graph = helper.make_graph(nodes, "g", [value("x", ["N", 3])], outputs)
    imports = [helper.make_opsetid("", 9), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=4)


@pytest.mark.parametrize("zipped", [None, "int64s", "strings"])
def test_labels_stay_and_maps_become_tensors(zipped):
    model = classifier(zipped=zipped is not None, kind=zipped or "")
    before = model.SerializeToString()
    name = "z" if zipped else "q"
    label, scores = session(lowered(model)).run(["label", name], {"x": X})
    expected_label, expected = session(model).run(["label", name], {"x": X})
    if zipped:
        expected = [list(row.values()) for row in expected]
    np.testing.assert_array_equal(label, expected_label)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("zipped", [False, True])
def test_gradient_is_that_of_the_scores_before_the_softmax(zipped):
    model = gradient_model(classifier(zipped=zipped))
    assert {n.domain for n in model.graph.node} == {""}
    target = np.asarray([0, 2, 1, 1])
    logits, gradient = session(model).run(None, {"x": X, "vogcore_target": target})
    weights = np.asarray(W).reshape(3, 3)
    np.testing.assert_allclose(logits, X @ weights.T + B, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, weights[target], rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_gradient_has_the_type_of_the_input(kind):
    x = X.astype(kind)
    model = gradient_model(model_of("LinearClassifier", x, **CLASSIFIER))
    gradient = session(model).run(None, {"x": x, "vogcore_target": np.asarray([0, 2, 1, 1])})[1]
    assert gradient.dtype == kind


TREE = {
    "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "target_treeids": [0, 0],
    "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0], "n_targets": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("op", "settings", "why"),
    [
        ("TreeEnsembleRegressor", TREE, "the gradient of a tree ensemble is zero everywhere"),
        ("LinearClassifier", {**CLASSIFIER, "post_transform": "PROBIT"}, "post_transform PROBIT"),
        ("LinearRegressor", {"coefficients": W[:3], "post_transform": "PROBIT"}, "post_transform PROBIT"),
        ("SVMRegressor", {"coefficients": W[:3], "rho": [0.1], "one_class": 1}, "only its decision values"),
        ("SVMClassifier", {**SVC, "coefficients": W[:6], "vectors_per_class": [2, 4], "rho": [0.3], "prob_a": [1.0],
                           "prob_b": [0.0], "classlabels_ints": [0, 1]}, "export it without probabilities"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(op, settings, why):
    with pytest.raises(UnsupportedOpError, match=rf"{DOMAIN}.{op} node 'the_op' cannot be differentiated: .*{why}"):
        gradient_model(model_of(op, shape=["N", 3], **settings))


def test_a_decision_in_front_leaves_nothing_to_differentiate():
    with pytest.raises(ModelError, match="does not depend on 'x'"):
        gradient_model(model_of("Binarizer", threshold=0.5))
