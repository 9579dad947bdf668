"""Small networks trained in every framework: the adapter's checkpoints, scored without the framework, give the same
scores as the framework's own gradients, and neither the one nor the other changes anything in the training."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

import vogcore
from vogcore.demo.digits import CLASS_NAMES

from .conftest import FRAMEWORKS, ROOT

PROGRAMS = ROOT / "tests" / "adapters" / "training"
STEPS = {4: 0, 5: 1, 10: 2}
"""Steps at which the programs export, and the epochs completed then."""
NOT_IMPORTABLE = (
    "torch onnxscript lightning transformers accelerate keras tensorflow tf2onnx jax jaxlib flax jax2onnx "
    "sklearn skl2onnx vogcore_adapters"
)
SCORE = """
import json, sys
for name in sys.argv.pop(1).split():
    sys.modules[name] = None  # importing it raises ImportError
import vogcore
folder, checkpoints = sys.argv[1:]
data, out = folder + "/train.npz", checkpoints + ".h5"
scores = vogcore.score(checkpoints, data, provider="cpu", stages={}, out=out, overwrite=True)
print(json.dumps([info.step for info in scores.checkpoints]))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_program):
    """Folder in which the program of a framework has run, once for all tests."""
    folders = {}

    def folder(framework):
        if framework not in folders:
            path = tmp_path_factory.mktemp(framework)
            run_program(framework, PROGRAMS / f"train_{framework.split('-')[0]}.py", path)
            folders[framework] = path
        return folders[framework]

    return folder


def score(folder, name="ckpts"):
    """Scores by the core, in a process that cannot import any framework."""
    command = [sys.executable, "-c", SCORE, NOT_IMPORTABLE, str(folder), str(folder / name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(STEPS)
    return vogcore.open_scores(folder / f"{name}.h5")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_scores_are_those_of_the_frameworks_own_gradients(framework, trained):
    folder = trained(framework)
    scores = score(folder)
    with np.load(folder / "native.npz") as native:
        gradients = native["gradients"]
        assert native["undisturbed"], "the training went another way with the exporter than without"
    expected = vogcore.score_gradients(gradients, scores.labels, stages={}).vog_raw
    assert expected.min() > 0
    error = np.abs(scores.vog_raw - expected) / expected
    assert np.median(error) <= 1e-4
    assert error.max() <= 1e-2
    # The networks have learned something, or their gradients would not tell a wrong checkpoint from a right one.
    assert np.ptp(expected) > 0.1 * expected.mean()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_native_gradients_are_those_by_hand(framework, trained):
    with np.load(trained(framework) / "native.npz") as native:
        found, expected = (native[name].reshape(len(STEPS), 160, -1) for name in ("gradients", "by_hand"))
    error = np.abs(found - expected).max(axis=2) / np.abs(expected).max(axis=2)
    assert np.median(error) <= 1e-5
    assert error.max() <= 1e-3


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_checkpoints_say_what_they_are(framework, trained):
    ckpts = trained(framework) / "ckpts"
    assert sorted(path.name for path in ckpts.iterdir()) == sorted(f"ckpt-{step}.onnx" for step in STEPS)
    shapes = []
    for step, epoch in STEPS.items():
        model = onnx.load(ckpts / f"ckpt-{step}.onnx")
        props = {p.key: p.value for p in model.metadata_props}
        assert props["vogcore.step"] == str(step)
        assert props["vogcore.epoch"] == str(epoch)
        assert json.loads(props["vogcore.class_names"]) == list(CLASS_NAMES)
        assert json.loads(props["vogcore.preprocess"])["scale"] == 1 / 16
        assert props["vogcore.version"] == vogcore.__version__
        (given,) = model.graph.input
        assert not given.type.tensor_type.shape.dim[0].HasField("dim_value")
        shapes.append(sorted(tuple(tensor.dims) for tensor in model.graph.initializer))
        names = " ".join(tensor.name for tensor in model.graph.initializer).lower()
        assert not any(word in names for word in ("momentum", "velocity", "adam", "optimizer"))
    assert shapes[0] == shapes[1] == shapes[2]


def test_one_network_gives_the_same_scores_through_torch_and_through_flax(trained, run_program, tmp_path):
    torch = trained("torch")
    run_program("flax", PROGRAMS / "train_flax.py", tmp_path, torch)
    (tmp_path / "train.npz").write_bytes((torch / "train.npz").read_bytes())
    expected, found = score(torch).vog_raw, score(tmp_path, "carried").vog_raw
    error = np.abs(found - expected) / expected
    assert np.median(error) <= 1e-5
    assert error.max() <= 1e-2
