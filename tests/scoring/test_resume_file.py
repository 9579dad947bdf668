"""The journal of a run damaged, somebody else's, claimed twice, and after a loss of power."""

from __future__ import annotations

import os
import random
import warnings

import pytest

from vogcore.errors import OutputExistsError, SettingsError, StoreError, VogcoreWarning
from vogcore.scoring import resume
from vogcore.store import _system, journal
from vogcore.store.journal import Journal, journal_path

from ..store.power import PowerCut
from .stopping import BATCH, K, N, Watch, content, same, score, stopped


def test_damage_in_the_middle_is_named_and_computed_again(tmp_path):
    path = stopped(tmp_path)
    damaged = bytearray(path.read_bytes())
    at = [index for index in range(len(damaged)) if damaged.startswith(journal._MARKER, index)]
    damaged[at[1] + 100] ^= 4
    path.write_bytes(damaged)
    with pytest.warns(VogcoreWarning, match=r"s\.h5\.partial is damaged; examples 5 to 9 are computed again\."):
        assert same(tmp_path).before == 3 * BATCH * K


def test_any_damage_ends_in_the_right_bits_or_is_named(tmp_path):
    (tmp_path / "whole").mkdir()
    score(tmp_path / "whole")
    whole = content(tmp_path / "whole" / "s.h5")
    path = stopped(tmp_path)
    good, chance = path.read_bytes(), random.Random(0)
    refused = finished = 0
    for _ in range(60):
        damaged = bytearray(good)
        at = chance.randrange(len(good))
        if chance.random() < 0.2:
            del damaged[at:]
        else:
            damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                score(tmp_path)
        except StoreError as error:
            assert str(path) in str(error)  # noqa: PT017 - either is right, and both must occur
            refused += 1
            continue
        assert content(tmp_path / "s.h5") == whole
        (tmp_path / "s.h5").unlink()
        finished += 1
    assert refused > 5
    assert finished > 5


def test_a_loss_of_power_costs_the_block_in_progress(tmp_path, monkeypatch):
    folder = tmp_path / "whole"
    folder.mkdir()
    machine = PowerCut()
    with monkeypatch.context() as patch:
        patch.setattr(_system, "SYSTEM", machine)
        score(folder)
    whole = content(folder / "s.h5")
    end = next(at for at, step in enumerate(machine.steps) if step[0] == "unlink")
    monkeypatch.setattr(_system.System, "sync", lambda self, descriptor: None)  # of the disk itself nothing is asked
    chance = random.Random(0)
    went_on = 0
    for _ in range(40):
        cut = chance.randrange(end + 1)
        left = machine.state(cut, chance, chance.choice([0.1, 0.5, 0.9]))
        if "s.h5.partial" in left:
            journal_path(tmp_path / "s.h5").write_bytes(left["s.h5.partial"])
        synced = sum(step[0] == "sync" for step in machine.steps[:cut]) - 2  # two for the start of the journal
        watch = Watch()
        score(tmp_path, progress=watch)
        assert watch.before >= min(max(synced, 0), N // BATCH) * BATCH * K
        went_on += watch.before > 0
        assert content(tmp_path / "s.h5") == whole
        (tmp_path / "s.h5").unlink()
    assert went_on > 20


def test_a_damaged_start_is_refused_with_advice(tmp_path):
    path = stopped(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(OutputExistsError, match=r"\(its description of the run is damaged\); restore that, move"):
        score(tmp_path)
    assert path.read_bytes() == damaged
    assert same(tmp_path, overwrite=True).before == 0


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_somebody_else_is_never_replaced(overwrite, tmp_path):
    path = journal_path(tmp_path / "s.h5")
    path.write_text("mine")
    with pytest.raises(StoreError, match="is not the journal of an unfinished run"):
        score(tmp_path, overwrite=overwrite)
    assert path.read_text() == "mine"


def test_outputs_that_get_in_each_others_way_are_refused(tmp_path):
    for keep, name in (("s.h5.partial", "s.h5"), ("g.h5", "g.h5.partial")):
        with pytest.raises(SettingsError, match="get in each other's way"):
            score(tmp_path, name, keep_gradients=tmp_path / keep)
    assert not list(tmp_path.iterdir())


def test_a_second_run_of_the_same_output_is_refused(tmp_path):
    refused = []

    def second():
        with pytest.raises(OutputExistsError, match=r"s\.h5\.partial is being written by") as caught:
            score(tmp_path, overwrite=True)
        refused.append(str(caught.value))

    score(tmp_path, progress=Watch(call=second))
    assert len(refused) == N // BATCH * K
    if os.path.exists("/proc/locks"):
        assert f"process {os.getpid()};" in refused[0]
    (tmp_path / "whole").mkdir()
    score(tmp_path / "whole")
    assert content(tmp_path / "s.h5") == content(tmp_path / "whole" / "s.h5")


def test_a_score_file_that_was_finished_meanwhile_is_found_at_once(tmp_path, monkeypatch):
    # Between the look at the output and the claim, another run finishes.
    class Late(Journal):
        def __init__(self, path):
            (tmp_path / "s.h5").write_text("theirs")
            super().__init__(path)

    monkeypatch.setattr(resume, "Journal", Late)
    with pytest.raises(OutputExistsError, match="exists already"):
        score(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]
