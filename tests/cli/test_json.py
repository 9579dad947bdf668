"""``--json``: one object on standard output and nothing else, with the keys that docs/command-line.md names."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import vogcore
from vogcore.cli._json import SCHEMA, plain
from vogcore.store import Direction

DOCUMENT = Path(__file__).parents[2] / "docs" / "command-line.md"


def documented(command: str) -> set[str]:
    """Keys that the table of docs/command-line.md has for a command."""
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    return {"command", "schema", *re.findall(r"`(\w+)`", rows[command])}


@pytest.fixture
def ask(cli):
    """Run a command with ``--json``; what it printed."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    def call(*words: object, status: int = 0) -> dict:
        result = cli(*words, "--json")
        assert result.status == status, result.err
        found = json.loads(result.out, parse_constant=refuse)
        assert (found["command"], found["schema"]) == (words[0], SCHEMA)
        assert set(found) == documented(str(words[0]))
        return found

    return call


def test_score(run_folder, ask):
    found = ask("score", "--checkpoints", "ckpt-*.onnx", "--data", "train.npz", "-o", "s.h5", "--provider", "cpu")
    scores = vogcore.open_scores("s.h5")
    assert (found["output"], found["examples"], found["stages"]) == ("s.h5", 48, {"all": [0, 1, 2]})
    assert found["checkpoints"] == ["ckpt-0.onnx", "ckpt-1.onnx", "ckpt-2.onnx"]
    assert found["direction"]["spearman_loss"] == scores.direction.spearman_loss
    assert found["timings"]["total"] > 0


def test_show(run_folder, score, ask):
    score()
    scores = vogcore.open_scores("scores.h5")
    found = ask("show", "scores.h5", "-n", "3", "--overall")
    assert [entry["position"] for entry in found["hardest"]] == scores.hardest(3).tolist()
    first = found["easiest"][0]
    assert first["vog"] == scores.vog[first["position"]]
    assert first["loss"] == scores.companions["loss"].values[first["position"]]
    assert {d["score"] for d in found["directions"]} == {"vog", "vog_raw", "vog_relative"}
    assert [c["examples"] for c in found["classes"]] == [12] * 4
    by_class = ask("show", "scores.h5", "-n", "2")
    assert (found["lists"], by_class["lists"]) == ("overall", "by class")
    assert [len(entry["examples"]) for entry in by_class["hardest"]] == [2] * 4
    wanted = scores.hardest(2, per_class=True)["1"].tolist()
    assert [entry["position"] for entry in by_class["hardest"][1]["examples"]] == wanted


def test_export_compare_merge_and_inspect(run_folder, score, ask):
    score()
    score("-o", "loss.h5", "--of", "loss")
    found = ask("export", "scores.h5", "-o", "t.csv")
    assert (found["format"], found["rows"]) == ("csv", 48)
    assert (run_folder / "t.csv").read_text().splitlines()[0].split(",") == found["columns"]
    found = ask("compare", "scores.h5", "loss.h5")
    assert (found["common"], found["only_first"], found["n_only_second"]) == (48, [], 0)
    assert {"name": "of", "first": "logit", "second": "loss"} in found["settings"]
    x, y = np.load("train.npz")["x"], np.load("train.npz")["y"]
    for name, rows in (("one", slice(0, 24)), ("two", slice(24, 48))):
        vogcore.score("ckpt-*.onnx", x[rows], y[rows], provider="cpu", out=f"{name}.h5")
    found = ask("merge", "one.h5", "two.h5", "-o", "all.h5")
    assert (found["examples"], found["order"]) == (48, "numbered")
    found = ask("inspect", "all.h5")
    assert (found["ok"], found["complete"], found["facts"]["examples"]) == (True, True, 48)
    found = ask("inspect", "ckpt-0.onnx")
    assert found["format"] == "onnx"


def test_doctor_and_the_gradient_model(run_folder, ask):
    found = ask("doctor")
    assert found["ok"]
    assert {entry["status"] for entry in found["findings"]} <= {"ok", "note"}
    found = ask("gradient-model", "ckpt-0.onnx", "-o", "g.onnx")
    assert [entry["name"] for entry in found["outputs"]] == ["logits", "vogcore_gradient"]


def test_demo(tmp_path, monkeypatch, ask):
    monkeypatch.chdir(tmp_path)
    found = ask("demo", "--epochs", "2")
    assert (found["examples"], found["wrong_labels"]) == (1347, 67)
    assert found["detection"][-1]["score"] == "loss"


def test_errors_and_warnings_stay_on_standard_error(run_folder, cli, score, tools):
    for words in (["show", "nope.h5"], ["inspect", "nope.h5"], ["compare", "a.h5", "b.h5"]):
        tools.refused(cli(*words, "--json"), "no such file")
    result = score("--json", "--overwrite")
    assert json.loads(result.out)["command"] == "score"
    assert "scoring: " in result.err


def test_odd_values():
    class Path:
        def __fspath__(self):
            return "p"

    value = {1: math.nan, "a": [math.inf, np.float32(0.5), np.arange(2)], "d": Direction(), "p": Path()}
    found = plain(value)
    assert found["1"] is None
    assert found["a"] == [None, 0.5, [0, 1]]
    assert found["d"]["measured"] == "not measured"
    assert found["d"]["spearman_loss"] is None
    with pytest.raises(TypeError):
        json.dumps(plain(object()))
