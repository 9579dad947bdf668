"""Models and pipelines of scikit-learn, exported by skl2onnx, against differences of scikit-learn itself in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from skl2onnx import to_onnx
from sklearn import (
    calibration,
    compose,
    decomposition,
    discriminant_analysis,
    impute,
    linear_model,
    multiclass,
    naive_bayes,
    neural_network,
    preprocessing,
    svm,
    tree,
)
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

from tests.autodiff.sessions import session
from vogcore import check_model, score
from vogcore.autodiff import gradient_model
from vogcore.errors import ModelError, UnsupportedOpError, VogcoreWarning

FEATURES, STEP = 5, 1e-6
RNG = np.random.default_rng(11)
TRAIN = RNG.normal(size=(150, FEATURES)) * [1.0, 0.5, 2.0, 1.0, 1.5] + [0.3, 0.0, -0.5, 0.0, 1.0]
THREE = (TRAIN @ RNG.normal(size=(FEATURES, 3)) + RNG.gumbel(size=(150, 3))).argmax(axis=1)
TWO = (THREE > 0).astype(int)
X = TRAIN[:40] + 0.01 * RNG.normal(size=(40, FEATURES))


def logistic() -> BaseEstimator:
    return linear_model.LogisticRegression()


def mlp(**settings) -> BaseEstimator:
    return neural_network.MLPClassifier((7,), max_iter=60, random_state=0, **settings)


PROBABILISTIC: dict[str, tuple[Callable[[], BaseEstimator], np.ndarray]] = {
    "logistic, 2": (logistic, TWO),
    "logistic, 3": (logistic, THREE),
    "logistic, liblinear": (lambda: linear_model.LogisticRegression(solver="liblinear"), TWO),
    "logistic, one against the rest": (lambda: multiclass.OneVsRestClassifier(logistic()), THREE),
    "sgd log loss, 2": (lambda: linear_model.SGDClassifier(loss="log_loss", alpha=0.1, random_state=0), TWO),
    "sgd log loss, 3": (lambda: linear_model.SGDClassifier(loss="log_loss", alpha=0.1, random_state=0), THREE),
    "mlp, 2": (lambda: mlp(activation="tanh"), TWO),
    "mlp, 3": (lambda: mlp(activation="logistic"), THREE),
    "mlp, relu": (mlp, THREE),
    "lda, 3": (discriminant_analysis.LinearDiscriminantAnalysis, THREE),
    "qda": (discriminant_analysis.QuadraticDiscriminantAnalysis, THREE),
    "gaussian naive bayes, 2": (naive_bayes.GaussianNB, TWO),
    "gaussian naive bayes, 3": (naive_bayes.GaussianNB, THREE),
    "standard scaler": (lambda: make_pipeline(preprocessing.StandardScaler(), logistic()), THREE),
    "min-max scaler": (lambda: make_pipeline(preprocessing.MinMaxScaler(), logistic()), THREE),
    "min-max scaler, clipped": (lambda: make_pipeline(preprocessing.MinMaxScaler(clip=True), mlp()), THREE),
    "max-abs scaler": (lambda: make_pipeline(preprocessing.MaxAbsScaler(), logistic()), TWO),
    "robust scaler": (lambda: make_pipeline(preprocessing.RobustScaler(), mlp(activation="tanh")), TWO),
    "l1": (lambda: make_pipeline(preprocessing.Normalizer("l1"), logistic()), THREE),
    "l2": (lambda: make_pipeline(preprocessing.Normalizer("l2"), logistic()), THREE),
    "pca": (lambda: make_pipeline(decomposition.PCA(3, whiten=True), logistic()), THREE),
    "svd": (lambda: make_pipeline(decomposition.TruncatedSVD(3), logistic()), TWO),
    "polynomial": (lambda: make_pipeline(preprocessing.PolynomialFeatures(2), preprocessing.StandardScaler(),
                                         linear_model.LogisticRegression(max_iter=1000)), THREE),
    "imputer": (lambda: make_pipeline(impute.SimpleImputer(), logistic()), THREE),
    "columns": (lambda: make_pipeline(compose.ColumnTransformer([
        ("a", preprocessing.StandardScaler(), [0, 3]), ("b", preprocessing.MinMaxScaler(), [4, 1]),
    ]), logistic()), THREE),
}  # fmt: skip
DECISIVE: dict[str, tuple[Callable[[], BaseEstimator], np.ndarray]] = {
    "linear svc": (lambda: svm.LinearSVC(random_state=0), THREE),
    "ridge": (linear_model.RidgeClassifier, THREE),
    "sgd hinge": (lambda: linear_model.SGDClassifier(random_state=0), THREE),
    "logistic": (logistic, THREE),
    "lda": (discriminant_analysis.LinearDiscriminantAnalysis, THREE),
    "qda": (discriminant_analysis.QuadraticDiscriminantAnalysis, THREE),
    "svc rbf": (svm.SVC, THREE),
    "svc poly": (lambda: svm.SVC(kernel="poly", coef0=0.5), THREE),
    "svc sigmoid": (lambda: svm.SVC(kernel="sigmoid", gamma=0.05), THREE),
}
SINGLE: dict[str, tuple[Callable[[], BaseEstimator], np.ndarray]] = {
    "linear svc": (lambda: svm.LinearSVC(random_state=0), TWO),
    "ridge": (linear_model.RidgeClassifier, TWO),
    "linear regression": (linear_model.LinearRegression, TRAIN[:, 0] ** 2),
    "mlp regression": (
        lambda: neural_network.MLPRegressor(hidden_layer_sizes=(6,), max_iter=80, random_state=0),
        TRAIN[:, 0] ** 2,
    ),
    "svr": (svm.SVR, TRAIN[:, 0] ** 2),
    "linear svr": (lambda: svm.LinearSVR(random_state=0), TRAIN[:, 0]),
}
_EXPORTED: dict[tuple[str, str], tuple[BaseEstimator, onnx.ModelProto]] = {}


def exported(kind: str, name: str) -> tuple[BaseEstimator, onnx.ModelProto]:
    if (kind, name) not in _EXPORTED:
        make, y = {"probabilistic": PROBABILISTIC, "decisive": DECISIVE, "single": SINGLE}[kind][name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few iterations are enough here
            fitted = make().fit(TRAIN, y)
            _EXPORTED[kind, name] = fitted, to_onnx(fitted, TRAIN[:1].astype(np.float32))
    return _EXPORTED[kind, name]


def differences(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Gradient (N, F) of a function (N, F) -> (N,) by central differences."""
    steps = STEP * np.eye(FEATURES)
    return np.stack([(function(x + step) - function(x - step)) / (2 * STEP) for step in steps], axis=1)


