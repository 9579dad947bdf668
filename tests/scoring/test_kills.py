"""A real scoring run, killed 200 times at random moments: it always ends with the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .models import examples, mlps, save

KILLS = 200
ROOT = Path(__file__).parents[2]

# A process that has everything imported and compiled, but no session and no thread, forks the runs: 200 fresh
# interpreters would take minutes.
PROGRAM = """
import json, os, random, signal, sys, time
import numpy as np
import vogcore
from vogcore.scoring.api import score
from vogcore.scoring.given import score_gradients
from vogcore.runtime import choose_provider
from vogcore.store import _blocks, open_gradients
from vogcore.store.journal import Journal, journal_path
import onnxruntime

folder, kills, seed, keep = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "archive"
_blocks._TARGET_BYTES = 11 * 4 * 12  # archive blocks of 11 examples, which end elsewhere than those of the run
chance = random.Random(seed)
with np.load(f"{folder}/data.npz") as data:
    x, y = data["x"], data["y"]
checkpoints = sorted(f"{folder}/{name}" for name in os.listdir(folder) if name.endswith(".onnx"))
out = f"{folder}/scores.h5"
PIXELS, BATCH = x.shape[1], 8
score_gradients(np.random.default_rng(0).standard_normal((4, len(x), PIXELS)).astype(np.float32), y)
threads = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1
assert threads <= 2, f"{threads} threads before a fork"  # importing ONNX Runtime starts one, which only waits


def run(out):
    score(
        checkpoints, x, y, out=out, batch_size=BATCH, threads=1, provider="cpu", of="loss",
        stages={"early": slice(0, 2)}, memory=BATCH * PIXELS * (4 + 2 * 8 * 2),
        keep_gradients=out.replace(".h5", ".gradients") if keep else None,
    )


def child(out):
    pid = os.fork()
    if pid:
        return pid
    try:
        run(out)
        status = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        status = 1
    os._exit(status)


seconds = []
for name in ("undisturbed", "second", "third"):  # other work on the machine must not make the waits long
    begun = time.perf_counter()
    assert os.waitpid(child(f"{folder}/{name}.h5"), 0)[1] == 0
    seconds.append(time.perf_counter() - begun)
whole = min(seconds)
reference = vogcore.open_scores(f"{folder}/undisturbed.h5")


def arrays(scores):
    found = {"class": scores.predictions_class, "probability": scores.predictions_label_probability}
    for name, stage in scores.stages.items():
        for key in ("vog_raw", "vog", "vog_relative", "mean_abs_gradient", "class_mean", "class_std"):
            found[name, key] = getattr(stage, key)
    for name, companion in scores.companions.items():
        found[name] = companion.values
    return found


def gradients(out):
    if not keep:
        return None
    with open_gradients(out.replace(".h5", ".gradients")) as archive:
        assert archive.block_size == 11
        reads = (archive.read, archive.read_logits)
        return [read(k, 0, len(x)).tobytes() for k in range(archive.n_checkpoints) for read in reads]


def compare():
    assert gradients(out) == gradients(f"{folder}/undisturbed.h5")
    scores = vogcore.open_scores(out)
    assert scores.settings == reference.settings
    for name, values in arrays(reference).items():
        np.testing.assert_array_equal(arrays(scores)[name], values, err_msg=str(name))


killed, ends, states, gone_on = 0, 0, set(), 0
while killed < kills or not os.path.exists(out):
    if os.path.exists(out):
        compare()
        ends += 1
        os.unlink(out)
        if keep:
            os.unlink(out.replace(".h5", ".gradients"))
        if os.path.exists(journal_path(out)):  # killed after the scores were in their place
            os.unlink(journal_path(out))
    pid = child(out)
    if killed < kills:
        time.sleep(chance.uniform(0, 0.8 * whole))
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        killed += 1
        if os.path.exists(journal_path(out)):
            with Journal(journal_path(out)) as journal:
                done = sum(stop - start for start, stop in journal.finished)
                assert not journal.damaged and journal.problem is None
            states.add(done)
            gone_on += done > 0
    else:
        assert status == 0, "a run failed"
compare()
ends += 1
print(json.dumps({"killed": killed, "ends": ends, "states": sorted(states), "gone_on": gone_on, "seconds": whole}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("kept", "kills"), [("scores", KILLS), ("archive", KILLS // 2)])
def test_two_hundred_kills_change_no_bit(tmp_path, kept, kills):
    save(mlps(4), tmp_path)
    x, y = examples(96)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    seed = int.from_bytes(os.urandom(4))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(kills), str(seed), kept],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    report = json.loads(done.stdout)
    print(report)
    assert report["killed"] == kills
    # Kills hit runs in all stages of completion, and what was done before was used.
    assert report["gone_on"] > kills // 10
    assert len(report["states"]) > 2
    assert report["ends"] > 1
