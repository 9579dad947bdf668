"""score_gradients(): arrays of every kind, archives, streams in every order, and every setting by its definition."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
import torch

import vogcore
from vogcore.errors import CheckpointError, DataError, GradientError, SettingsError, StoreError, VogcoreWarning
from vogcore.store import CheckpointInfo, open_gradients

from .models import by_class, close, two_pass

K, N = 5, 24
LABELS = np.arange(N) % 3


def gradients(*shape: int, k: int = K, n: int = N, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((k, n, *shape)) * rng.uniform(0.5, 2, (1, n, *[1] * len(shape)))


def reduced(g: np.ndarray, channels: str, axis: int | None) -> np.ndarray:
    if axis is None or channels == "none":
        return g if channels in ("mean", "none") else np.abs(g)
    by = axis + 1
    return {"mean": g.mean(by), "magnitude": np.abs(g).mean(by), "l2": np.sqrt((g**2).sum(by))}[channels]


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 6, 5), 1), ((6, 5, 3), 3), ((5, 6, 4), 3), ((7,), None), ((4, 6), None), ((1, 5, 5), 1)]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_arrays_of_every_layout_and_type(shape, axis, dtype):
    g = gradients(*shape).astype(dtype)
    scores = vogcore.score_gradients(g, LABELS)
    raw = two_pass(g, axis)
    np.testing.assert_allclose(scores.vog_raw, raw, rtol=1e-6)
    close(scores.vog, by_class(raw, LABELS), 1e-6)
    assert scores.settings["channel_axis"] == axis
    assert scores.direction.measured == "not measured"
    assert scores.settings["of"] == "as the gradients were made"


@pytest.mark.parametrize("kind", ["torch", "torch with graph", "memmap", "h5py", "strided", "read-only", "bfloat16"])
def test_arrays_of_every_kind(kind, tmp_path):
    g = gradients(3, 4, 5).astype(np.float32)
    want = vogcore.score_gradients(g, LABELS)
    if kind == "bfloat16":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        narrow = g.astype(ml_dtypes.bfloat16)
        want, given = vogcore.score_gradients(narrow.astype(np.float32), LABELS), narrow
    elif kind.startswith("torch"):
        given = torch.from_numpy(g)
        if kind == "torch with graph":
            given = given.requires_grad_() * 1
    elif kind == "memmap":
        np.save(tmp_path / "g.npy", g)
        given = np.load(tmp_path / "g.npy", mmap_mode="r")
    elif kind == "h5py":
        with h5py.File(tmp_path / "g.h5", "w") as file:
            file["g"] = g
        given = h5py.File(tmp_path / "g.h5")["g"]
    elif kind == "strided":
        given = np.repeat(g, 2, axis=1)[:, ::2]
    else:
        given = g.copy()
        given.flags.writeable = False
    scores = vogcore.score_gradients(given, LABELS)
    np.testing.assert_array_equal(scores.vog, want.vog)


@pytest.mark.parametrize("axis", [None, 1, 2, 3, -1])
@pytest.mark.parametrize("channels", ["mean", "none", "magnitude", "l2"])
@pytest.mark.parametrize("reduction", ["std", "var"])
def test_channels_and_reduction_are_what_they_say(channels, axis, reduction):
    g = gradients(3, 6, 5)
    scores = vogcore.score_gradients(g, LABELS, channels=channels, channel_axis=axis, reduction=reduction)
    s = reduced(g, channels, {None: 1, -1: 3}.get(axis, axis))
    raw = two_pass(s, None, reduction)
    np.testing.assert_allclose(scores.vog_raw, raw, rtol=1e-12)
    assert scores.settings["channels"] == channels
    relative = vogcore.score_gradients(
        g, LABELS, channels=channels, channel_axis=axis, reduction=reduction, scale="relative"
    )
    size = np.abs(s).reshape(K, N, -1).mean((0, 2))
    np.testing.assert_allclose(relative.vog_raw, raw / size, rtol=1e-12)
    np.testing.assert_allclose(scores.stage("all").vog_relative, raw / size, rtol=1e-12)
    close(relative.vog, by_class(raw / size, LABELS), 1e-10)


def test_a_relative_score_is_free_of_the_gradients_magnitude():
    g = gradients(8)
    factor = np.random.default_rng(3).uniform(0.1, 10, (1, N, 1))
    want, got = (vogcore.score_gradients(a, LABELS, scale="relative") for a in (g, g * factor))
    np.testing.assert_allclose(got.vog_raw, want.vog_raw, rtol=1e-12)
    zero = g.copy()
    zero[:, 4] = 0
    assert vogcore.score_gradients(zero, LABELS, scale="relative").vog_raw[4] == 0


def test_channel_axis_that_cannot_be_told_is_asked_for():
    g = gradients(5, 6, 7)
    with pytest.raises(SettingsError, match=r"\(N, 5, 6, 7\).*set channel_axis, or channels='none'"):
        vogcore.score_gradients(g, LABELS)
    np.testing.assert_allclose(vogcore.score_gradients(g, LABELS, channel_axis=2).vog_raw, two_pass(g, 2), rtol=1e-12)
    np.testing.assert_allclose(vogcore.score_gradients(g, LABELS, channels="none").vog_raw, two_pass(g), rtol=1e-12)
    for axis in (0, 4, -4):
        with pytest.raises(SettingsError, match=f"channel_axis={axis} is not an axis"):
            vogcore.score_gradients(g, LABELS, channel_axis=axis)


@pytest.mark.parametrize("normalise", ["class", "absolute", "robust", "none"])
def test_normalisation_is_what_it_says(normalise):
    g = gradients(8)
    raw = two_pass(g)
    want = np.empty(N)
    for c in range(3):
        rows = c == LABELS
        part = raw[rows]
        middle = np.median(part)
        want[rows] = {
            "class": lambda part=part, middle=middle: (part - part.mean()) / part.std(),
            "absolute": lambda part=part, middle=middle: np.abs(part - part.mean()) / part.std(),
            "robust": lambda part=part, middle=middle: (part - middle) / (1.4826 * np.median(np.abs(part - middle))),
            "none": lambda part=part, middle=middle: part,
        }[normalise]()
    scores = vogcore.score_gradients(g, LABELS, normalise=normalise)
    close(scores.vog, want, 1e-10)
    assert scores.stage("all").normalise == normalise


def test_without_labels_there_is_one_class():
    g = gradients(8)
    scores = vogcore.score_gradients(g)
    close(scores.vog, by_class(two_pass(g), np.zeros(N)), 1e-10)
    assert scores.classes == ["all"]
    assert (scores.labels == -1).all()
    assert scores.class_count.tolist() == [N]
    with pytest.raises(SettingsError, match="class names were given, but there are no labels"):
        vogcore.score_gradients(g, class_names=["a"])


@pytest.mark.parametrize("memory", [1, 3000, 1 << 30])
def test_memory_and_runs_do_not_change_a_bit(memory, tmp_path):
    g = gradients(3, 6, 5, k=7)
    want = vogcore.score_gradients(g, LABELS)
    got = vogcore.score_gradients(g, LABELS, memory=memory, out=tmp_path / "s.h5")
    order = np.random.default_rng(0).permutation(N)
    permuted = vogcore.score_gradients(g[:, order], LABELS[order], memory=memory)
    for name in want.stages:
        np.testing.assert_array_equal(got.stage(name).vog, want.stage(name).vog)
        np.testing.assert_array_equal(permuted.stage(name).vog_raw, want.stage(name).vog_raw[order])
    np.testing.assert_array_equal(vogcore.open_scores(tmp_path / "s.h5").vog, want.vog)


# ---------------------------------------------------------------------------------------------------------- streams


def blocks(g: np.ndarray, size: int = 5, named: bool = False) -> list[tuple]:
    """All blocks of an array, checkpoint-major."""
    return [
        (f"epoch {k}" if named else k, start, g[k, start : start + size])
        for k in range(len(g))
        for start in range(0, g.shape[1], size)
    ]


def in_order(items: list[tuple], order: str) -> list[tuple]:
    if order == "block-major":
        return sorted(items, key=lambda item: (item[1], item[0]))
    if order == "shuffled":
        return [items[i] for i in np.random.default_rng(4).permutation(len(items))]
    return items


@pytest.mark.parametrize("order", ["checkpoint-major", "block-major", "shuffled"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_streams_in_any_order(order, dtype, tmp_path):
    g = gradients(3, 4, 5, k=7).astype(dtype)
    scores = vogcore.score_gradients((item for item in in_order(blocks(g), order)), LABELS, spool_folder=tmp_path)
    want = vogcore.score_gradients(g if dtype == np.float16 else g.astype(np.float32), LABELS)
    for name in want.stages:
        np.testing.assert_array_equal(scores.stage(name).vog_raw, want.stage(name).vog_raw)
    assert [c.name for c in scores.checkpoints] == [f"checkpoint {k}" for k in range(7)]
    assert not list(tmp_path.iterdir())


def test_streams_of_named_checkpoints_and_tensors():
    g = gradients(6).astype(np.float32)
    items = [
        (name, start, torch.from_numpy(block.copy()).requires_grad_())
        for name, start, block in blocks(g, 7, named=True)
    ]
    scores = vogcore.score_gradients(in_order(items, "block-major"), LABELS.tolist())
    np.testing.assert_array_equal(scores.vog, vogcore.score_gradients(g, LABELS).vog)
    assert [c.name for c in scores.checkpoints] == [f"epoch {k}" for k in range(K)]


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([], GradientError, "stream of gradients is empty"),
        ([np.zeros((2, 3))], GradientError, "it yielded a ndarray"),
        ([(0, 0, np.zeros((2, 3), int))], GradientError, "Checkpoint 0, examples from 0 on: .* int64 of shape"),
        ([(0, 0, np.zeros(3))], GradientError, r"float64 of shape \(3,\)"),
        ([(0, 0, [[object()]])], GradientError, "is object of shape|cannot be turned"),
        ([(0, 0, torch.zeros((2, 3), dtype=torch.bfloat16))], GradientError, "The block of checkpoint 0, .*BFloat16"),
        ([(-1, 0, np.zeros((2, 3)))], GradientError, "the checkpoint -1, which is no index"),
        ([(0.0, 0, np.zeros((2, 3)))], GradientError, "the checkpoint 0.0, which is no index"),
        ([(0, -2, np.zeros((2, 3)))], GradientError, "the position -2, which is no index"),
        ([(0, 23, np.zeros((2, 3)))], GradientError, "Examples 23 to 24 .* outside of 0 to 23"),
        ([(0, 0, np.zeros((2, 3))), (0, 2, np.zeros((2, 4)))], GradientError, r"shape \('b', 3\)"),
        ([(0, 0, np.zeros((2, 3))), (0, 1, np.zeros((2, 3)))], GradientError, "example 1 .* written already"),
        ([(0, 0, np.zeros((2, 3))), ("b", 0, np.zeros((2, 3)))], GradientError, "by index or by name, not by both"),
        (blocks(np.zeros((3, N, 4)))[:-1], GradientError, "is not complete: .*'checkpoint 2' .* example 20 on.$"),
        ([(k, s, b) for k, s, b in blocks(np.zeros((3, N, 4))) if k != 1], GradientError, "2 but none of index 1"),
        (blocks(np.zeros((1, N, 4))), CheckpointError, "there is 1 checkpoint"),
        (
            [(0, 0, np.zeros((2, 3), np.float16)), (1, 0, np.zeros((2, 3), np.float32))],
            GradientError,
            "gradients are float32, but the stream began with float16",
        ),
    ],
)  # fmt: skip
def test_streams_that_are_malformed(items, error, message, tmp_path):
    with pytest.raises(error, match=message) as caught:
        vogcore.score_gradients(iter(items), LABELS, spool_folder=tmp_path)
    assert "partial" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_stream_that_fails_by_itself_leaves_nothing(tmp_path):
    def broken():
        yield 0, 0, np.zeros((N, 3))
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        vogcore.score_gradients(broken(), LABELS, spool_folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stream_needs_labels_and_a_folder(tmp_path):
    items = blocks(gradients(3))
    with pytest.raises(DataError, match="needs labels"):
        vogcore.score_gradients(iter(items))
    for labels in ("labels.npy", 3, LABELS * 1.0):
        with pytest.raises(DataError, match="gradients: the labels have"):
            vogcore.score_gradients(iter(items), labels)
    with pytest.raises(StoreError, match=r"cannot be kept in .*none meanwhile .*choose another spool_folder"):
        vogcore.score_gradients(iter(items), LABELS, spool_folder=tmp_path / "none")


# --------------------------------------------------------------------------------------------------------- archives


def write(path, g: np.ndarray, **options) -> str:
    with vogcore.GradientWriter(path, g.shape[1], g.shape[2:], **options) as writer:
        for k, block in enumerate(g):
            writer.write(k, 0, block)
    return os.fspath(path)


@pytest.mark.parametrize("memory", [1, 5000, 1 << 30])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_archive_gives_the_bits_of_the_array(dtype, memory, tmp_path):
    g = gradients(6, 5, 3, k=7).astype(dtype)
    path = write(tmp_path / "g.h5", g, dtype=dtype, labels=LABELS, block_size=5, classes=["a", "b", "c"])
    want, got = vogcore.score_gradients(g, LABELS), vogcore.score_gradients(path, memory=memory)
    for name in want.stages:
        np.testing.assert_array_equal(got.stage(name).vog, want.stage(name).vog)
    assert got.classes == ["a", "b", "c"]
    assert got.settings["gradients"] == path


def test_what_is_given_comes_before_what_the_archive_holds(tmp_path):
    g = gradients(5, 6, 7)
    path = write(tmp_path / "g.h5", g, labels=LABELS, channel_axis=2, ids=np.arange(N) + 100)
    kept = vogcore.score_gradients(path)
    assert kept.settings["channel_axis"] == 2
    assert kept.ids[0] == 100
    other = vogcore.score_gradients(
        path, LABELS[::-1].copy(), channel_axis=3, ids=[f"e{i}" for i in range(N)], class_names=["u", "v", "w", "x"]
    )
    np.testing.assert_allclose(other.vog_raw, two_pass(g.astype(np.float32), 3), rtol=1e-6)
    assert other.classes == ["u", "v", "w", "x"]
    assert other.ids[1] == "e1"
    np.testing.assert_array_equal(other.labels, LABELS[::-1])
    assert vogcore.score_gradients(path, channels="none").settings["channel_axis"] is None


def test_unlabelled_examples_of_an_archive_have_no_loss_and_no_class(tmp_path):
    g, labels = gradients(4).astype(np.float32), LABELS.copy()
    labels[[3, 9]] = -1
    rng = np.random.default_rng(0)
    with vogcore.GradientWriter(tmp_path / "g.h5", N, (4,), labels=labels) as writer:
        for k in range(K):
            writer.write(k, 0, g[k])
            writer.write_logits(k, 0, rng.standard_normal((N, 3)))
    with pytest.warns(VogcoreWarning, match="2 of 24 examples have no label, so their normalised score is NaN"):
        scores = vogcore.score_gradients(tmp_path / "g.h5")
    missing = labels < 0
    assert np.isnan(scores.vog[missing]).all()
    assert np.isfinite(scores.vog[~missing]).all()
    assert np.isfinite(scores.vog_raw).all()
    np.testing.assert_array_equal(np.isnan(scores.companions["loss"].values), missing)
    assert scores.direction.n_examples == N - 2
    close(scores.vog[~missing], by_class(scores.vog_raw[~missing], labels[~missing]), 1e-10)


def test_logits_alone_tell_predictions_but_no_direction(tmp_path):
    g, logits = gradients(4), np.random.default_rng(0).standard_normal((K, N, 3))
    with vogcore.GradientWriter(tmp_path / "g.h5", N, (4,)) as writer:
        writer.set_checkpoints([CheckpointInfo(f"c{k}", step=k) for k in range(K)])
        for k in range(K):
            writer.write(k, 0, g[k])
            writer.write_logits(k, 0, logits[k])
    bare = vogcore.score_gradients(tmp_path / "g.h5")
    np.testing.assert_array_equal(bare.predictions_class, logits.argmax(2))
    assert bare.direction.measured == "not measured"
    assert [c.step for c in bare.checkpoints] == list(range(K))
    labelled = vogcore.score_gradients(tmp_path / "g.h5", LABELS)
    assert labelled.direction.n_examples == N
    more = vogcore.score_gradients(tmp_path / "g.h5", LABELS + 1)  # classes that the logits do not have
    assert more.direction.measured == "not measured"


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, GradientError, "given as NoneType"),
        (7, GradientError, "given as int"),
        (np.zeros(3), GradientError, r"the array has shape \(3,\)"),
        (np.zeros((3, 4)), GradientError, r"the array has shape \(3, 4\)"),
        (np.zeros((1, 4, 2)), CheckpointError, "there is 1 checkpoint, and the variance over fewer than two"),
        (np.zeros((0, 4, 2)), CheckpointError, "there is no checkpoint"),
        (np.zeros((2, 0, 2)), GradientError, "no examples"),
        (np.zeros((2, 4, 0)), GradientError, "hold no values"),
        (np.zeros((2, 4, 2), np.int32), GradientError, "float16, float32 or float64, but the array is int32"),
        (np.zeros((2, 4, 2), complex), GradientError, "but the array is complex128"),
        (np.zeros((2, 4, 2), object), GradientError, "but the array is object"),
        (torch.zeros((2, 4, 2), dtype=torch.int64), GradientError, "but the array is int64"),
        (torch.zeros((2, 4, 2), dtype=torch.bfloat16), GradientError, "cannot be turned into a NumPy array"),
        ("missing.h5", StoreError, "missing.h5"),
    ],
)
def test_what_are_no_gradients(given, error, message):
    with pytest.raises(error, match=message):
        vogcore.score_gradients(given, np.zeros(4, int))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:-1], "23 labels for 24 examples"),
        (LABELS * 1.0, "dtype float64"),
        (LABELS - 1, "label of example 0 is -1"),
        (np.where(LABELS == 2, 10**12, LABELS), "too large for a class index"),
        (np.eye(3)[LABELS], "argmax"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(DataError, match=message):
        vogcore.score_gradients(gradients(4), labels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", ["mean", "none", "magnitude", "l2"])
def test_a_gradient_that_is_not_finite_is_named(value, channels, tmp_path):
    g = gradients(3, 4, 5).astype(np.float32)
    g[3, 17, 1, 2, 3] = value
    ids = [f"e{i}" for i in range(N)]
    message = r"gradient of example 17 \(id e17\) at checkpoint {} is not finite"
    with pytest.raises(GradientError, match=message.format("checkpoint 3")):
        vogcore.score_gradients(g, LABELS, ids=ids, channels=channels, memory=4000)
    path = write(tmp_path / "g.h5", g, ids=ids, block_size=5)
    with pytest.raises(GradientError, match=message.format("3")):
        vogcore.score_gradients(path, LABELS, channels=channels)
    with pytest.raises(GradientError, match=r"gradient of example 17 \(id 17\) at checkpoint checkpoint 3"):
        vogcore.score_gradients(blocks(g), LABELS, channels=channels)


def test_squares_that_overflow_are_an_error_and_no_infinite_score():
    g = gradients(4)
    g[2, 5] = 1e200
    with pytest.raises(GradientError, match=r"example 5 \(id 5\) differ so much .* stage 'all'"):
        vogcore.score_gradients(g, LABELS)
    with pytest.raises(GradientError, match="example 5"):
        vogcore.score_gradients(np.where(g == 1e200, 1e30, g), LABELS, moments="float32")


def test_a_flipped_byte_in_an_archive_is_found(tmp_path):
    path = write(tmp_path / "g.h5", gradients(4).astype(np.float32), block_size=5)
    with h5py.File(path, "a") as file:
        file["gradients"][2, 7, 1] += 1e-3
    with pytest.raises(StoreError, match="checkpoint 2, examples 5 to 9"):
        vogcore.score_gradients(path, LABELS)


def test_the_same_gradients_twice_are_pointed_out(tmp_path):
    g = gradients(4)
    g[3] = g[1]
    path = write(tmp_path / "g.h5", g)
    for given in (g, path, blocks(g)):
        with pytest.warns(VogcoreWarning, match="gradients of (checkpoint )?1 and (checkpoint )?3 are the same"):
            scores = vogcore.score_gradients(given, LABELS)
        assert len(scores.warnings) == 1
    # Only the first megabytes agree: not the same.
    large = np.random.default_rng(0).standard_normal((2, 3, 1 << 20))
    large[1, 0] = large[0, 0]
    assert not vogcore.score_gradients(large, [0, 0, 0]).warnings


def test_archives_can_be_scored_while_open(tmp_path):
    path = write(tmp_path / "g.h5", gradients(4))
    with open_gradients(path):
        assert len(vogcore.score_gradients(path, LABELS)) == N
    os.rename(path, tmp_path / "moved.h5")
    assert len(vogcore.score_gradients(tmp_path / "moved.h5", LABELS)) == N
