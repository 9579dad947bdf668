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

from benchmarks._environment import machine, run_timed, versions
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
    assert timed.peak_memory_mib is None or 1 < timed.peak_memory_mib < 1000
    assert (tmp_path / "here").exists()


def test_the_machine_and_the_versions_are_described():
    assert machine()["cores"] >= 1
    assert machine()["processor"]
    assert versions()["numpy"] == np.__version__
    json.dumps([machine(), versions()])
