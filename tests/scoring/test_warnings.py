"""Scores that say nothing are pointed out, in the warnings and in the file, and are never NaN."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import vogcore
from vogcore.errors import VogcoreWarning

from .models import CLASSES, FEATURES, build, close, examples, mlps, walk

N = 30
LABELS = np.arange(N) % 3


def gradients(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((4, N, 6)) * rng.uniform(0.5, 2, (1, N, 1))


def warned(call, *messages):
    """The result of a call that gives these warnings and no others, all of them also in the result."""
    with pytest.warns(VogcoreWarning) as caught:
        scores = call()
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == len(messages), texts
    for text, message in zip(texts, messages):
        assert message in text
        assert "\n" not in text
    assert scores.warnings == texts
    assert all(warning.filename == __file__ for warning in caught)
    return scores


def test_a_class_of_one_example(tmp_path):
    labels = LABELS.copy()
    labels[labels == 2] = 0
    labels[4], labels[9] = 2, 3
    path = tmp_path / "s.h5"
    scores = warned(
        lambda: vogcore.score_gradients(gradients(), labels, class_names=["a", "b", "cat", "dog", "none"], out=path),
        "Classes 'cat', 'dog' have one example only, whose normalised score is 0",
    )
    assert scores.vog[4] == scores.vog[9] == 0
    assert np.isfinite(scores.vog).all()
    assert np.isnan(scores.stage("all").class_mean[4])
    assert vogcore.open_scores(path).warnings == scores.warnings


@pytest.mark.parametrize("normalise", ["class", "absolute", "robust"])
def test_a_class_without_spread(normalise):
    g = gradients()
    g[:, LABELS == 1] = g[:, 1:2]
    what = "median absolute deviation" if normalise == "robust" else "spread"
    scores = warned(
        lambda: vogcore.score_gradients(g, LABELS, normalise=normalise),
        f"Class '1' has no {what} of raw scores, so the normalised ones are 0 there.",
    )
    assert (scores.vog[LABELS == 1] == 0).all()
    assert (scores.vog[LABELS == 0] != 0).any()
    assert np.isfinite(scores.vog).all()


def test_a_class_without_spread_at_one_stage():
    g = gradients()
    g[:2, LABELS == 1] = g[:2, 1:2]
    scores = warned(
        lambda: vogcore.score_gradients(g, LABELS, stages={"start": slice(2), "end": slice(2, 4)}),
        "Class '1' has no spread of raw scores at stage 'start', so the normalised ones are 0 there.",
    )
    assert (scores.stage("start").vog[LABELS == 1] == 0).all()
    assert (scores.stage("end").vog[LABELS == 1] != 0).any()


def test_many_classes_are_counted_instead_of_named():
    labels = np.arange(N)
    labels[1] = 0
    scores = warned(lambda: vogcore.score_gradients(gradients(), labels), "and 18 more have one example only")
    assert (scores.vog[2:] == 0).all()


def test_no_gradient_changes():
    g = np.repeat(gradients()[:1], 3, axis=0)
    scores = warned(
        lambda: vogcore.score_gradients(g, LABELS),
        "gradients of checkpoint 0 and checkpoint 1 are the same",
        "gradients of checkpoint 0 and checkpoint 2 are the same",
        "No gradient changes between the checkpoints",
    )
    assert (scores.vog == 0).all()
    assert scores.direction.measured == "not measured"


LINEAR = "linear in its input"


@pytest.mark.parametrize("normalise", ["class", "robust", "absolute", "none"])
@pytest.mark.parametrize("scale", ["none", "relative"])
@pytest.mark.parametrize("reduction", ["std", "var"])
def test_gradients_that_depend_on_the_class_alone(normalise, scale, reduction):
    exact = np.random.default_rng(0).standard_normal((4, 3, 6))[:, LABELS]
    rounded = (exact * (1 + 1e-7 * np.random.default_rng(1).standard_normal(exact.shape))).astype(np.float32)
    for g in (exact, rounded):
        scores = warned(
            lambda g=g: vogcore.score_gradients(g, LABELS, normalise=normalise, scale=scale, reduction=reduction),
            LINEAR,
        )
        if normalise != "none":
            assert (scores.vog == 0).all()


def linear(w, layers: int):
    nodes = [
        helper.make_node("Gemm", ["x" if i == 0 else f"h{i}", f"w{i}", f"b{i}"], [f"h{i + 1}"]) for i in range(layers)
    ]
    nodes[-1].output[0] = "logits"
    return build(nodes, [("x", TensorProto.FLOAT, ["N", FEATURES])], [("logits", TensorProto.FLOAT, ["N", CLASSES])], w)


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("batch", [None, 1, 7])
def test_linear_networks(layers, batch):
    sizes = [FEATURES, *[33] * (layers - 1), CLASSES]
    shapes = {f"w{i}": (sizes[i], sizes[i + 1]) for i in range(layers)}
    shapes |= {f"b{i}": (sizes[i + 1],) for i in range(layers)}
    models = [linear(w, layers) for w in walk(shapes, 4)]
    x, y = examples(50)
    for target in ("label", "predicted", 1):
        scores = warned(lambda target=target: vogcore.score(models, x, y, batch_size=batch, target=target), LINEAR)
        assert np.isfinite(scores.vog).all()
        if target == "label":
            assert (scores.vog == 0).all()
    probability = vogcore.score(models, x, y, of="probability")  # not linear, for all that the logits are
    assert not probability.warnings
    assert probability.vog.std() > 0.5


@pytest.mark.parametrize("seed", range(5))
def test_networks_that_are_not_linear_are_not_called_so(seed):
    x, y = examples(50)
    models = mlps(3, seed=seed)
    scores = vogcore.score(models, x, y)
    assert not scores.warnings
    close(scores.vog.std(keepdims=True), np.ones(1), 1e-9)
