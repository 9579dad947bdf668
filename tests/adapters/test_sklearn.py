"""Estimators of scikit-learn as checkpoints: those that partial_fit, those that go on, pipelines."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vogcore
from vogcore.errors import DataError, ModelError
from vogcore_adapters.schedule import every_n_steps
from vogcore_adapters.sklearn import CheckpointExporter, to_onnx

X, Y = load_iris(return_X_y=True)
NAMES = load_iris().target_names
X = X.astype(np.float32)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def partial(estimator):
    """A step of training by partial_fit."""
    return lambda: estimator.partial_fit(X, NAMES[Y], classes=NAMES)


def warm(estimator):
    """A step of training by fit, which goes on where it was."""
    return lambda: estimator.fit(X, NAMES[Y])


def pipeline(last):
    """A scaler and a network that goes on."""
    return make_pipeline(StandardScaler(), last)


CASES = {
    "MLP, partial_fit": (partial, MLPClassifier(8, random_state=0)),
    "MLP, warm start": (warm, MLPClassifier(8, random_state=0, warm_start=True, max_iter=1)),
    "SGD, log loss": (partial, SGDClassifier(loss="log_loss", random_state=0)),
    "SGD, hinge": (partial, SGDClassifier(random_state=0)),
    "logistic regression, warm start": (warm, LogisticRegression(warm_start=True, max_iter=1)),
    "pipeline, warm start": (
        lambda estimator: warm(estimator),
        pipeline(MLPClassifier(8, random_state=0, warm_start=True, max_iter=1)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_are_the_estimator_at_that_step_and_can_be_scored(case, tmp_path):
    way, estimator = CASES[case]
    step = way(estimator)
    exporter = CheckpointExporter(tmp_path / "ckpts", X, schedule=every_n_steps(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(6):
            step()
            exporter.step(estimator)
    assert [export.step for export in exporter.exports] == [2, 4, 6]
    path = exporter.exports[-1].path
    assert '["setosa", "versicolor", "virginica"]' in [p.value for p in onnx.load(path).metadata_props]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"X": X[:50]})
    decides = isinstance(estimator, SGDClassifier)
    expected = estimator.decision_function if decides else estimator.predict_proba
    np.testing.assert_allclose(scores, expected(X[:50]), rtol=1e-4, atol=1e-5)
    assert vogcore.check_model(path).ok
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a linear model has one gradient for each class, which vogcore says
        found = vogcore.score(tmp_path / "ckpts", X, Y, provider="cpu")
    assert found.vog_raw.max() > 0
    assert list(found.classes) == list(NAMES)


def test_two_classes_of_a_decision_function(tmp_path):
    """A linear model: all examples have one and the same gradient."""
    estimator = SGDClassifier(random_state=0)
    for step in range(1, 4):
        estimator.partial_fit(X, Y > 0, classes=[False, True])
        CheckpointExporter(tmp_path, X, resume=True).save(estimator, step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = vogcore.score(tmp_path, X, (Y > 0).astype(int), provider="cpu")
    assert scores.vog_raw.min() > 0
    np.testing.assert_allclose(scores.vog_raw, scores.vog_raw[0], rtol=1e-5)


def test_what_cannot_be_exported_is_said_in_one_sentence(tmp_path):
    exporter = CheckpointExporter(tmp_path, X)
    with pytest.raises(ModelError, match=r"^skl2onnx cannot export MLPClassifier: "):
        exporter.save(MLPClassifier(), 1)
    with pytest.raises(ModelError, match=r"^skl2onnx cannot export object: "):
        exporter.save(object(), 1)
    with pytest.raises(DataError, match="table of numbers"):
        to_onnx(LogisticRegression().fit(X, Y), X[0])
    with pytest.raises(DataError, match="table of numbers"):
        to_onnx(LogisticRegression().fit(X, Y), [["a"]])
    assert list(tmp_path.iterdir()) == []
