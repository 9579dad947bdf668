"""The programs examples/train_*.py train, export, and leave what the command that they print can score."""

import shlex

import pytest

import vogcore
from vogcore.cli import main

from .conftest import ROOT

EXAMPLES = {
    "torch": [10, 20, 28, 56, 84],
    "lightning": [29, 58, 87],
    "transformers": [10, 20, 40],
    "keras": [29, 58, 87],
    "flax": [28, 56, 84],
    "sklearn": [20, 40, 60, 80],
}
"""Steps of the checkpoints."""


def test_there_is_one_for_every_framework():
    found = sorted(path.name for path in (ROOT / "examples").glob("train_*.py"))
    assert found == sorted(f"train_{name}.py" for name in EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path, run_program, capsys):
    program = ROOT / "examples" / f"train_{name}.py"
    assert len(program.read_text(encoding="utf-8").splitlines()) <= 50
    output = run_program({"keras": "keras-torch"}.get(name, name), program, tmp_path / "run", folder=tmp_path)
    command = shlex.split(output.strip().splitlines()[-1])
    assert command[:2] == ["vogcore", "score"]
    assert main([*command[1:], "-q"]) == 0
    scores = vogcore.open_scores(tmp_path / "run" / "scores.h5")
    assert len(scores) == 1797
    assert [info.step for info in scores.checkpoints] == sorted(EXAMPLES[name])
    assert scores.settings["preprocess"]["scale"] == 1 / 16
    assert list(scores.classes) == [str(digit) for digit in range(10)]
