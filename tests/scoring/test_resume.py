"""A run that was stopped goes on, with the bits of an undisturbed one, or says what differs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vogcore
from vogcore.data import Preprocess
from vogcore.errors import OutputExistsError
from vogcore.scoring import identity, pace, record, resume
from vogcore.store.journal import Journal, journal_path

from .models import CNN_SHAPES, FEATURES, IMAGE, MLP_SHAPES, cnn, examples, mlp, mlps, save, walk
from .stopping import BATCH, BLOCK, K, N, Stop, Watch, X, Y, content, same, score, stopped

IMAGES, IMAGE_LABELS = examples(N, IMAGE)
RUNS = {
    "labels": {},
    "predicted": {"target": "predicted", "target_checkpoint": 0},
    "one class without labels": {"target": 1, "labels": None},
    "stages": {"checkpoints": mlps(6), "scale": "relative", "normalise": "robust"},
    "ids and names": {"ids": [f"e{i}" for i in range(N)], "class_names": list("abc"), "of": "loss"},
    "preprocessed": {"preprocess": Preprocess(scale=0.5), "moments": "float32", "reduction": "var"},
    "images": {
        "checkpoints": [cnn(w) for w in walk(CNN_SHAPES, 4)], "data": IMAGES, "labels": IMAGE_LABELS,
        "memory": BATCH * 60 * (4 + 8), "channels": "magnitude",
    },
    "a block that is less than a batch": {"memory": 3 * FEATURES * (4 + 2 * 8)},
}  # fmt: skip


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_run_goes_on_with_the_same_bits(options, tmp_path):
    stopped(tmp_path, **options)
    with Journal(journal_path(tmp_path / "s.h5")) as file:
        done = sum(stop - start for start, stop in file.finished)
    assert 0 < done < N
    watch = same(tmp_path, **options)
    k = len(options.get("checkpoints", mlps(K)))
    assert watch.before == done * k
    assert watch.done == (N - done) * k  # nothing twice
    assert watch.text == f"Going on: {done} of {N} examples were done."


def test_a_run_that_is_stopped_often(tmp_path):
    for after in (20, 16, 45, 1, 31):
        stopped(tmp_path, after)
    assert same(tmp_path).before == 3 * BATCH * (1 + 1 + 3 + 0 + 2)


def test_memory_may_differ(tmp_path):
    stopped(tmp_path)
    assert same(tmp_path, memory=3 * BLOCK).before == 4 * BATCH * K


def test_progress_of_ones_own_need_not_know_of_it(tmp_path):
    class Plain:
        def __init__(self):
            self.counts = []

        def start(self, total, text):
            self.total = total

        def advance(self, count):
            self.counts.append(count)

        def close(self):
            pass

    stopped(tmp_path)
    plain = Plain()
    score(tmp_path, progress=plain)
    assert plain.counts == [4 * BATCH * K] + [BATCH] * (4 * K)
    assert plain.total == sum(plain.counts)


@pytest.mark.parametrize("after", [0, 14])
def test_a_run_that_finished_nothing_leaves_nothing(after, tmp_path):
    with pytest.raises(Stop) as caught:
        score(tmp_path, progress=Watch(after))
    assert not hasattr(caught.value, "__notes__")
    assert not list(tmp_path.iterdir())


def test_what_is_done_survives_an_error_in_the_data(tmp_path):
    x = X.copy()
    x[25, 3] = np.nan
    with pytest.raises(vogcore.errors.DataError, match="example 25") as caught:
        score(tmp_path, data=x)
    assert "25 of 40 examples" in caught.value.__notes__[0]
    with pytest.raises(OutputExistsError, match="the data have changed"):
        score(tmp_path)


# What is refused, and how it is called


def swapped():
    return [mlps(K)[index] for index in (1, 0, 2)]


def other_weights():
    models = mlps(K)
    models[2] = mlp(walk(MLP_SHAPES, K + 1)[K])
    return models


def other_graph():
    models = mlps(K)
    models[1].graph.node[1].op_type = "Erf"  # the same weights
    return models


X2 = X.copy()
X2[3, 3] += 1
CHANGES = {
    "data": ({"data": X2}, r"\(the data have changed \(examples or labels\)\)"),
    "labels": ({"labels": np.roll(Y, 1)}, r"\(the data have changed \(examples or labels\)\)"),
    "fewer examples": ({"data": X[:30], "labels": Y[:30]}, r"the data had the shape \(40, 12\) and have \(30, 12\)"),
    "ids": ({"ids": np.arange(N)[::-1]}, "the ids of the examples have changed"),
    "class names": ({"class_names": list("abc")}, "the class names have changed"),
    "checkpoint": ({"checkpoints": other_weights()}, r"\(checkpoint checkpoint 2 has changed\)"),
    "checkpoints": ({"checkpoints": mlps(4)}, "there were 3 checkpoints and are 4"),
    "order": ({"checkpoints": swapped()}, "the checkpoints are in another order"),
    "graph": ({"checkpoints": other_graph()}, "graph of a checkpoint or the gradient rule of an operator has changed"),
    "of": ({"of": "loss"}, r"\(of was logit and is loss\)"),
    "target": ({"target": 1}, r"\(target was label and is 1\)"),
    "normalise": ({"normalise": "robust"}, "normalise was class and is robust"),
    "scale": ({"scale": "relative"}, "scale was none and is relative"),
    "moments": ({"moments": "float32"}, "moments was float64 and is float32"),
    "stages": ({"stages": {"a": [0, 2]}}, r"stage a was not there and is \(0, 2\)"),
    "batch": ({"batch_size": 4}, r"\(batch_size was 5 and is 4, examples in a run of a model was 5 and is 4\)"),
    "small memory": ({"memory": BLOCK // 5}, r"\(examples in a run of a model was 5 and is 1\)"),
    "threads": ({"threads": 2}, r"\(threads was 1 and is 2\)"),
    "preprocess": ({"preprocess": Preprocess(scale=2)}, r"\(preprocess was not there and is \(scale 2.0\)\)"),
    "wrt": ({"wrt": "x"}, "wrt was not there and is x"),
    "archive": ({"keep_gradients": "g.h5"}, "keep_gradients was not there and is .*g.h5, keep_dtype was not there"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_another_run_is_refused_and_says_what_differs(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = stopped(tmp_path)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=message) as caught:
        score(tmp_path, **change)
    said = str(caught.value)
    assert said.startswith(f"{path} holds an unfinished run that this command cannot go on with (")
    assert said.endswith("start anew (overwrite=True, on the command line --overwrite).")
    assert "\n" not in said
    assert not hasattr(caught.value, "__notes__")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5.partial"]
    assert same(tmp_path).before == 4 * BATCH * K


def test_another_version_or_processor_is_refused(tmp_path, monkeypatch):
    stopped(tmp_path)
    packages = record.versions()
    with monkeypatch.context() as patch:
        patch.setattr(identity, "versions", lambda: {**packages, "onnx": "9.9", "python": "3.99"})
        with pytest.raises(OutputExistsError, match=rf"\(onnx was {packages['onnx']} and is 9.9\)"):
            score(tmp_path)
        patch.setattr(identity, "versions", lambda: {name: packages[name] for name in packages if name != "numba"})
        with pytest.raises(OutputExistsError, match=r"\(numba was .* and is not there\)"):
            score(tmp_path)
    name, features = identity.processor()
    with monkeypatch.context() as patch:
        patch.setattr(identity, "processor", lambda: ["abacus", features])
        with pytest.raises(OutputExistsError, match=rf"\(the processor was {name} and is abacus\)"):
            score(tmp_path)
        patch.setattr(identity, "processor", lambda: [name, "0"])
        with pytest.raises(OutputExistsError, match="the processor has other instructions"):
            score(tmp_path)
    monkeypatch.setattr(identity, "versions", lambda: {**packages, "python": "3.99", "h5py": "9"})
    assert same(tmp_path).before == 4 * BATCH * K


def test_many_differences_are_counted(tmp_path):
    stopped(tmp_path)
    change = {"of": "loss", "channels": "none", "normalise": "none", "moments": "float32", "reduction": "var"}
    with pytest.raises(OutputExistsError, match=r" and 2 more\)"):
        score(tmp_path, **change, data=X2, threads=2)


def test_checkpoints_on_disk_are_named_by_their_file(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    paths = save(mlps(K), folder)
    stopped(tmp_path, checkpoints=str(folder))
    onnx.save(other_weights()[2], paths[2])
    with pytest.raises(OutputExistsError, match=r"\(checkpoint ckpt-3.onnx has changed\)"):
        score(tmp_path, checkpoints=str(folder))
    onnx.save(mlps(K)[2], paths[2])
    assert same(tmp_path, checkpoints=str(folder)).before


def test_overwrite_goes_on_where_it_can_and_else_begins_anew(tmp_path):
    stopped(tmp_path)
    assert same(tmp_path, overwrite=True).before == 4 * BATCH * K
    (tmp_path / "s.h5").unlink()
    stopped(tmp_path)
    assert same(tmp_path, overwrite=True, of="loss").before == 0


def test_a_killed_start_is_no_reason_to_refuse(tmp_path):
    # Another run that was killed before it finished a block: nothing is lost.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: self.close())  # as if killed
        with pytest.raises(Stop):
            score(tmp_path, progress=Watch(0), of="loss")
    assert journal_path(tmp_path / "s.h5").exists()
    assert same(tmp_path).before == 0


# Where blocks end


@pytest.mark.parametrize("target", ["label", "predicted"])
def test_blocks_end_in_time_and_change_no_bit(target, tmp_path, monkeypatch):
    blocks = []
    finished = resume.Unfinished.finished
    monkeypatch.setattr(
        resume.Unfinished, "finished", lambda self, a, b: (blocks.append((a, b)), finished(self, a, b))
    )  # fmt: skip
    options = {"memory": 1 << 30, "target": target}
    score(tmp_path, "whole.h5", **options)
    assert blocks == [(0, N)]
    blocks.clear()
    monkeypatch.setattr(pace, "BLOCK_SECONDS", 0.0)
    monkeypatch.setattr(pace, "SESSIONS", 0)
    score(tmp_path, "cut.h5", **options)
    assert blocks == [(start, start + BATCH) for start in range(0, N, BATCH)]
    assert content(tmp_path / "cut.h5") == content(tmp_path / "whole.h5")
    blocks.clear()
    vogcore.score(mlps(K), X, Y, batch_size=BATCH)  # nothing to lose, so nothing to end for
    assert blocks == [(0, N)]


def test_a_block_ends_with_its_share_of_the_time_and_when_sessions_have_paid(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])

    def ends(seconds: float, share: float, session: float) -> float:
        now[0] = 1000.0
        watch = pace.Pace(seconds)
        watch.begin(share)
        now[0] += session
        watch.ready()
        begun = now[0]
        while not watch.is_over():
            now[0] += 1
            if now[0] > 1e6:
                return float("inf")
        return now[0] - begun

    second = pytest.approx(1, abs=1.01)
    assert ends(600, 1 / 10, 0.1) - 59.5 == second
    assert ends(600, 1 / 100, 0.5) - 49.5 == second  # 100 sessions take 50 seconds
    assert ends(600, 1, 0) - 599.5 == second
    assert ends(float("inf"), 1 / 10, 0.1) == float("inf")


@given(
    count=st.integers(1, 40), step=st.integers(1, 12), pairs=st.lists(st.tuples(st.integers(0, 39), st.integers(1, 9)))
)
def test_ranges_are_rounded_out_to_whole_runs_of_a_model(count, step, pairs):
    missing = [(start, min(start + length, count)) for start, length in pairs if start < count]
    runs = {example // step for start, stop in missing for example in range(start, stop)}
    wanted = [example for example in range(count) if example // step in runs]
    ranges = resume.whole_runs(missing, count, step)
    assert [example for start, stop in ranges for example in range(start, stop)] == wanted
    assert all(start % step == 0 for start, _ in ranges)