def run(model: onnx.ModelProto, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert {n.domain for n in model.graph.node} == {""}  # nothing without a CUDA kernel
    logits, gradient = session(model).run(None, {"X": X.astype(np.float32), "vogcore_target": target})
    return logits, gradient


def check(got: np.ndarray, expected: np.ndarray) -> None:
    scale = np.median(np.linalg.norm(expected, axis=1))
    errors = np.linalg.norm(got - expected, axis=1) / (np.linalg.norm(expected, axis=1) + 1e-3 * scale)
    assert np.median(errors) <= 2e-5
    assert np.quantile(errors, 0.9) <= 1e-3  # a ReLU or a bound within rounding of its kink


def scalar(of: str, log_p: np.ndarray, target: np.ndarray) -> np.ndarray:
    """What ``of`` differentiates, from log-probabilities: all but "logit", which needs one more number."""
    chosen = log_p[np.arange(len(log_p)), target]
    others = np.where(np.arange(log_p.shape[1]) == target[:, None], -np.inf, log_p)
    return {
        "probability": np.exp(chosen),
        "log-probability": chosen,
        "loss": -chosen,
        "margin": chosen - others.max(axis=1),
        "centred-logit": chosen - log_p.mean(axis=1),
    }[of]


@pytest.mark.parametrize("of", ["probability", "log-probability", "loss", "margin", "centred-logit"])
@pytest.mark.parametrize("name", PROBABILISTIC)
def test_every_quantity_of_a_probabilistic_classifier(name, of):
    fitted, model = exported("probabilistic", name)
    target = np.arange(len(X)) % (int(fitted.classes_.max()) + 1)
    logits, gradient = run(gradient_model(model, of=of), target)
    with np.errstate(divide="ignore"):
        shifted = logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64), axis=1, keepdims=True)
        np.testing.assert_allclose(np.exp(shifted), fitted.predict_proba(X), atol=2e-5)
        check(gradient, differences(lambda x: scalar(of, np.log(fitted.predict_proba(x)), target), X))


