"""What frameworks share: cotangents, blocks in any order and form, streams with logits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vogcore
from vogcore.autodiff import OF
from vogcore.errors import DataError, GradientError, ModelError, SettingsError
from vogcore.scoring.native import gradient_blocks, logit_cotangent, send, stream
from vogcore.scoring.positions import consecutive
from vogcore.store import CheckpointInfo, open_gradients

K, N, C = 3, 40, 4
LABELS = np.arange(N) % C
GRADIENTS = np.random.default_rng(0).normal(size=(K, N, 2, 3)).astype(np.float32)
LOGITS = np.random.default_rng(1).normal(size=(K, N, C)).astype(np.float32)


def scalar(of: str, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    rows = np.arange(len(z))
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    others = np.where(np.arange(z.shape[1]) == y[:, None], -np.inf, z)
    return {
        "logit": z[rows, y], "centred-logit": z[rows, y] - z.mean(1), "margin": z[rows, y] - others.max(1),
        "probability": np.exp(log_p[rows, y]), "log-probability": log_p[rows, y], "loss": -log_p[rows, y],
    }[of]  # fmt: skip


@pytest.mark.parametrize("of", OF)
def test_cotangents_are_derivatives(of):
    z, y = LOGITS[0].astype(np.float64), LABELS
    found = logit_cotangent(z, y, of)
    for c, unit in enumerate(np.eye(C)):
        slope = (scalar(of, z + 1e-6 * unit, y) - scalar(of, z - 1e-6 * unit, y)) / 2e-6
        np.testing.assert_allclose(found[:, c], slope, atol=1e-8)
    assert logit_cotangent(LOGITS[0], y, of).dtype == np.float32
    with pytest.raises(SettingsError, match="of='entropy' is not known"):
        logit_cotangent(z, y, "entropy")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), unique=True, min_size=1), st.sampled_from([np.int64, np.uint8, list]))
def test_positions_as_consecutive_runs(positions, kind):
    values = np.array(positions) * 10
    where = positions if kind is list else np.array(positions, kind)
    runs = list(consecutive(where, (values, None), "A batch"))
    assert sorted(np.concatenate([start + np.arange(len(part)) for start, (part, _) in runs])) == sorted(positions)
    for start, (part, none) in runs:
        np.testing.assert_array_equal(part, 10 * (start + np.arange(len(part))))
        assert none is None
    starts = sorted((start, start + len(part)) for start, (part, _) in runs)
    assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(starts))


def run(shuffled: bool = True):
    rng = np.random.default_rng(2)
    for k in range(K):
        order = rng.permutation(N) if shuffled else np.arange(N)
        blocks = [(part, GRADIENTS[k, part], LOGITS[k, part]) for part in np.array_split(order, 5)]
        yield CheckpointInfo(f"c{k}", step=10 * k, sha256=f"{k}" * 64), blocks


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "g.h5"
    with vogcore.GradientWriter(path, N, (2, 3), labels=LABELS) as writer:
        for k in range(K):
            writer.write(f"c{k}", 0, GRADIENTS[k])
            writer.write_logits(f"c{k}", 0, LOGITS[k])
    return vogcore.score_gradients(path)


def check(found, wanted):
    for score in ("vog", "vog_raw", "vog_relative"):
        assert getattr(found.stage("all"), score).tobytes() == getattr(wanted.stage("all"), score).tobytes()
    np.testing.assert_array_equal(found.predictions_class, wanted.predictions_class)
    np.testing.assert_array_equal(found.predictions_label_probability, wanted.predictions_label_probability)
    np.testing.assert_array_equal(found.companions["loss"].values, wanted.companions["loss"].values)
    assert repr(found.direction) == repr(wanted.direction)
    assert found.direction.measured != "not measured"


def test_a_stream_with_logits_gives_the_whole_file(wanted):
    check(vogcore.score_gradients(stream(run()), LABELS), wanted)


def test_a_stream_with_indices_out_of_order(wanted):
    blocks = [(k, 0, GRADIENTS[k], LOGITS[k]) for k in (2, 0, 1)]
    check(vogcore.score_gradients(blocks, LABELS), wanted)


def test_archive_and_live_run(wanted, tmp_path):
    with vogcore.GradientWriter(tmp_path / "g.h5", N, (2, 3), labels=LABELS) as writer:
        send(run(), writer)
    check(vogcore.score_gradients(tmp_path / "g.h5"), wanted)
    with open_gradients(tmp_path / "g.h5") as archive:
        assert archive.checkpoints == [info for info, _ in run()]
    with vogcore.LiveScorer(tmp_path / "live", N, (2, 3), labels=LABELS) as live:
        send(run(), live)
        assert live.checkpoints == [info for info, _ in run()]
        check(live.scores(), wanted)


def test_logits_for_some_blocks_only_are_refused():
    blocks = [(0, 0, GRADIENTS[0], LOGITS[0]), (1, 0, GRADIENTS[1])]
    with pytest.raises(GradientError, match="not complete"):
        vogcore.score_gradients(blocks, LABELS)


@pytest.mark.parametrize("item", [(0, 0), (0, 0, GRADIENTS[0], LOGITS[0], 1), [0, 0, GRADIENTS[0]]])
def test_a_stream_of_something_else_is_refused(item):
    with pytest.raises(GradientError, match=r"yields tuples \(checkpoint, start, block\[, logits\]\)"):
        vogcore.score_gradients([item], LABELS)


def test_positions_that_do_not_fit_a_stream():
    for where in ([0, 0], [0, -1], [0], [[0, 1]]):
        with pytest.raises(GradientError):
            vogcore.score_gradients([(0, where, GRADIENTS[0, :2])], LABELS)


def test_blocks_of_a_framework():
    def differentiate(x, y):
        return x * y[:, None], np.zeros((len(x), C))

    x = np.arange(2.0 * N).reshape(N, 2)
    blocks = list(gradient_blocks(differentiate, x, LABELS, batch_size=7, start=3, stop=30))
    assert [start for start, *_ in blocks] == [3, 10, 17, 24]
    np.testing.assert_array_equal(np.concatenate([g for _, g, _ in blocks]), (x * LABELS[:, None])[3:30])
    ((_, gradients, _),) = gradient_blocks(differentiate, x, 2)
    np.testing.assert_array_equal(gradients, 2 * x)
    for target in (LABELS[:5], LABELS * 1.0, -1, LABELS[:, None]):
        with pytest.raises(DataError, match="class index for each of the 40"):
            list(gradient_blocks(differentiate, x, target))
    with pytest.raises(DataError, match="Example 13 has the target class 9, but the model has 4"):
        list(gradient_blocks(differentiate, x, np.where(np.arange(N) == 13, 9, 0), batch_size=5))
    with pytest.raises(ModelError, match=r"logits of shape \(batch, classes\)"):
        list(gradient_blocks(lambda x, y: (x, x[:, 0]), x, LABELS))
    with pytest.raises(SettingsError, match="batch_size=0"):
        list(gradient_blocks(differentiate, x, LABELS, batch_size=0))
