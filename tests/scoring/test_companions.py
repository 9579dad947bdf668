"""Companion metrics against plain float64 formulas, one example at a time, by every way that logits come in."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import vogcore
from vogcore.scoring.companions import LogitNotes, measure_logits

from .models import FEATURES, MLP_SHAPES, autograd, mlp, walk

EXACT = ("correct", "correctness", "forgetting", "first_learned")
ALL = {
    "loss", "correct", "entropy", "confidence", "variability", "correctness", "el2n", "aum", "forgetting",
    "first_learned",
}  # fmt: skip


def by_hand(logits: np.ndarray, label: int) -> dict[str, float]:
    """Every metric of one example from its logits (K, C), as the papers write them."""
    probabilities, margins, el2n, right = [], [], [], []
    for z in logits.astype(np.float64):
        exponentials = [math.exp(value - z.max()) for value in z]
        p = [value / math.fsum(exponentials) for value in exponentials]
        probabilities.append(p[label])
        margins.append(z[label] - max(value for c, value in enumerate(z) if c != label))
        el2n.append(math.sqrt(math.fsum((p[c] - (c == label)) ** 2 for c in range(len(z)))))
        right.append(int(np.argmax(z)) == label)
    k = len(logits)
    mean = math.fsum(probabilities) / k
    return {
        "loss": -math.log(probabilities[-1]),
        "correct": right[-1],
        "entropy": -math.fsum(q * math.log(q) for q in p if q > 0),
        "confidence": mean,
        "variability": math.sqrt(math.fsum((q - mean) ** 2 for q in probabilities) / k),
        "correctness": sum(right) / k,
        "el2n": math.fsum(el2n) / k,
        "aum": math.fsum(margins) / k,
        "forgetting": sum(a and not b for a, b in itertools.pairwise(right)),
        "first_learned": right.index(True) if any(right) else k,
    }


def check(companions, logits: np.ndarray, labels: np.ndarray, rtol: float = 1e-6) -> None:
    """Logits (K, N, C); probabilities are kept as float32."""
    assert set(companions) == ALL
    for example in range(logits.shape[1]):
        if labels[example] < 0:
            assert not companions["correct"].values[example]
            for name in ALL - {"correct", "entropy"}:
                assert np.isnan(companions[name].values[example]), name
            continue
        for name, expected in by_hand(logits[:, example], labels[example]).items():
            found = companions[name].values[example]
            if name in EXACT:
                assert found == expected, name
            else:
                # A spread of float32 values is off by their rounding, whatever its size.
                assert found == pytest.approx(expected, rel=rtol, abs=1e-7), name


@st.composite
def runs(draw) -> tuple[np.ndarray, np.ndarray]:
    k, n, c = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(2, 5))
    numbers = st.floats(-30, 30, width=32)
    logits = draw(hnp.arrays(np.float32, (k, n, c), elements=numbers))
    return logits, draw(hnp.arrays(np.int64, n, elements=st.integers(-1, c - 1)))


@settings(max_examples=200, deadline=None)
@given(run=runs(), batch=st.integers(1, 4))
def test_every_metric_is_that_of_its_paper(run, batch):
    logits, labels = run
    k, n, _ = logits.shape
    notes = LogitNotes(k, n, labels)
    for checkpoint in range(k):
        for start in range(0, n, batch):
            notes.note(checkpoint, start, logits[checkpoint, start : start + batch])
    check(notes.companions(), logits, labels)


def test_a_block_that_is_scored_again_begins_anew():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 4, 5)), np.array([0, 1, 2, 3])
    notes = LogitNotes(3, 4, labels)
    notes.note(0, 0, rng.normal(size=(4, 5)))
    notes.note(1, 0, rng.normal(size=(4, 5)))
    for checkpoint in range(3):
        notes.note(checkpoint, 0, logits[checkpoint])
    check(notes.companions(), logits, labels)


def test_a_sure_network_keeps_its_digits():
    """Where the label's probability rounds to one, what is left of it still counts."""
    found = measure_logits(np.array([[40.0, 0.0, -1.0], [800.0, 0.0, 0.0], [0.0, 800.0, 0.0]]), np.array([0, 0, 0]))
    rest = math.exp(-40) + math.exp(-41)
    assert found.loss[0] == pytest.approx(rest, rel=1e-12)
    assert found.el2n[0] == pytest.approx(math.sqrt(rest**2 + math.exp(-80) + math.exp(-82)), rel=1e-12)
    assert found.loss[2] == 800
    assert found.el2n[2] == pytest.approx(math.sqrt(2))
    assert found.entropy[1] == found.entropy[2] == 0


def test_one_logit_has_no_margin():
    notes = LogitNotes(2, 3, np.zeros(3, np.int64))
    for checkpoint in range(2):
        notes.note(checkpoint, 0, np.ones((3, 1)))
    assert set(notes.companions()) == ALL - {"aum"}


@pytest.fixture(scope="module")
def run():
    weights = walk(MLP_SHAPES, 5)
    x = np.random.default_rng(3).normal(size=(30, FEATURES)).astype(np.float32)
    y = np.random.default_rng(4).integers(0, 3, 30)
    _, logits = autograd("mlp", weights, x, y)
    return [mlp(w) for w in weights], x, y, logits


@pytest.mark.parametrize("way", ["score", "archive", "live"])
def test_every_way_to_the_scores_has_them(run, way, tmp_path):
    models, x, y, logits = run
    kept = tmp_path / "g.h5"
    scores = vogcore.score(models, x, y, target="predicted", keep_gradients=kept, out=tmp_path / "s.h5")
    if way == "score":
        again = vogcore.open_scores(tmp_path / "s.h5")
        for name, companion in scores.companions.items():
            np.testing.assert_array_equal(again.companions[name].values, companion.values)
            assert again.companions[name].source == companion.source
        check(again.companions, logits, y, rtol=2e-5)  # the network's own arithmetic is float32
        return
    if way == "live":
        from vogcore.store import open_gradients

        with (
            open_gradients(kept) as archive,
            vogcore.LiveScorer(tmp_path / "live", 30, archive.shape, labels=y) as live,
        ):
            for k in range(archive.n_checkpoints):
                with live.checkpoint(str(k)) as checkpoint:
                    for start in range(0, 30, 7):
                        stop = min(start + 7, 30)
                        checkpoint.add(start, archive.read(k, start, stop), archive.read_logits(k, start, stop))
            found = live.scores()
    else:
        found = vogcore.score_gradients(kept, y)
    assert set(found.companions) == ALL
    for name, companion in scores.companions.items():
        np.testing.assert_array_equal(found.companions[name].values, companion.values, err_msg=name)


def test_without_labels_there_is_the_entropy(run):
    models, x, *_ = run
    scores = vogcore.score(models, x, target="predicted")
    assert set(scores.companions) == {"entropy"}
    assert np.isfinite(scores.companions["entropy"].values).all()
