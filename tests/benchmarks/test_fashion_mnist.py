"""The benchmark's own course: skipping, training, reusing, measuring a command."""

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import fashion_mnist
from benchmarks._environment import machine, peak_memory_mib, run_timed, versions
from benchmarks._fashion_training import RECORD, reusable_record, training_settings
from benchmarks._idx import FILES
from benchmarks.fashion_mnist import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path):
    """Sixty images of noise, in the form of the data set."""
    folder = tmp_path / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for images, labels in FILES.values():
        for name, array in (
            (images, rng.integers(0, 256, (60, 28, 28), np.uint8)),
            (labels, rng.integers(0, 10, 60, np.uint8)),
        ):
            header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / name).write_bytes(gzip.compress(header + array.tobytes()))
    return folder.parent


def test_without_data_it_says_so_and_is_no_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("VOGCORE_DATA_DIR", raising=False)
    assert main([]) == 0
    assert "Skipped" in capsys.readouterr().out
    monkeypatch.setenv("VOGCORE_DATA_DIR", str(tmp_path))
    assert main([]) == 0
    assert f"not in {tmp_path}" in capsys.readouterr().out


def test_it_starts_as_a_module_without_torch(tmp_path):
    program = (
        "import sys, runpy\nsys.argv = ['fashion_mnist', '--data-dir', sys.argv[1]]\n"
        "try: runpy.run_module('benchmarks.fashion_mnist', run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize("arguments", [["--epochs", "9"], ["--quick", "--epochs", "1"], ["--threads", "0"]])
def test_too_few_checkpoints_or_threads_are_refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "must be at least" in capsys.readouterr().err


def test_training_is_done_once_and_again_only_when_it_must(data, tmp_path, capsys):
    work = tmp_path / "work"
    arguments = ["--quick", "--epochs", "2", "--train-only", "--data-dir", str(data), "--work-dir", str(work)]
    assert main(arguments) == 0
    assert "epoch  2" in capsys.readouterr().out
    names = sorted(path.name for path in (work / "ckpts").iterdir())
    assert names == ["ckpt-1.onnx", "ckpt-2.onnx"]
    metadata = {e.key: e.value for e in onnx.load(work / "ckpts" / "ckpt-2.onnx").metadata_props}
    assert metadata["vogcore.epoch"] == "2"
    assert json.loads(metadata["vogcore.class_names"])[0] == "T-shirt/top"
    with np.load(work / "train.npz") as stored:
        assert stored["x"].shape == (60, 28, 28)
        assert stored["x"].dtype == np.uint8
        assert stored["class_names"][9] == "Ankle boot"

    assert main(arguments) == 0
    assert "Reusing the 2 checkpoints" in capsys.readouterr().out

    settings = training_settings(2, 0, 60, 60)
    assert reusable_record(work, settings) is not None
    assert reusable_record(work, {**settings, "seed": 1}) is None
    (work / "ckpts" / "ckpt-9.onnx").write_bytes(b"stale")
    assert reusable_record(work, settings) is None
    (work / "ckpts" / "ckpt-9.onnx").unlink()
    with (work / "ckpts" / "ckpt-1.onnx").open("ab") as file:
        file.write(b"\0")
    assert reusable_record(work, settings) is None
    (work / RECORD).write_text("{")
    assert reusable_record(work, settings) is None


def test_a_command_is_timed_and_its_status_kept(tmp_path):
    program = "import pathlib, sys; pathlib.Path('here').touch(); sys.exit(3)"
    timed = run_timed([sys.executable, "-c", program], tmp_path)
    assert timed.status == 3
    assert 0 < timed.seconds < 30
    assert timed.peak_memory_mib is None or 1 < timed.peak_memory_mib < 100
    assert (tmp_path / "here").exists()


def test_the_memory_of_a_command_is_its_own(tmp_path):
    ballast = np.ones(50 << 20, np.uint8)  # of this process, which is not counted
    small, large = (run_timed([sys.executable, "-c", f"b'x' * {n}"], tmp_path) for n in (1, 300 << 20))
    assert small.status == large.status == 0
    assert large.peak_memory_mib - small.peak_memory_mib == pytest.approx(300, abs=30)
    assert small.peak_memory_mib < 50 <= len(ballast) >> 20
    assert peak_memory_mib() > 50


def test_a_command_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(OSError, match="no such program could not be run"):
        run_timed(["no such program"], tmp_path)


def test_the_machine_and_the_versions_are_described():
    assert machine()["cores"] >= 1
    assert machine()["processor"]
    assert versions()["numpy"] == np.__version__
    json.dumps([machine(), versions()])


STUB = """#!{python}
import sys
sys.path.insert(0, {root!r})
import numpy as np
from vogcore.store import CheckpointInfo, Direction, Scores, StageScores

arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
with np.load(arguments["--data"]) as data:
    labels = data["y"]
n = len(labels)
vog = np.linspace(-1, 1, n)
stage = StageScores(
    name="all",
    checkpoints=np.arange(2),
    vog_raw=vog + 2,
    vog=vog,
    vog_relative=-vog,
    mean_abs_gradient=np.ones(n),
    class_mean=np.zeros(10),
    class_std=np.ones(10),
    normalise="class",
    directions={{"vog": Direction(measured="lower is harder", spearman_loss=-0.5)}},
)
predictions = np.stack([labels, np.where(np.arange(n) < n // 10, (labels + 1) % 10, labels)]).astype(np.int32)
Scores(
    stages={{"all": stage}},
    labels=labels,
    ids=np.arange(n),
    classes=[str(c) for c in range(10)],
    class_count=np.bincount(labels, minlength=10),
    checkpoints=[CheckpointInfo(f"ckpt-{{i}}.onnx", i, i, "0" * 64) for i in (1, 2)],
    settings={{}},
    predictions_class=predictions,
    predictions_label_probability=np.ones((2, n), np.float32),
    timings={{"gradients": 1.5, "total": 2.0}},
).save(sys.argv[sys.argv.index("-o") + 1], overwrite=True)
sys.exit({status})
"""


def run_with_stub(data, tmp_path, monkeypatch, status):
    """The whole benchmark with a program in place of ``vogcore`` that scores by position."""
    program = tmp_path / "vogcore"
    program.write_text(STUB.format(python=sys.executable, root=str(ROOT), status=status))
    program.chmod(0o755)
    work = tmp_path / "work"
    record = {
        "settings": training_settings(2, 0, 60, 60),
        "threads": 2,
        "seconds": 1.0,
        "epochs": [{"test_accuracy": 0.9}, {"test_accuracy": 0.95}],
    }
    monkeypatch.setattr(fashion_mnist, "_program", lambda: str(program))
    monkeypatch.setattr(fashion_mnist, "_train", lambda *_: (record, True))
    return work, main(["--quick", "--epochs", "2", "--data-dir", str(data), "--work-dir", str(work)])


@pytest.mark.skipif(sys.platform == "win32", reason="the stub is started by its first line")
def test_results_hold_cost_deciles_and_directions_and_no_path(data, tmp_path, monkeypatch):
    work, status = run_with_stub(data, tmp_path, monkeypatch, 0)
    assert status == 0
    text = (work / "results" / "fashion_mnist.json").read_text()
    assert str(tmp_path) not in text
    results = json.loads(text)
    assert [command["data"] for command in results["commands"]] == ["train", "test"]
    assert results["commands"][1]["command"] == (
        "vogcore score --checkpoints 'ckpts/*.onnx' --data test.npz --layout 'nhw->nchw' --scale 1/255 "
        "--mean 0.2860 --std 0.3530 -o test-scores.h5 --overwrite"
    )
    timings = results["commands"][1]["timings"]
    assert timings.pop("storage") > 0  # measured by the benchmark itself
    assert timings == {"gradients": 1.5, "total": 2.0}
    assert results["commands"][1]["examples"] == 60
    stage = results["test"]["stages"]["all"]
    assert stage["decile_errors"] == {"vog": [1, *[0] * 9], "vog_relative": [*[0] * 9, 1]}
    assert stage["directions"]["vog"]["measured"] == "lower is harder"
    assert "decile_errors" not in results["train"]["stages"]["all"]
    report = (work / "results" / "fashion_mnist.md").read_text()
    assert "95.00%" in report
    assert str(tmp_path) not in report


@pytest.mark.skipif(sys.platform == "win32", reason="the stub is started by its first line")
def test_a_command_that_fails_ends_the_benchmark_with_its_status(data, tmp_path, monkeypatch, capsys):
    work, status = run_with_stub(data, tmp_path, monkeypatch, 7)
    assert status == 7
    assert "ended with status 7" in capsys.readouterr().err
    assert not (work / "results").exists()
