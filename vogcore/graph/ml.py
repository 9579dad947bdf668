"""Write the smooth operators of ai.onnx.ml as operators of the default domain.

Requires: a model at opset 18 or newer, constants as initializers.
Ensures: linear models, support vector machines and the preprocessing in front of them (Scaler, Normalizer, Imputer,
...) are Gemm, Softmax, Sub, ... with the same results in ONNX Runtime. What has no such form stays as it is: decisions,
trees, conversions of labels.

Then one set of gradient rules is enough, the operators run on every provider (CUDA has no kernels for ai.onnx.ml), and
a softmax inside LinearClassifier can be looked through. Where the specification leaves a case open, ONNX Runtime
decides, since it is what the models run on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from vogcore.graph.emit import Emitter
from vogcore.graph.shapes import constant, dims, is_float, rank, static_dims

__all__ = ["DOMAIN", "lower_ml", "without_maps"]

DOMAIN = "ai.onnx.ml"
FLOAT = ir.DataType.FLOAT


def without_maps(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every ZipMap hands on the tensor that goes into it; ``model`` itself where it has none.

    On the proto, because onnx-ir has no type for a sequence of maps.
    """
    zipped = {n.output[0] for n in model.graph.node if n.domain == DOMAIN and n.op_type == "ZipMap"}
    if not zipped:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.output[:1] and node.output[0] in zipped:
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
    for value in [*copy.graph.output, *copy.graph.value_info]:
        if value.name in zipped:
            value.type.Clear()
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return copy


def lower_ml(graph: ir.Graph) -> bool:
    """Rewrite the operators of ``graph`` in place.

    Returns:
        True when something was rewritten; shapes have to be inferred anew then, and unused nodes removed.
    """
    emit = Emitter(graph)
    changed = False
    for node in list(graph):
        lower = _LOWERED.get(node.op_type) if node.domain == DOMAIN else None
        if lower is None:
            continue
        emit.scope = node.name or node.op_type
        result = lower(emit, node)
        if result is None:
            continue
        # The scores of a classifier are its last output; a label in front of them stays with the old node.
        old = node.outputs[-1]
        name, old.name = old.name, emit.name("replaced")
        if result.producer() is None or result in node.inputs:  # never rename what belongs to the model
            result = emit.op("Identity", result, like=result)
        result.name = name
        result.shape = result.shape if result.shape is not None else old.shape
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        changed = True
    if changed:
        graph.sort()
    return changed


def _get(node: ir.Node, name: str, default: Any = None) -> Any:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _floats(node: ir.Node, name: str) -> np.ndarray:
    return np.asarray(_get(node, name, ()), np.float32)


def _rows(emit: Emitter, node: ir.Node) -> ir.Value:
    """The first input as float32 (N, F); a vector is one row."""
    value = node.inputs[0]
    assert value is not None
    x = emit.cast(value, FLOAT)
    return emit.op("Unsqueeze", x, emit.ints(0)) if rank(value) == 1 else x


# -- linear models ---------------------------------------------------------------------------------------------------


def _number(emit: Emitter, value: float, dtype: ir.DataType = FLOAT) -> ir.Value:
    return emit.constant(np.asarray(value), dtype)


def _linear(emit: Emitter, x: ir.Value, weights: np.ndarray, offsets: np.ndarray) -> ir.Value:
    scores = emit.op("Gemm", x, emit.constant(weights, FLOAT), emit.constant(offsets, FLOAT), transB=1)
    sizes = dims(x)
    scores.shape = ir.Shape([sizes[0] if sizes else None, len(weights)])
    return scores


def _linear_classifier(emit: Emitter, node: ir.Node) -> ir.Value | None:
    offsets = _floats(node, "intercepts")
    transform = _get(node, "post_transform", "NONE")
    if not offsets.size or transform == "PROBIT":
        return None
    weights = _floats(node, "coefficients").reshape(offsets.size, -1)
    x = _rows(emit, node)
    if offsets.size == 1:  # a row for the second of two classes
        if transform != "LOGISTIC":
            return _linear(emit, x, np.concatenate([-weights, weights]), np.concatenate([1 - offsets, offsets]))
        weights, offsets = np.concatenate([-weights, weights]), np.concatenate([-offsets, offsets])
    if transform == "LOGISTIC" and _opposite(weights, offsets):
        # sigmoid(z) and sigmoid(-z) are the softmax of z/2 and -z/2.
        return emit.op("Softmax", _linear(emit, x, weights / 2, offsets / 2), axis=-1)
    return _transformed(emit, _linear(emit, x, weights, offsets), transform)


