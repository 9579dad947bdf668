"""Per-pixel maps: against two passes over float64 gradients, and what they cost those who do not ask for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vogcore
from vogcore.errors import GradientError, SettingsError
from vogcore.scoring import maps as maps_module

from .models import CNN_SHAPES, IMAGE, MLP_SHAPES, autograd, cnn, examples, mlp, tokens, walk

K, N = 4, 12


def reference(gradients: np.ndarray, axis: int | None, channels: str, reduction: str, scale: str) -> np.ndarray:
    """Maps of all examples from gradients (K, N, ...), in float64 and two passes."""
    s = gradients.astype(np.float64)
    if channels == "mean" and axis is not None:
        s = s.mean(axis + 1)
    elif channels == "magnitude":
        s = np.abs(s) if axis is None else np.abs(s).mean(axis + 1)
    elif channels == "l2":
        s = np.abs(s) if axis is None else np.sqrt((s**2).sum(axis + 1))
    result = s.std(0) if reduction == "std" else s.var(0)
    if scale == "relative":
        result = result / np.abs(s).mean(axis=(0, *range(2, s.ndim)), keepdims=True)[0]
    return result


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(5,), (3, 4, 4), (4, 5, 2), (2, 3), (1, 6, 6)]),
    channels=st.sampled_from(["mean", "none", "magnitude", "l2"]),
    reduction=st.sampled_from(["std", "var"]),
    scale=st.sampled_from(["none", "relative"]),
    moments=st.sampled_from(["float64", "float32"]),
    memory=st.sampled_from([1, 3000, 1 << 30]),
    seed=st.integers(0, 1000),
)
def test_maps_of_given_gradients(shape, channels, reduction, scale, moments, memory, seed):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(K, N, *shape)).astype(np.float32)
    chosen = rng.permutation(N)[: 1 + seed % N]
    scores = vogcore.score_gradients(
        gradients,
        np.arange(N) % 2,
        channels=channels,
        reduction=reduction,
        scale=scale,
        moments=moments,
        memory=memory,
        maps=chosen,
    )
    axis = scores.settings["channel_axis"]
    np.testing.assert_array_equal(scores.maps.index, chosen)
    assert scores.maps.vog.dtype == np.float32
    expected = reference(gradients, axis, channels, reduction, scale)[chosen]
    np.testing.assert_allclose(scores.maps.vog, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(
        scores.maps.vog.astype(np.float64).reshape(len(chosen), -1).mean(1), scores.vog_raw[chosen], rtol=1e-5
    )


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_maps_of_the_hardest_from_checkpoints(name, tmp_path):
    make, shapes, shape, axis = {"mlp": (mlp, MLP_SHAPES, (12,), None), "cnn": (cnn, CNN_SHAPES, IMAGE, 1)}[name]
    weights = walk(shapes, K)
    x, y = examples(40, shape)
    out = tmp_path / "s.h5"
    scores = vogcore.score([make(w) for w in weights], x, y, maps=5, batch_size=3, out=out)
    np.testing.assert_array_equal(scores.maps.index, scores.hardest(5))
    gradients, _ = autograd(name, weights, x, y)
    expected = reference(gradients, axis, "mean", "std", "none")[scores.maps.index]
    assert scores.maps.vog.shape == expected.shape
    np.testing.assert_allclose(scores.maps.vog, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        scores.maps.vog.astype(np.float64).reshape(5, -1).mean(1), scores.vog_raw[scores.maps.index], rtol=1e-5
    )
    back = vogcore.open_scores(out)
    np.testing.assert_array_equal(back.maps.vog, scores.maps.vog)
    np.testing.assert_array_equal(back.maps.of(int(back.maps.index[3])), scores.maps.vog[3])
    assert back.settings["maps"] == {"hardest": 5}
    assert "maps" in back.timings


def test_maps_use_the_targets_of_the_first_pass(tmp_path):
    models, (x, y) = [mlp(w) for w in walk(MLP_SHAPES, K)], examples(30)
    scores = vogcore.score(models, x, y, target="predicted", maps=[3, 17], out=tmp_path / "s.h5")
    mean = scores.maps.vog.astype(np.float64).mean(1)
    np.testing.assert_allclose(mean, scores.vog_raw[[3, 17]], rtol=1e-5)
    assert scores.settings["maps"] == {"positions": 2}


def test_maps_of_an_archive_an_iterable_and_of_embeddings(tmp_path):
    models, (x, y) = [mlp(w) for w in walk(MLP_SHAPES, K)], examples(30)
    direct = vogcore.score(models, x, y, keep_gradients=tmp_path / "g.h5", maps=4)
    archive = vogcore.score_gradients(tmp_path / "g.h5", maps=4)
    np.testing.assert_array_equal(archive.maps.index, direct.maps.index)
    np.testing.assert_allclose(archive.maps.vog, direct.maps.vog, rtol=1e-5)
    gradients = np.random.default_rng(0).normal(size=(3, 6, 5)).astype(np.float32)
    stream = vogcore.score_gradients(((k, 0, block) for k, block in enumerate(gradients)), np.zeros(6, int), maps=[2])
    np.testing.assert_allclose(stream.maps.vog[0], gradients[:, 2].std(0), rtol=1e-5)
    words = [tokens(w) for w in walk({"table": (11, 4), "w": (4, 3)}, 3)]
    read = np.random.default_rng(1).integers(0, 11, (9, 5))
    scores = vogcore.score(words, read, np.arange(9) % 3, wrt="embedded", maps=2)
    assert scores.maps.vog.shape == (2, 5, 4)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (0, "maps=0 is not possible"),
        (-3, "maps=-3 is not possible"),
        (True, "maps=True is not possible"),
        ("50", "maps='50' is not possible"),
        (2.0, "give an integer"),
        ([], "list of positions"),
        ([0.5], "list of positions"),
        ([[1]], "list of positions"),
        ([1, 12], "asks for example 12, and the examples are 0 to 11"),
        ([-1], "asks for example -1"),
        ([4, 4], "names an example twice"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_before_the_run(wanted, message):
    gradients = np.random.default_rng(0).normal(size=(K, N, 5)).astype(np.float32)
    with pytest.raises(SettingsError, match=message):
        vogcore.score_gradients(gradients, np.zeros(N, int), maps=wanted)
    assert len(vogcore.score_gradients(gradients, np.zeros(N, int), maps=100).maps) == N


def test_scores_are_in_the_file_when_the_second_pass_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise GradientError("no maps today.")

    monkeypatch.setattr(maps_module.MapPass, "_maps", fail)
    models, (x, y) = [mlp(w) for w in walk(MLP_SHAPES, K)], examples(30)
    with pytest.raises(GradientError):
        vogcore.score(models, x, y, maps=3, out=tmp_path / "s.h5")
    back = vogcore.open_scores(tmp_path / "s.h5")
    assert back.maps is None
    np.testing.assert_array_equal(back.vog, vogcore.score(models, x, y).vog)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


def test_a_second_pass_makes_one_session_for_each_checkpoint(monkeypatch):
    from vogcore.scoring.sessions import Sessions

    calls: list[int] = []
    original = Sessions.gradient
    monkeypatch.setattr(Sessions, "gradient", lambda self, index: calls.append(index) or original(self, index))
    models, (x, y) = [mlp(w) for w in walk(MLP_SHAPES, K)], examples(30)
    vogcore.score(models, x, y)
    without = len(calls)
    vogcore.score(models, x, y, maps=20, batch_size=5)
    assert len(calls) - without == without + K