@pytest.mark.parametrize("name", ["logistic, 2", "logistic, liblinear", "sgd log loss, 2", "mlp, 2"])
def test_logits_of_two_classes_are_half_the_log_odds(name):
    fitted, model = exported("probabilistic", name)
    target = np.arange(len(X)) % 2
    logits, gradient = run(gradient_model(model), target)

    def log_odds(x: np.ndarray) -> np.ndarray:
        p = fitted.predict_proba(x)
        return np.log(p[:, 1] / p[:, 0])

    np.testing.assert_allclose(logits[:, 1], log_odds(X) / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(logits[:, 0], -logits[:, 1])
    check(gradient, differences(lambda x: np.where(target, 1, -1) * log_odds(x) / 2, X))


def test_logit_of_one_against_the_rest_is_the_log_of_the_class_s_own_sigmoid():
    fitted, model = exported("probabilistic", "sgd log loss, 3")
    target = np.arange(len(X)) % 3
    logits, gradient = run(gradient_model(model), target)
    np.testing.assert_allclose(logits, -np.logaddexp(0, -fitted.decision_function(X)), rtol=1e-4, atol=1e-5)
    rows = np.arange(len(X))
    check(gradient, differences(lambda x: -np.logaddexp(0, -fitted.decision_function(x)[rows, target]), X))


@pytest.mark.parametrize("name", DECISIVE)
def test_decision_values_are_the_logits(name):
    fitted, model = exported("decisive", name)
    target = np.arange(len(X)) % 3
    logits, gradient = run(gradient_model(model), target)
    np.testing.assert_allclose(logits, fitted.decision_function(X), rtol=1e-3, atol=1e-3)
    rows = np.arange(len(X))
    check(gradient, differences(lambda x: fitted.decision_function(x)[rows, target], X))


@pytest.mark.parametrize("name", SINGLE)
def test_single_output(name):
    fitted, model = exported("single", name)
    function = getattr(fitted, "decision_function", None) or fitted.predict
    outputs, gradient = run(gradient_model(model), np.zeros(len(X), np.int64))
    np.testing.assert_allclose(outputs[:, 0], function(X), rtol=1e-3, atol=1e-3)
    check(gradient, differences(lambda x: function(x), X))


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_opsets_and_both_kinds_of_output(opset, zipmap):
    fitted, _ = exported("probabilistic", "standard scaler")
    model = to_onnx(fitted, TRAIN[:1].astype(np.float32), options={"zipmap": zipmap}, target_opset=opset)
    target = np.arange(len(X)) % 3
    _, gradient = run(gradient_model(model), target)
    rows = np.arange(len(X))
    check(gradient, differences(lambda x: fitted.decision_function(x)[rows, target], X))


def test_float64_input():
    fitted, _ = exported("probabilistic", "pca")
    model = to_onnx(fitted, TRAIN[:1])
    target = np.arange(len(X)) % 3
    _, gradient = session(gradient_model(model)).run(None, {"X": X, "vogcore_target": target})
    assert gradient.dtype == np.float64
    rows = np.arange(len(X))
    check(gradient, differences(lambda x: fitted.decision_function(x)[rows, target], X))


def test_missing_values_have_no_gradient():
    _, model = exported("probabilistic", "imputer")
    x = X.astype(np.float32)
    x[::2, 1] = np.nan
    target = np.arange(len(X)) % 3
    gradient = session(gradient_model(model)).run(None, {"X": x, "vogcore_target": target})[1]
    assert np.isfinite(gradient).all()
    assert (gradient[::2, 1] == 0).all()
    assert (gradient[1::2, 1] != 0).all()


@pytest.mark.parametrize("name", ["standard scaler", "mlp, 2", "sgd log loss, 3", "gaussian naive bayes, 3"])
def test_check_model_confirms_the_gradient(name):
    report = check_model(exported("probabilistic", name)[1])
    assert report.ok, report.self_check
    assert [output.name for output in report.outputs] == ["output_label", "output_probability"]


def test_trees_are_refused_by_reason():
    model = to_onnx(tree.DecisionTreeClassifier(max_depth=2).fit(TRAIN, THREE), TRAIN[:1].astype(np.float32))
    with pytest.raises(UnsupportedOpError, match="gradient of a tree ensemble is zero everywhere"):
        gradient_model(model)


def test_several_inputs_are_refused_with_their_names():
    from skl2onnx.common.data_types import FloatTensorType

    columns = compose.ColumnTransformer([("all", "passthrough", [0, 1])])
    fitted = make_pipeline(columns, logistic()).fit(TRAIN[:, :2], TWO)
    kinds = [("age", FloatTensorType([None, 1])), ("income", FloatTensorType([None, 1]))]
    with pytest.raises(ModelError, match=r"has 2 inputs \('age' \(float\), 'income' \(float\)\)"):
        gradient_model(to_onnx(fitted, initial_types=kinds))


def test_mean_of_probabilities_is_taken_as_it_is():
    """A calibrated ensemble has no numbers whose softmax it is; the gradient is that of its output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = calibration.CalibratedClassifierCV(logistic(), cv=2).fit(TRAIN, THREE)
    model = to_onnx(fitted, TRAIN[:1].astype(np.float32))
    target = np.arange(len(X)) % 3
    logits, gradient = run(gradient_model(model), target)
    np.testing.assert_allclose(logits, fitted.predict_proba(X), atol=1e-5)
    rows = np.arange(len(X))
    check(gradient, differences(lambda x: fitted.predict_proba(x)[rows, target], X))


def test_checkpoints_of_a_classifier_can_be_scored(tmp_path):
    """Weights lie in attributes there, and a model that is linear in x is named."""
    network = neural_network.MLPClassifier((7,), random_state=0)
    linear = linear_model.SGDClassifier(loss="log_loss", random_state=0, alpha=0.1)
    x = TRAIN.astype(np.float32)
    models: dict[str, list[onnx.ModelProto]] = {"network": [], "linear": [], "logistic": []}
    for step in range(3):
        network.partial_fit(x, THREE, classes=[0, 1, 2])
        linear.partial_fit(x, TWO, classes=[0, 1])
        models["network"].append(to_onnx(network, x[:1]))
        models["linear"].append(to_onnx(linear, x[:1]))
        models["logistic"].append(to_onnx(linear_model.LogisticRegression(C=10.0**-step).fit(x, THREE), x[:1]))
    scores = score(models["network"], x, THREE)
    assert np.isfinite(scores.vog).all()
    assert scores.vog_raw.std() > 0
    for name, labels in (("linear", TWO), ("logistic", THREE)):
        with pytest.warns(VogcoreWarning, match="linear"):
            score(models[name], x, labels)