def _opposite(weights: np.ndarray, offsets: np.ndarray) -> bool:
    return len(weights) == 2 and np.array_equal(weights[0], -weights[1]) and bool(offsets[0] == -offsets[1])


def _linear_regressor(emit: Emitter, node: ir.Node) -> ir.Value | None:
    targets, transform = int(_get(node, "targets", 1)), _get(node, "post_transform", "NONE")
    offsets = _floats(node, "intercepts")
    if transform == "PROBIT":
        return None
    weights = _floats(node, "coefficients").reshape(targets, -1)
    scores = _linear(emit, _rows(emit, node), weights, offsets if offsets.size else np.zeros(targets, np.float32))
    return scores if targets == 1 else _transformed(emit, scores, transform)


def _transformed(emit: Emitter, scores: ir.Value, transform: str) -> ir.Value:
    """Scores (N, C) after ``post_transform``."""
    if transform == "LOGISTIC":
        return emit.op("Sigmoid", scores)
    if transform == "SOFTMAX":
        return emit.op("Softmax", scores, axis=-1)
    if transform == "SOFTMAX_ZERO":
        # Scores within 1e-7 of zero are not raised: exp(z - max) elsewhere, z exp(-max) there, normalised.
        largest = emit.op("ReduceMax", scores, emit.ints(1), keepdims=1)
        raised = emit.op("Exp", emit.op("Sub", scores, largest))
        flat = emit.op("Mul", scores, emit.op("Exp", emit.op("Neg", largest)))
        small = emit.compare("LessOrEqual", emit.op("Abs", scores), _number(emit, 1e-7))
        parts = emit.select(small, flat, raised, like=scores)
        return emit.op("Div", parts, emit.op("ReduceSum", parts, emit.ints(1), keepdims=1))
    return scores


# -- support vector machines -----------------------------------------------------------------------------------------


def _svm_regressor(emit: Emitter, node: ir.Node) -> ir.Value | None:
    if _get(node, "one_class", 0) or _get(node, "post_transform", "NONE") == "PROBIT":
        return None  # a decision, -1 or 1
    coefficients, supports = _floats(node, "coefficients"), int(_get(node, "n_supports", 0))
    x = _rows(emit, node)
    if supports:
        vectors = _floats(node, "support_vectors").reshape(supports, -1)
        values = _kernel(emit, node, x, vectors)
        return _linear(emit, values, coefficients.reshape(1, -1), _floats(node, "rho")[:1])
    if _get(node, "kernel_type", "LINEAR") != "LINEAR":
        return None
    return _linear(emit, x, coefficients.reshape(1, -1), _floats(node, "rho")[:1])


