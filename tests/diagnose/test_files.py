"""What a file is and how much of it is there: every format, complete, under way, damaged."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import vogcore
from vogcore._checkpoint import checkpoint_metadata, save_checkpoint
from vogcore.errors import ModelError, StoreError
from vogcore.store import GradientWriter
from vogcore.store.journal import Journal

N, K = 10, 3
LABELS = np.arange(N) % 2
VALUES = np.random.default_rng(0).standard_normal((K, N, 4)).astype(np.float32)


def snapshot(folder):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()}


@pytest.fixture
def inspect(tmp_path):
    """Inspect a file and see that nothing beside it changes."""

    def call(name, **options):
        before = snapshot(tmp_path)
        found = vogcore.inspect_file(tmp_path / name, **options)
        assert snapshot(tmp_path) == before
        assert (found.path, found.ok) == (str(tmp_path / name), not found.problems)
        return found

    return call


def test_a_score_file(tmp_path, inspect):
    scores = vogcore.score_gradients(VALUES, LABELS, out=tmp_path / "s.h5", maps=[1])
    found = inspect("s.h5")
    assert (found.kind, found.format, found.format_version) == ("score file", "vogcore.scores", "1.0")
    assert (found.complete, found.verified, found.missing, found.problems) == (True, True, (), ())
    assert (found.facts["examples"], found.facts["labelled"], found.facts["classes"]) == (N, N, 2)
    assert found.facts["stages"] == {"all": [0, 1, 2]}
    assert found.facts["maps"] == {"examples": 1, "shape": [4]}
    assert found.bytes == (tmp_path / "s.h5").stat().st_size
    assert found.settings == scores.settings


def archive(path, checkpoints=K, examples=N, **options):
    """An archive with so many checkpoints; the last one with so many examples, in blocks of four."""
    try:
        with GradientWriter(path, N, (4,), block_size=4, **options) as writer:
            for k in range(checkpoints):
                stop = examples if k == checkpoints - 1 else N
                writer.write(f"c{k}", 0, VALUES[k, :stop])
                if "labels" in options:
                    writer.write_logits(f"c{k}", 0, VALUES[k, :stop, :2])
            if examples < N:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


def test_a_complete_archive(tmp_path, inspect):
    archive(tmp_path / "g.h5", labels=LABELS)
    found = inspect("g.h5")
    assert (found.kind, found.complete, found.verified) == ("gradient archive", True, False)
    assert found.facts["blocks_done"] == {"gradients": [3, 3, 3], "logits": [3, 3, 3]}
    assert (found.facts["type"], found.facts["logits"], found.facts["digest"]) == ("float32", 2, "xxh3_64")
    assert [c["name"] for c in found.facts["checkpoints"]] == ["c0", "c1", "c2"]
    assert inspect("g.h5", verify=True).verified


def test_an_archive_under_way(tmp_path, inspect):
    archive(tmp_path / "g.h5", examples=9)  # the last block is not full
    found = inspect("g.h5.partial", verify=True)
    assert (found.kind, found.complete) == ("gradient archive under way", False)
    assert found.missing == ("The gradients of checkpoint c2, examples 8 to 9, are missing.",)
    assert found.facts["blocks_done"] == {"gradients": [3, 3, 2]}
    (tmp_path / "g.h5.partial.journal").touch()
    assert "A change of its tables was interrupted" in inspect("g.h5.partial").missing[-1]


def test_damage_in_an_archive_is_found_by_its_digests(tmp_path, inspect):
    archive(tmp_path / "g.h5")
    with h5py.File(tmp_path / "g.h5", "r+") as file:
        file["gradients"][1, 9, 0] += 1
        file["gradients"][2, 0, 0] += 1
    assert inspect("g.h5").problems == ()
    problems = inspect("g.h5", verify=True).problems
    assert len(problems) == 2
    assert "the gradients of checkpoint 1, examples 8 to 9, are not what was written" in problems[0]


RUN = {
    "settings": {"of": "logit"}, "stages": {"all": [0, 1]}, "classes": ["a"], "checkpoints": [["c0", "x"], ["c1", "y"]],
    "versions": {"vogcore": "0.1.0"},
}  # fmt: skip


def test_the_journal_of_a_run(tmp_path, inspect):
    path = tmp_path / "s.h5.partial"
    with Journal(path) as journal:
        journal.begin(RUN, {"vog": np.arange(N, dtype=float)})
        journal.append(0, 4)
        journal.append(4, 6)
    found = inspect("s.h5.partial")
    assert (found.kind, found.complete) == ("journal of a score run under way", False)
    assert (found.facts["examples"], found.facts["finished"]) == (N, 6)
    assert found.facts["checkpoints"] == [{"name": "c0", "sha256": "x"}, {"name": "c1", "sha256": "y"}]
    assert found.missing == ("Examples 6 to 9 are not scored yet; the same command goes on from there.",)
    assert (found.settings, found.vogcore_version, found.problems) == ({"of": "logit"}, "0.1.0", ())
    with Journal(path) as journal:
        journal.resume({"vog": np.zeros(N)})
        journal.append(6, 10)
        journal.end()
    assert inspect("s.h5.partial").complete


@pytest.mark.parametrize("change", [{"classes": 5}, {"checkpoints": [1]}, {"stages": [1]}, {"settings": [1]}], ids=str)
def test_a_journal_that_says_impossible_things(change, tmp_path):
    with Journal(tmp_path / "s.h5.partial") as journal:
        journal.begin(RUN | change, {"vog": np.arange(N, dtype=float)})
    with pytest.raises(StoreError, match="its description of the run makes no sense"):
        vogcore.inspect_file(tmp_path / "s.h5.partial")


def test_a_damaged_journal(tmp_path, inspect):
    path = tmp_path / "s.h5.partial"
    with Journal(path) as journal:
        journal.begin(RUN, {"vog": np.arange(N, dtype=float)})
        journal.append(0, 4)
        end = path.stat().st_size
        journal.append(4, 6)
    content = bytearray(path.read_bytes())
    content[end - 40] ^= 1  # a value of the first block
    path.write_bytes(content)
    found = inspect("s.h5.partial")
    assert found.problems == ("The records of examples 0 to 3 are damaged; they will be computed again.",)
    content[20] ^= 1
    path.write_bytes(content)
    assert "its first bytes are damaged" in inspect("s.h5.partial").problems[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file")
def test_a_run_that_is_under_way_is_not_disturbed(tmp_path, inspect):
    path = tmp_path / "s.h5.partial"
    program = (
        "import sys, numpy as np\nfrom vogcore.store.journal import Journal\n"
        f"j = Journal({str(path)!r}); j.begin({RUN!r}, {{'vog': np.zeros({N})}}); j.append(0, 2)\n"
        "print('begun', flush=True); sys.stdin.read(); j.append(2, 4)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "begun\n"
        found = inspect("s.h5.partial")
        assert found.facts["finished"] == 2
        if found.notes:  # containers may hide the other's process
            assert found.notes == (f"Process {process.pid} is writing it just now.",)
        process.communicate()
        assert process.returncode == 0
    assert inspect("s.h5.partial").facts["finished"] == 4


def live(path, checkpoints=K, stop=N):
    try:
        with vogcore.LiveScorer(path, N, (4,), labels=LABELS, shard_size=4) as scorer:
            for k in range(checkpoints):
                with scorer.checkpoint(f"c{k}", 10 * k) as checkpoint:
                    for first in range(0, stop if k == checkpoints - 1 else N, 4):
                        checkpoint.add(first, VALUES[k, first : first + 4])
                    if k == checkpoints - 1 and stop < N:
                        raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


def test_a_live_run(tmp_path, inspect):
    live(tmp_path / "run")
    found = inspect("run", verify=True)
    assert (found.kind, found.complete, found.problems, found.verified) == ("live run", True, (), True)
    assert [c["name"] for c in found.facts["checkpoints"]] == ["c0", "c1", "c2"]
    assert (found.facts["examples"], found.facts["shards"], found.facts["shard_size"]) == (N, 3, 4)
    assert vogcore.inspect_file(tmp_path / "run" / "run.h5").facts["part"] == "run"


def test_a_live_run_in_the_middle_of_a_checkpoint(tmp_path, inspect):
    live(tmp_path / "run", stop=4)
    found = inspect("run", verify=True)
    assert [c["name"] for c in found.facts["checkpoints"]] == ["c0", "c1"]
    assert found.missing == ("Checkpoint 2 has been added to 1 of 3 shards; add it again, and it goes on from there.",)


def test_a_live_run_with_shards_lost_or_damaged(tmp_path, inspect):
    live(tmp_path / "run")
    shards = sorted((tmp_path / "run").glob("shard-*.h5"))
    shards[0].unlink()
    with h5py.File(shards[1], "r+") as file:
        file["moments/mean"][0, 0] += 1
    assert inspect("run").problems == (f"The shard {shards[0].name} is missing.",)
    problems = inspect("run", verify=True).problems
    assert len(problems) == 2
    assert "does not fit its digest" in problems[1]


def model(**metadata):
    node = helper.make_node("MatMul", ["x", "w"], ["logits"])
    w = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], list(range(6)))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph([node], "g", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_checkpoint(tmp_path, inspect):
    save_checkpoint(model(), tmp_path / "c.onnx", checkpoint_metadata(7, 2, ["cat", "dog"], {"scale": 0.5}))
    found = inspect("c.onnx")
    assert (found.kind, found.complete) == ("ONNX checkpoint", True)
    facts = found.facts
    assert (facts["step"], facts["epoch"], facts["class_names"], facts["weights"]) == (7, 2, ["cat", "dog"], 6)
    assert (facts["preprocess"], facts["wrt"], found.vogcore_version) == ({"scale": 0.5}, None, vogcore.__version__)
    assert (facts["inputs"], facts["outputs"]) == ({"x": "float (n, 3)"}, {"logits": "float (n, 2)"})
    onnx.save(model(), tmp_path / "m.onnx")
    found = inspect("m.onnx")
    assert (found.kind, found.facts["step"]) == ("ONNX model", None)
    assert "ordered by their names" in found.notes[0]


def test_what_is_none_of_our_files(tmp_path):
    (tmp_path / "x.txt").write_text("something")
    with pytest.raises(StoreError, match="none of the files that vogcore writes, nor an ONNX model"):
        vogcore.inspect_file(tmp_path / "x.txt")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = 1
    with pytest.raises(StoreError, match="HDF5 but not a file of vogcore"):
        vogcore.inspect_file(tmp_path / "x.h5")
    with pytest.raises(StoreError, match="no such file"):
        vogcore.inspect_file(tmp_path / "nope")
    with pytest.raises(StoreError, match="not that of a live run"):
        vogcore.inspect_file(tmp_path)
    (tmp_path / "x.onnx").write_bytes(b"\x00\x01")
    with pytest.raises(ModelError):
        vogcore.inspect_file(tmp_path / "x.onnx")
