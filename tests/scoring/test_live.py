"""LiveScorer: the same scores as from an archive of the same gradients, in any batches; what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vogcore
from tests.scoring import live_runs as t
from vogcore.errors import CheckpointError, GradientError, OutputExistsError, SettingsError, StoreError, VogcoreWarning
from vogcore.scoring.live import LiveScorer

ROOT = Path(__file__).parents[2]


def test_the_same_bits_as_from_an_archive(tmp_path):
    t.run(tmp_path / "live")
    with LiveScorer.open(tmp_path / "live") as live:
        scores = live.scores(tmp_path / "scores.h5", normalise="class")
        assert [info.step for info in live.checkpoints] == [100 * k for k in range(t.K)]
    wanted = t.expected(tmp_path)
    t.check_same(scores, wanted)
    t.check_same(vogcore.open_scores(tmp_path / "scores.h5"), wanted)


@pytest.mark.parametrize("checkpoints", [2, 3, 4, 5])
def test_scores_at_any_time(tmp_path, checkpoints):
    with t.scorer(tmp_path / "live") as live:
        for k in range(checkpoints):
            t.add(live, k)
        with pytest.raises(KeyboardInterrupt):
            t.add(live, checkpoints, batch=3, after=5)
        assert live.interrupted == t.name(checkpoints)
        if checkpoints == 5:  # "late" has one checkpoint
            with pytest.warns(VogcoreWarning, match="Stage 'late' has one checkpoint"):
                scores = live.scores()
        else:
            scores = live.scores()
        # The moments were cut where the stage that is left out begins, which changes the order of the sums.
        t.check_same(scores, t.expected(tmp_path, checkpoints), rtol=1e-12 if checkpoints == 5 else 0)
        for k in range(checkpoints, t.K):
            t.add(live, k)
        (tmp_path / "g.h5").unlink()
        t.check_same(live.scores(), t.expected(tmp_path))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), shard=st.sampled_from([1, 5, 23, 100]), dtype=st.sampled_from(["float16", "float32", "float64"]))
def test_any_batches_in_any_order_give_the_same_bits(data, shard, dtype):
    values = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(3, t.N, *t.SHAPE)).astype(dtype)
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        t.scorer(Path(folder) / "live", shard_size=shard) as live,
    ):
        patch.setattr(os, "fsync", lambda descriptor: None)
        for k in range(3):
            order = np.array(data.draw(st.permutations(range(t.N))))
            cuts = sorted(data.draw(st.sets(st.integers(1, t.N - 1), max_size=5)))
            parts = np.split(order, cuts)
            live.add(f"c{k}", ((part, values[k, part]) for part in parts))
        found = live.scores()
    wanted = vogcore.score_gradients(values, t.LABELS, channel_axis=1)
    assert found.vog.tobytes() == wanted.vog.tobytes()
    assert found.stage("all").mean_abs_gradient.tobytes() == wanted.stage("all").mean_abs_gradient.tobytes()


@pytest.mark.parametrize("channels", ["mean", "none", "magnitude", "l2"])
@pytest.mark.parametrize("moments", ["float64", "float32"])
def test_every_setting_of_the_moments(tmp_path, channels, moments):
    with t.scorer(tmp_path / "live", channels=channels, moments=moments) as live:
        for k in range(3):
            live.add(t.name(k), [(0, t.gradients(k))])
        found = live.scores(reduction="var", scale="relative", normalise="robust")
    stack = np.stack([t.gradients(k) for k in range(3)])
    options = {"reduction": "var", "scale": "relative", "normalise": "robust", "moments": moments}
    wanted = vogcore.score_gradients(stack, t.LABELS, channels=channels, channel_axis=1, **options)
    assert found.vog.tobytes() == wanted.vog.tobytes()


def test_against_numpy_in_two_passes(tmp_path):
    with t.scorer(tmp_path / "live") as live:
        for k in range(t.K):
            live.add(t.name(k), [(0, t.gradients(k))])
        found = live.scores().vog_raw
    mean = np.stack([t.gradients(k) for k in range(t.K)]).astype(np.float64).mean(axis=2)
    np.testing.assert_allclose(found, mean.std(axis=0).mean(axis=(1, 2)), rtol=1e-12)


def test_without_labels_and_with_ids(tmp_path):
    ids = [f"image {i}" for i in range(t.N)]
    for _ in range(2):  # created, then gone on with
        with t.scorer(tmp_path / "live", labels=None, ids=ids, settings={"of": "loss"}) as live:
            pass
    with LiveScorer.open(tmp_path / "live") as live:
        for k in range(2):
            live.add(t.name(k), [(0, t.gradients(k), t.logits(k))])
        scores = live.scores()
    assert scores.ids.tolist() == ids
    assert scores.classes == ["all"]
    assert scores.settings["of"] == "loss"
    assert scores.direction.measured == "not measured"
    np.testing.assert_array_equal(scores.predictions_class, np.stack([t.logits(k).argmax(1) for k in range(2)]))


def test_dlpack_and_tensors(tmp_path):
    import torch

    class OnlyDlpack:
        def __init__(self, values):
            self._values = values

        def __dlpack__(self, **options):
            return self._values.__dlpack__(**options)

        def __dlpack_device__(self):
            return self._values.__dlpack_device__()

    with t.scorer(tmp_path / "live") as live:
        live.add("a", [(0, torch.tensor(t.gradients(0), requires_grad=True), torch.tensor(t.logits(0)))])
        live.add("b", [(torch.arange(t.N), OnlyDlpack(t.gradients(1)), t.logits(1))])
        found = live.scores()
    wanted = vogcore.score_gradients(np.stack([t.gradients(0), t.gradients(1)]), t.LABELS, channel_axis=1)
    assert found.vog.tobytes() == wanted.vog.tobytes()


def test_bfloat16(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    narrow = [t.gradients(k).astype(ml_dtypes.bfloat16) for k in range(2)]
    with t.scorer(tmp_path / "live") as live:
        for k in range(2):
            live.add(t.name(k), [(0, narrow[k], t.logits(k).astype(ml_dtypes.bfloat16))])
        found = live.scores()
    wide = np.stack(narrow).astype(np.float32)
    assert found.vog_raw.tobytes() == vogcore.score_gradients(wide, t.LABELS, channel_axis=1).vog_raw.tobytes()


def test_a_checkpoint_of_an_earlier_process_is_skipped(tmp_path):
    t.run(tmp_path / "live", checkpoints=3)
    with t.scorer(tmp_path / "live") as live:
        with live.checkpoint(t.name(1)) as checkpoint:
            assert checkpoint.missing() == []
            checkpoint.add(0, np.zeros((t.N, *t.SHAPE)))

        def never():
            raise AssertionError("computed for nothing")
            yield

        live.add(t.name(2), never())
        t.add(live, 3)
        with pytest.raises(GradientError, match="has been added already"):
            live.checkpoint(t.name(3))
        t.check_same(live.scores(), t.expected(tmp_path, 4))


def test_an_interrupted_checkpoint_is_named_and_can_be_dropped(tmp_path):
    t.run(tmp_path / "live", checkpoints=2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "live").iterdir()}
    with t.scorer(tmp_path / "live") as live, pytest.raises(KeyboardInterrupt):
        t.add(live, 2, after=4)
    with t.scorer(tmp_path / "live") as live:
        assert live.interrupted == t.name(2)
        with pytest.raises(StoreError, match="'step 200' has been added to 2 of the 4 shards"):
            live.checkpoint("another")
        with pytest.raises(StoreError, match="sha256 '' instead of 'ab'"):
            live.checkpoint(t.name(2), 200, stages=["early"], sha256="ab")
        assert live.checkpoint(t.name(2), 200, stages=["early"]).missing() == [(12, t.N)]
        live.discard()
        assert live.interrupted is None
        assert {path.name: path.read_bytes() for path in (tmp_path / "live").iterdir()} == before
        live.add("another", [(0, t.gradients(2), t.logits(2))])


def test_an_incomplete_checkpoint_is_refused_when_its_block_ends(tmp_path):
    with t.scorer(tmp_path / "live") as live:
        with pytest.raises(GradientError, match="3 examples are missing, first 20"):
            live.add("a", [(0, t.gradients(0)[:20])])
        with pytest.raises(CheckpointError, match="no checkpoint is complete"):
            live.scores()
        live.add("a", [(18, t.gradients(0)[18:])])
        assert len(live.checkpoints) == 1


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((0, np.zeros((2, 3, 4, 5), np.float32)), "of shape"),
        ((0, np.zeros((2, *t.SHAPE), np.int64)), "int64"),
        ((t.N - 1, np.zeros((2, *t.SHAPE))), "reaches to example 23, and there are 23"),
        ((-1, np.zeros((2, *t.SHAPE))), "positions start at 0"),
        (([0, 0], np.zeros((2, *t.SHAPE))), "occurs twice"),
        (([0, 1, 2], np.zeros((2, *t.SHAPE))), "one integer position"),
        (("0", np.zeros((2, *t.SHAPE))), "one integer position"),
        ((0, np.full((2, *t.SHAPE), np.nan)), r"gradient of example 0 \(id 0\) at checkpoint a is not finite"),
        ((7, np.zeros((2, *t.SHAPE)), np.full((2, 3), np.inf)), "logits of example 7"),
        ((0, np.zeros((2, *t.SHAPE)), np.zeros((2, 2))), "with C of at least 3"),
        ((0, "text"), "gradients are floating-point"),
    ],
)
def test_a_batch_that_cannot_be_used_is_refused_and_nothing_is_kept_of_it(tmp_path, batch, message):
    with t.scorer(tmp_path / "live") as live:
        with pytest.raises(GradientError, match=message) as caught, live.checkpoint("a") as checkpoint:
            checkpoint.add(*batch)
        assert "\n" not in str(caught.value)
        live.add("a", [(0, t.gradients(0))])
        live.add("b", [(0, t.gradients(1))])
        wanted = vogcore.score_gradients(np.stack([t.gradients(0), t.gradients(1)]), t.LABELS, channel_axis=1)
        assert live.scores().vog.tobytes() == wanted.vog.tobytes()


def test_an_example_that_comes_twice_is_refused(tmp_path):
    with t.scorer(tmp_path / "live") as live, live.checkpoint("a") as checkpoint:
        checkpoint.add(0, t.gradients(0)[:8])
        for start in (3, 7):
            with pytest.raises(GradientError, match=f"Example {start} of checkpoint 'a' has been added already"):
                checkpoint.add(start, t.gradients(0)[start : start + 1])
        checkpoint.add(6, t.gradients(0)[6:])  # the shard under way was dropped with the batch that did not fit


def test_logits_for_all_or_for_none(tmp_path):
    with t.scorer(tmp_path / "live") as live:
        mixed = [(0, t.gradients(0)[:2], t.logits(0)[:2]), (2, t.gradients(0)[2:])]
        with pytest.raises(GradientError, match="Give logits with all"):
            live.add("a", mixed)
        live.add("a", [(0, t.gradients(0), t.logits(0))])
        with pytest.raises(GradientError, match="'b' comes without logits"):
            live.add("b", [(0, t.gradients(0))])


def test_memory_for_scattered_examples_is_bounded(tmp_path):
    order = np.arange(t.N)[::-6]
    with (
        t.scorer(tmp_path / "live", memory=2 * t.SHARD * 16 * 16) as live,
        pytest.raises(GradientError, match="so scattered that 3 shards"),
    ):
        live.add("a", [(order, t.gradients(0)[order])])


def test_the_same_checkpoint_twice_is_warned_of(tmp_path):
    with t.scorer(tmp_path / "live") as live:
        for name, k in (("a", 0), ("b", 1), ("c", 0)):
            live.add(name, [(0, t.gradients(k))])
        with pytest.warns(VogcoreWarning, match="The gradients of a and c are the same"):
            live.scores()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": np.zeros(t.N, int), "classes": ["0", "1", "2"]}, "the labels"),
        ({"ids": np.arange(t.N) + 1}, "the ids"),
        ({"channels": "l2"}, 'channels: "mean" then, "l2" now'),
        ({"moments": "float32"}, "moments"),
        ({"shard_size": 7}, "shard_size: 6 then, 7 now"),
        ({"settings": {"of": "loss"}}, "settings.of: null then"),
        ({"labels": None}, "labelled: true then, false now"),
    ],
)
def test_another_run_is_refused_unless_it_is_to_begin_anew(tmp_path, options, message):
    t.run(tmp_path / "live", checkpoints=2)
    (tmp_path / "live" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=message):
        t.scorer(tmp_path / "live", **options)
    with LiveScorer.open(tmp_path / "live") as live:
        assert len(live.checkpoints) == 2
    with t.scorer(tmp_path / "live", overwrite=True, **options) as live:
        assert live.checkpoints == []
    assert sorted(os.listdir(tmp_path / "live")) == ["checkpoints.h5", "lock", "notes.txt", "run.h5"]


def test_a_second_process_is_refused(tmp_path):
    program = "import sys; from vogcore import LiveScorer; LiveScorer.open(sys.argv[1])"
    with t.scorer(tmp_path / "live"):
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "live"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        with pytest.raises(OutputExistsError, match="is being written by"):
            t.scorer(tmp_path / "live")
    assert "OutputExistsError" in done.stderr
    assert "is being written by" in done.stderr
    t.scorer(tmp_path / "live").close()


def test_what_is_no_folder_of_a_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="there is no live run"):
        LiveScorer.open(tmp_path / "nothing")
    assert os.listdir(tmp_path) == []
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match=r"holds other files, such as letter\.txt"):
        t.scorer(tmp_path)
    with pytest.raises(OutputExistsError, match="exists already"):
        t.scorer(tmp_path / "letter.txt")
    with pytest.raises(StoreError, match="does not exist"):
        t.scorer(tmp_path / "a" / "b")


@pytest.mark.parametrize("options", [{"shard_size": 0}, {"memory": 0}, {"channels": "first"}, {"moments": "float16"}])
def test_impossible_settings(tmp_path, options):
    with pytest.raises(SettingsError):
        t.scorer(tmp_path / "live", **options)
    assert os.listdir(tmp_path) == []


def test_names_and_stages_that_cannot_be_used(tmp_path):
    with t.scorer(tmp_path / "live") as live:
        for name, stages in (("", ()), ("a", ["all"]), ("a", ["x/y"]), ("a", "early"), ("a\0", ())):
            with pytest.raises(SettingsError):
                live.checkpoint(name, stages=stages)
        with live.checkpoint("a") as checkpoint:
            with pytest.raises(GradientError, match="is under way"):
                live.checkpoint("b")
            checkpoint.add(0, t.gradients(0))
        with pytest.raises(GradientError, match="has ended"):
            checkpoint.add(0, t.gradients(0))


def test_every_damaged_shard_is_named(tmp_path):
    t.run(tmp_path / "live", checkpoints=3)
    shard = tmp_path / "live" / "shard-00002.00000-00003.h5"
    whole = shard.read_bytes()
    with h5py.File(shard) as file:
        places = [file[name].id.get_offset() for name in ("moments/mean", "moments/m2", "magnitude", "loss")]
    for place in places:
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with LiveScorer.open(tmp_path / "live") as live, pytest.raises(StoreError, match=f"{shard.name} is damaged"):
            live.scores()
    shard.write_bytes(whole[: len(whole) // 2])
    with LiveScorer.open(tmp_path / "live") as live:
        with pytest.raises(StoreError, match=shard.name):
            live.scores()
        with pytest.raises(StoreError, match=shard.name):
            live.add("next", [(0, t.gradients(3), t.logits(3))], stages=["early"])
    shard.unlink()
    with pytest.raises(StoreError, match=f"{shard.name} is missing"):
        LiveScorer.open(tmp_path / "live")
    shard.write_bytes(whole)
    with LiveScorer.open(tmp_path / "live") as live:
        t.check_same(live.scores(), t.expected(tmp_path, 3))


def test_any_changed_byte_is_found_or_harmless(tmp_path):
    t.run(tmp_path / "live", checkpoints=2)
    with LiveScorer.open(tmp_path / "live") as live:
        wanted = live.scores().vog_raw.tobytes()
    rng = np.random.default_rng(0)
    messages = []
    for path in sorted((tmp_path / "live").glob("*.h5")):
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 12):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            try:
                with LiveScorer.open(tmp_path / "live") as live:
                    assert live.scores().vog_raw.tobytes() == wanted
            except StoreError as error:
                messages.append(str(error))
        path.write_bytes(whole)
    assert messages
    assert all(str(tmp_path) in message and "\n" not in message for message in messages)


def test_the_shard_of_another_run_is_refused(tmp_path):
    for name in ("one", "other"):
        t.run(tmp_path / name, checkpoints=2)
    shard = "shard-00001.00000-00002.h5"
    (tmp_path / "one" / shard).write_bytes((tmp_path / "other" / shard).read_bytes())
    with LiveScorer.open(tmp_path / "one") as live, pytest.raises(StoreError, match="belongs to another live run"):
        live.scores()


def test_memory_is_that_of_one_shard(tmp_path):
    n, shape, rows = 1024, (32, 32), 128
    shard = rows * 32 * 32 * 16
    batch = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
    with LiveScorer(tmp_path / "live", n, shape, shard_size=rows) as live:
        live.add("a", ((start, batch) for start in range(0, n, 64)))
        tracemalloc.start()
        try:
            live.add("b", ((start, 2 * batch) for start in range(0, n, 64)))
            adding = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            live.scores()
            scoring = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert adding < 4 * shard  # of eight shards
    assert scoring < 3 * shard