def _svm_classifier(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Decision values of every pair of classes (libsvm): f_ij = sum of a K over both classes' vectors + rho."""
    sizes = _get(node, "vectors_per_class", ())
    if not sizes or _get(node, "prob_a") or _get(node, "post_transform", "NONE") != "NONE":
        return None  # probabilities are the result of an iteration (Wu, Lin & Weng 2004)
    classes, total = len(sizes), sum(sizes)
    dual = _floats(node, "coefficients").reshape(classes - 1, total)
    ends = np.cumsum(sizes)
    part = [slice(end - size, end) for end, size in zip(ends, sizes)]
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    weights = np.zeros((len(pairs), total), np.float32)
    for row, (i, j) in zip(weights, pairs):
        row[part[i]], row[part[j]] = dual[j - 1, part[i]], dual[i, part[j]]
    offsets = _floats(node, "rho")[: len(pairs)]
    if classes == 2:
        weights, offsets = np.concatenate([-weights, weights]), np.concatenate([-offsets, offsets])
    x = _rows(emit, node)
    values = _kernel(emit, node, x, _floats(node, "support_vectors").reshape(total, -1))
    return _linear(emit, values, weights, offsets)


def _kernel(emit: Emitter, node: ir.Node, x: ir.Value, vectors: np.ndarray) -> ir.Value:
    """Kernel of every example with every support vector (N, S)."""
    kind = _get(node, "kernel_type", "LINEAR")
    gamma, shift, degree = [*_get(node, "kernel_params", ()), 0.0, 0.0, 0.0][:3]
    if kind == "RBF":
        # exp(-gamma |x - v|²) with the square multiplied out. Distances do not change when both are moved, and near
        # the origin the large terms do not cancel.
        centre = vectors.mean(axis=0, dtype=np.float64)
        moved = vectors - centre
        near = emit.op("Sub", x, emit.constant(centre, FLOAT))
        cross = emit.op("MatMul", near, emit.constant(-2 * moved.T, FLOAT))
        own = emit.op("ReduceSumSquare", near, emit.ints(1), keepdims=1)
        squares = emit.op("Add", emit.op("Add", cross, own), emit.constant((moved**2).sum(axis=1), FLOAT))
        return emit.op("Exp", emit.op("Mul", squares, _number(emit, -gamma)))
    product = emit.op("MatMul", x, emit.constant(vectors.T, FLOAT))
    if kind == "LINEAR":
        return product
    product = emit.op("Add", emit.op("Mul", product, _number(emit, gamma)), _number(emit, shift))
    return emit.op("Tanh", product) if kind == "SIGMOID" else emit.op("Pow", product, _number(emit, math.floor(degree)))


# -- features --------------------------------------------------------------------------------------------------------


def _scaler(emit: Emitter, node: ir.Node) -> ir.Value | None:
    assert node.inputs[0] is not None
    x = emit.cast(node.inputs[0], FLOAT)
    moved = emit.op("Sub", x, emit.constant(_floats(node, "offset"), FLOAT), like=x)
    return emit.op("Mul", moved, emit.constant(_floats(node, "scale"), FLOAT), like=x)


def _normalizer(emit: Emitter, node: ir.Node) -> ir.Value | None:
    value, kind = node.inputs[0], _get(node, "norm", "MAX")
    assert value is not None
    if kind == "L1" and _is_softmax(value):
        return value  # its rows sum to one already
    x, last = emit.cast(value, FLOAT), emit.ints(-1)
    if kind == "MAX":
        norm = emit.op("ReduceMax", x, last, keepdims=1)
    elif kind == "L1":
        norm = emit.op("ReduceSum", emit.op("Abs", x), last, keepdims=1)
    else:
        norm = emit.op("ReduceL2", x, last, keepdims=1)
    empty = emit.compare("Equal", norm, _number(emit, 0.0))
    return emit.op("Div", x, emit.select(empty, _number(emit, 1.0), norm, like=norm), like=x)


def _is_softmax(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is None or producer.op_type != "Softmax" or value.dtype not in (None, FLOAT):
        return False
    return _get(producer, "axis", -1) in (-1, (rank(value) or 0) - 1)


def _imputer(emit: Emitter, node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    assert x is not None
    values = _floats(node, "imputed_value_floats")
    if not values.size or not (x.dtype is None or is_float(x)):
        return None
    dtype = x.dtype or FLOAT
    replaced = float(_get(node, "replaced_value_float", 0.0))
    if math.isnan(replaced):
        hit = emit.typed(ir.DataType.BOOL, "IsNaN", x)
    else:
        hit = emit.compare("Equal", x, _number(emit, replaced, dtype))
    return emit.select(hit, emit.constant(values, dtype), x, like=x)


def _feature_vectorizer(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Inputs side by side; one that is not as wide as ``inputdimensions`` says is left to the operator itself."""
    widths = _get(node, "inputdimensions", ())
    parts = []
    for value, width in zip(node.inputs, widths, strict=True):
        if value is None or rank(value) != 2 or static_dims(value, [1]) not in (None, (width,)):
            return None
        parts.append(emit.cast(value, FLOAT))
    return emit.op("Concat", *parts, axis=1)


def _array_feature_extractor(emit: Emitter, node: ir.Node) -> ir.Value | None:
    x, columns = node.inputs
    if x is None or columns is None or not is_float(x):
        return None
    known = constant(columns)
    flat = emit.ints(*known.reshape(-1).tolist()) if known is not None else emit.op("Reshape", columns, emit.ints(-1))
    picked = emit.op("Gather", x, flat, axis=-1)
    if x.shape is not None:
        picked.shape = ir.Shape([*x.shape[:-1], None if known is None else known.size])
    return emit.op("Unsqueeze", picked, emit.ints(0)) if rank(x) == 1 else picked


_LOWERED: dict[str, Callable[[Emitter, ir.Node], ir.Value | None]] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "SVMClassifier": _svm_classifier,
    "SVMRegressor": _svm_regressor,
    "Scaler": _scaler,
}
"""Operator -> what gives its last output in the default domain, or None where that use has no such form."""
