"""Files: whole or not at all, never replaced unasked, and what is computed is kept where that was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import vogcore
from vogcore import _paths
from vogcore.errors import OutputExistsError, SettingsError, StoreError
from vogcore.store import open_gradients

from .models import MLP_SHAPES, autograd, examples, mlp, mlps, save, two_pass, walk

X, Y = examples(20)
ROOT = Path(__file__).parents[2]


def calls():
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((3, 20, 4))
    return {
        "score": lambda **options: vogcore.score(mlps(3), X, Y, **options),
        "score_gradients": lambda **options: vogcore.score_gradients(gradients, Y, **options),
    }


@pytest.mark.parametrize("call", ["score", "score_gradients"])
def test_an_existing_file_is_untouched_unless_asked(call, tmp_path):
    out = tmp_path / "s.h5"
    out.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"s\.h5 exists already"):
        calls()[call](out=out)
    assert out.read_text() == "mine"
    calls()[call](out=out, overwrite=True)
    assert len(vogcore.open_scores(out)) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["s.h5"]


@pytest.mark.parametrize("call", ["score", "score_gradients"])
def test_an_output_that_cannot_be_written_is_refused_before_the_run(call, tmp_path, monkeypatch):
    class Never:
        def start(self, total, text):
            raise AssertionError

        advance = close = start

    for out, message in (
        (tmp_path / "none" / "s.h5", "the folder .*none does not exist"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(StoreError, match=message):
            calls()[call](out=out, progress=Never())
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(StoreError, match="is not writable"):
        calls()[call](out=tmp_path / "s.h5", progress=Never())
    assert not list(tmp_path.iterdir())


def test_scores_and_gradients_are_two_files(tmp_path):
    with pytest.raises(SettingsError, match="cannot both be written"):
        vogcore.score(mlps(3), X, Y, out=tmp_path / "a.h5", keep_gradients=tmp_path / "." / "a.h5")
    (tmp_path / "g.h5").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"g\.h5"):
        vogcore.score(mlps(3), X, Y, out=tmp_path / "a.h5", keep_gradients=tmp_path / "g.h5")
    assert (tmp_path / "g.h5").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_kept_gradients_are_those_of_the_run(tmp_path):
    weights = walk(MLP_SHAPES, 4)
    paths = save([mlp(w) for w in weights], tmp_path)
    scores = vogcore.score(paths, X, Y, keep_gradients=tmp_path / "g.h5", batch_size=6, out=tmp_path / "s.h5")
    gradients, logits = autograd("mlp", weights, X, Y)
    with h5py.File(tmp_path / "g.h5") as file:  # by the documented names alone
        np.testing.assert_allclose(file["gradients"], gradients, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(file["logits"], logits, rtol=1e-4, atol=1e-6)
        assert file["done"][()].all()
        assert file["checkpoints/name"].asstr()[:].tolist() == [path.name for path in paths]
        np.testing.assert_array_equal(file["examples/label"], Y)
        np.testing.assert_allclose(two_pass(file["gradients"][:]), scores.vog_raw, rtol=1e-6)
    with open_gradients(tmp_path / "g.h5") as archive:
        assert archive.settings["of"] == "logit"


class Interrupt:
    """Progress that is interrupted after some examples, as by Ctrl-C."""

    def __init__(self, after: int) -> None:
        self.left, self.closed = after, 0

    def start(self, total, text):
        pass

    def advance(self, count):
        self.left -= count
        if self.left < 0:
            raise KeyboardInterrupt

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("after", [0, 30, 59])
def test_an_interrupt_leaves_the_gradients_computed_and_no_scores(after, tmp_path):
    progress = Interrupt(after)
    out, kept = tmp_path / "s.h5", tmp_path / "g.h5"
    with pytest.raises(KeyboardInterrupt) as caught:
        vogcore.score(mlps(3), X, Y, out=out, keep_gradients=kept, batch_size=5, progress=progress)
    assert progress.closed == 1
    assert any(str(kept) + ".partial" in note for note in caught.value.__notes__)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.h5.partial", "s.h5.partial"]
    if after < 59:
        with pytest.raises(StoreError, match=r"g\.h5\.partial is incomplete"):
            open_gradients(f"{kept}.partial")
    else:  # the last batch had been written
        assert len(vogcore.score_gradients(f"{kept}.partial")) == 20
    with pytest.raises(OutputExistsError, match=r"\(of was logit and is loss\)"):
        vogcore.score(mlps(3), X, Y, out=out, keep_gradients=kept, batch_size=5, of="loss")
    vogcore.score(mlps(3), X, Y, out=out, keep_gradients=kept, batch_size=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.h5", "s.h5"]


def test_an_interrupt_of_given_gradients_leaves_nothing(tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    gradients = np.random.default_rng(0).standard_normal((3, 20, 4))
    for given in (gradients, ((k, 0, block) for k, block in enumerate(gradients))):
        progress = Interrupt(30)
        with pytest.raises(KeyboardInterrupt):
            vogcore.score_gradients(given, Y, out=tmp_path / "s.h5", spool_folder=spool, progress=progress)
        assert progress.closed == 1
        assert [path.name for path in tmp_path.iterdir()] == ["spool"]
        assert not list(spool.iterdir())


def python(program: str, *arguments: object, wait: bool = True):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    if not wait:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT, check=False)


FULL = """
import resource, signal, sys
import numpy as np
import vogcore
from vogcore import _paths
from vogcore.errors import StoreError
what, folder = sys.argv[1:]
g = np.random.default_rng(0).standard_normal((3, 2000, 40)).astype(np.float32)
y = np.arange(2000) % 4
vogcore.score_gradients(g[:, :8], y[:8])  # compiles while the disk is not full yet
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
stream = ((k, 0, block) for k, block in enumerate(g))
try:
    vogcore.score_gradients(stream if what == "spool" else g, y, out=f"{folder}/s.h5", spool_folder=folder)
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["scores", "spool"])
def test_a_full_disk_leaves_nothing_behind(what, tmp_path):
    result = python(FULL, what, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "the file would be larger than the file size limit" in result.stdout
    assert "\n" not in result.stdout.strip()
    assert "kept" not in result.stdout
    assert not list(tmp_path.iterdir())


FULL_ARCHIVE = """
import resource, signal, sys
import numpy as np
import vogcore
from vogcore import _paths
from vogcore.errors import StoreError
folder, checkpoints = sys.argv[1:]
x = np.random.default_rng(0).standard_normal((4000, 12)).astype(np.float32)
y = np.arange(4000) % 3
vogcore.score(checkpoints, x[:8], y[:8], target=0, normalise="none", reduction="var", of="loss")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    vogcore.score(checkpoints, x, y, out=f"{folder}/s.h5", keep_gradients=f"{folder}/g.h5")
except StoreError as error:
    print(error)
"""


def test_a_full_disk_ends_a_run_that_keeps_gradients(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "out").mkdir()
    save(mlps(3), tmp_path / "run")
    result = python(FULL_ARCHIVE, tmp_path / "out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "g.h5.partial: the file would be larger" in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"g.h5.partial", "s.h5.partial"}


SLOW = """
import sys, time
import numpy as np
import vogcore
from vogcore import _paths
folder, checkpoints = sys.argv[1:]

class Progress:
    def start(self, total, text): pass
    def close(self): pass
    def advance(self, count):
        print("advanced", flush=True)
        time.sleep(0.05)

x = np.random.default_rng(0).standard_normal((4000, 12)).astype(np.float32)
vogcore.score(
    checkpoints, x, np.arange(4000) % 3, out=f"{folder}/s.h5", keep_gradients=f"{folder}/g.h5", batch_size=10,
    progress=Progress(),
)
"""


def test_a_kill_in_the_middle_leaves_no_file_under_a_final_name(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "out").mkdir()
    save(mlps(3), tmp_path / "run")
    process = python(SLOW, tmp_path / "out", tmp_path / "run", wait=False)
    try:
        for _ in range(3):
            assert process.stdout.readline() == "advanced\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["g.h5.partial", "s.h5.partial"]
    with pytest.raises(StoreError):
        open_gradients(tmp_path / "out" / "g.h5.partial")


def test_a_file_that_appears_during_the_run_is_not_replaced(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("spare")))  # where the scores are kept then
    out = tmp_path / "s.h5"

    class Rival(Interrupt):
        def close(self):
            out.write_text("theirs")

    with pytest.raises(OutputExistsError, match=r"s\.h5"):
        vogcore.score(mlps(3), X, Y, out=out, progress=Rival(1000))
    assert out.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.h5", "s.h5.partial"]


def test_timings_are_those_of_the_run(tmp_path):
    begun = time.perf_counter()
    scores = vogcore.score(mlps(3), X, Y, out=tmp_path / "s.h5")
    wall = time.perf_counter() - begun
    assert {"sessions", "data", "gradients", "kernels", "storage", "total"} <= set(scores.timings)
    parts = sum(seconds for name, seconds in scores.timings.items() if name != "total")
    assert 0 < parts <= scores.timings["total"] <= wall


def test_scores_that_cannot_be_written_in_the_end_are_kept_elsewhere(tmp_path, monkeypatch):
    out, spare = tmp_path / "out" / "s.h5", tmp_path / "spare"
    out.parent.mkdir()
    spare.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spare))
    write = _paths.write_whole

    def full(path, content, overwrite):
        if Path(path) == out:
            raise StoreError(f"Cannot write {path}: the disk is full.")
        write(path, content, overwrite)

    monkeypatch.setattr(_paths, "write_whole", full)
    with pytest.raises(StoreError, match="the disk is full; the scores are kept in ") as caught:
        vogcore.score(mlps(3), X, Y, out=out)
    (kept,) = spare.rglob("*.h5")
    assert str(kept) in str(caught.value)
    monkeypatch.undo()
    np.testing.assert_array_equal(vogcore.open_scores(kept).vog, vogcore.score(mlps(3), X, Y).vog)
    # What was computed is here too: the same command needs nothing but the room.
    assert [path.name for path in out.parent.iterdir()] == ["s.h5.partial"]
    progress = Interrupt(60)
    scores = vogcore.score(mlps(3), X, Y, out=out, progress=progress)
    assert progress.left == 0  # told that all were done, and then nothing more
    np.testing.assert_array_equal(scores.vog, vogcore.open_scores(kept).vog)
    assert [path.name for path in out.parent.iterdir()] == ["s.h5"]


def test_no_empty_folder_is_left_where_scores_can_be_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(path, content, overwrite):
        raise StoreError(f"Cannot write {path}: the disk is full.")

    monkeypatch.setattr(_paths, "write_whole", full)
    with pytest.raises(StoreError, match=r"s\.h5: the disk is full\.") as caught:
        vogcore.score(mlps(3), X, Y, out=tmp_path / "s.h5")
    assert str(caught.value).endswith("s.h5: the disk is full.")
    (note,) = caught.value.__notes__
    assert note.startswith(f"What is finished (20 of 20 examples) is kept in {tmp_path / 's.h5.partial'};")
    assert [path.name for path in tmp_path.iterdir()] == ["s.h5.partial"]
