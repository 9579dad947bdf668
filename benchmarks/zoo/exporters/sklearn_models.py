"""Models and pipelines of scikit-learn through skl2onnx; the truth is differences of their own float64 functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.zoo.entry import Entry, Exported

__all__ = ["entries"]

FEATURES, EXAMPLES, STEP = 6, 64, 1e-5
LATEST = 22


@dataclass(frozen=True)
class Model:
    """An estimator, how many classes it learns, the outputs of its graph."""

    name: str
    make: Callable[[Any], Any]
    classes: int = 3
    opsets: tuple[int, ...] = (18,)
    zipmap: bool = False
    raw: bool = False
    """Decision values, not probabilities, are the output."""


def entries(short: bool = False) -> list[Entry]:
    """One entry for each model and opset; all are small."""
    del short
    return [
        Entry(model.name, "sklearn", "skl2onnx", opset, lambda model=model, opset=opset: _build(model, opset))
        for model in MODELS
        for opset in model.opsets
    ]


def _build(model: Model, opset: int) -> Exported:
    import sklearn
    import sklearn.decomposition
    import sklearn.discriminant_analysis
    import sklearn.linear_model
    import sklearn.neural_network
    import sklearn.pipeline
    import sklearn.preprocessing
    import sklearn.svm
    from skl2onnx import to_onnx

    generator = np.random.default_rng(6)
    train = generator.standard_normal((300, FEATURES)) * np.linspace(0.5, 2, FEATURES) + np.linspace(-1, 1, FEATURES)
    scores = train @ generator.standard_normal((FEATURES, model.classes)) + generator.gumbel(size=(300, model.classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations are enough here
        fitted = model.make(sklearn).fit(train, scores.argmax(1))
    x = train[:EXAMPLES].astype(np.float32)
    options = {"raw_scores": True} if model.raw else {}
    if not isinstance(fitted, sklearn.svm.LinearSVC):  # it has no probabilities that could be put into maps
        options["zipmap"] = model.zipmap
    # From some opset of ai.onnx.ml on skl2onnx writes operators that ONNX Runtime does not have.
    onnx_model = to_onnx(
        fitted, x[:1], target_opset={"": opset, "ai.onnx.ml": 1 if opset < 15 else 3}, options={id(fitted): options}
    )
    target = np.arange(EXAMPLES) % model.classes
    return Exported(
        model=onnx_model.SerializeToString(),
        feeds={"X": x},
        target=target,
        gradient=_differences(lambda rows: _logits(fitted, rows), x.astype(np.float64), target),
        logits=_logits(fitted, x.astype(np.float64)),
        reference="central differences of scikit-learn, float64",
    )


def _logits(fitted: Any, x: np.ndarray) -> np.ndarray:
    """Numbers (N, C) whose softmax the model's probabilities are; of two classes -z/2 and z/2."""
    if hasattr(fitted, "decision_function"):
        z = fitted.decision_function(x)
    else:  # a pipeline that ends in a network
        z = x
        for _, step in fitted.steps[:-1]:
            z = step.transform(z)
        network = fitted.steps[-1][1]
        activation = {"tanh": np.tanh, "logistic": lambda v: 1 / (1 + np.exp(-v)), "relu": lambda v: np.maximum(v, 0)}
        for layer, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_)):
            z = (activation[network.activation](z) if layer else z) @ weight + bias
        z = z[:, 0] if z.shape[1] == 1 else z
    return np.stack([-z / 2, z / 2], 1) if z.ndim == 1 else z


def _differences(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fourth-order central differences of each example's target."""
    rows = np.arange(len(x))

    def chosen(moved: np.ndarray) -> np.ndarray:
        return function(moved)[rows, target]

    columns = []
    for step in STEP * np.eye(x.shape[1]):
        near, far = chosen(x + step) - chosen(x - step), chosen(x + 2 * step) - chosen(x - 2 * step)
        columns.append((8 * near - far) / (12 * STEP))
    return np.stack(columns, 1)


def _after(*steps: str) -> Callable[[Any], Any]:
    """Transformers by name, then a logistic regression."""

    def make(sklearn: Any) -> Any:
        known = {
            "scaler": sklearn.preprocessing.StandardScaler,
            "minmax": sklearn.preprocessing.MinMaxScaler,
            "l2": sklearn.preprocessing.Normalizer,
            "pca": lambda: sklearn.decomposition.PCA(4, whiten=True),
            "polynomial": lambda: sklearn.preprocessing.PolynomialFeatures(2),
        }
        chain = [known[step]() for step in steps]
        return sklearn.pipeline.make_pipeline(*chain, sklearn.linear_model.LogisticRegression())

    return make


def _network(activation: str) -> Callable[[Any], Any]:
    def make(sklearn: Any) -> Any:
        network = sklearn.neural_network.MLPClassifier((16, 12), activation, max_iter=40, random_state=0)
        return sklearn.pipeline.make_pipeline(sklearn.preprocessing.StandardScaler(), network)

    return make


MODELS = [
    Model("LogisticRegression", lambda sk: sk.linear_model.LogisticRegression(), opsets=(9, 13, 18, LATEST)),
    Model("LogisticRegression, ZipMap", lambda sk: sk.linear_model.LogisticRegression(), zipmap=True),
    Model("LogisticRegression, two classes", lambda sk: sk.linear_model.LogisticRegression(), 2, (9, 18)),
    Model("LinearDiscriminantAnalysis", lambda sk: sk.discriminant_analysis.LinearDiscriminantAnalysis()),
    Model("LinearSVC", lambda sk: sk.svm.LinearSVC(random_state=0)),
    Model("StandardScaler, LogisticRegression", _after("scaler"), opsets=(9, 18, LATEST)),
    Model("MinMaxScaler, Normalizer, LogisticRegression", _after("minmax", "l2"), 2),
    Model("StandardScaler, PCA, LogisticRegression", _after("scaler", "pca")),
    Model("PolynomialFeatures, StandardScaler, LogisticRegression", _after("polynomial", "scaler")),
    Model("StandardScaler, MLPClassifier (tanh)", _network("tanh"), opsets=(13, 18)),
    Model("StandardScaler, MLPClassifier (ReLU), two classes", _network("relu"), 2),
]
