"""A small run on disk, and ways to call the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vogcore._checkpoint import checkpoint_metadata, save_checkpoint
from vogcore.cli import main

ROOT = Path(__file__).parents[2]
FEATURES, CLASSES, EXAMPLES = 6, 4, 48


class Result(NamedTuple):
    status: int
    out: str
    err: str


def build(nodes, inputs, outputs, weights) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def classifier(
    seed: int = 0,
    *,
    features: int = FEATURES,
    classes: int = CLASSES,
    middle: Any = None,
    more_outputs: bool = False,
    nan: bool = False,
) -> onnx.ModelProto:
    """logits = tanh(x W1) W2 with weights of that seed; ``middle`` takes the place of the tanh."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((features, 8)).astype(np.float32),
        "w2": rng.standard_normal((8, classes)).astype(np.float32),
    }
    if nan:
        weights["w2"][3, 1] = np.nan
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        *(middle or [helper.make_node("Tanh", ["a"], ["h"], "squash")]),
        helper.make_node("MatMul", ["h", "w2"], ["logits"], "last"),
    ]
    outputs = [("logits", TensorProto.FLOAT, ["n", classes])]
    if more_outputs:
        nodes.append(helper.make_node("MatMul", ["h", "w2"], ["auxiliary"], "second head"))
        outputs.append(("auxiliary", TensorProto.FLOAT, ["n", classes]))
    return build(nodes, [("x", TensorProto.FLOAT, ["n", features])], outputs, weights)


def write_run(folder: Path, count: int = 3, **options: Any) -> None:
    for index in range(count):
        save_checkpoint(classifier(index, **options), folder / f"ckpt-{index}.onnx", {})


def examples(n: int = EXAMPLES) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.standard_normal((n, FEATURES)).astype(np.float32), np.arange(n) % CLASSES


@pytest.fixture
def run_folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with three checkpoints and their data."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path)
    x, y = examples()
    np.savez(tmp_path / "train.npz", x=x, y=y)
    return tmp_path


@pytest.fixture
def cli(capsys) -> Callable[..., Result]:
    """Calls the command line in this process."""

    def call(*words: object) -> Result:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as left:
            status = int(left.code or 0)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture
def score(cli) -> Callable[..., Result]:
    """``vogcore score`` on the run in the current folder; words given here come last and so win."""

    def call(*words: object, checkpoints: str = "ckpt-*.onnx", data: str | None = "train.npz") -> Result:
        given = ["--data", data] if data is not None else []
        return cli("score", "--checkpoints", checkpoints, *given, "-o", "scores.h5", "--provider", "cpu", *words)

    return call


def process(words: list[str], folder: Path, *, before: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; ``before`` is Python that runs first."""
    program = f"import sys\n{before}\nfrom vogcore.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", program, *words] if before else [sys.executable, "-m", "vogcore", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | options.pop("environment", {})
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, timeout=60, check=False,
        **({"capture_output": True} | options),
    )  # fmt: skip


def listing(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(result: Result | subprocess.CompletedProcess[str], *words: str) -> str:
    """Check that a command said in one sentence what is wrong, naming ``words``, and failed with status 2."""
    status, err = (result.status, result.err) if isinstance(result, Result) else (result.returncode, result.stderr)
    assert status == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("vogcore: error: "), err
    assert err.endswith(".\n"), err
    for word in words:
        assert word in err
    return err


@pytest.fixture(scope="session")
def tools():
    """The helpers above, for test modules (which cannot import a conftest)."""
    from types import SimpleNamespace

    return SimpleNamespace(
        build=build, checkpoint_metadata=checkpoint_metadata, classifier=classifier, examples=examples, listing=listing,
        process=process, refused=refused, save=save_checkpoint, write_run=write_run,
    )  # fmt: skip
