"""``vogcore score --config``: options in a TOML file."""

from __future__ import annotations

import argparse
import tomllib

import numpy as np
import pytest

import vogcore
from vogcore.cli._config import as_toml

RUN = 'checkpoints = "ckpt-*.onnx"\ndata = "train.npz"\noutput = "scores.h5"\nprovider = "cpu"\n'


def write(folder, text, name="run.toml"):
    (folder / name).write_text(text)
    return name


def test_a_file_can_hold_a_whole_run(run_folder, cli):
    text = f'{RUN}channel-axis = -1\ntarget_checkpoint = 0\ntarget = "predicted"\nbatch-size = 16\nmemory = 1000000\n'
    text += 'relative = true\nquiet = true\nnormalise = "absolute"\n[stage]\nfirst = "0:2"\nends = [0, 2]\n'
    result = cli("score", "--config", write(run_folder, text))
    assert (result.status, result.err) == (0, "")
    scores = vogcore.open_scores("scores.h5")
    settings = scores.settings
    assert (settings["target"], settings["target_checkpoint"], settings["batch_size"]) == ("predicted", 0, 16)
    assert (settings["scale"], settings["normalise"]) == ("relative", "absolute")
    assert {name: stage.checkpoints.tolist() for name, stage in scores.stages.items()} == {
        "all": [0, 1, 2], "first": [0, 1], "ends": [0, 2],
    }  # fmt: skip


def test_the_command_line_wins(run_folder, cli):
    text = f'{RUN}of = "loss"\nrelative = true\nquiet = true\nstage = ["a=0:2", "b=1:3"]\n'
    words = ["--of", "logit", "-o", "other.h5", "--no-relative", "--stage", "own=0,2"]
    result = cli("score", "--config", write(run_folder, text), *words)
    assert result.status == 0, result.err
    scores = vogcore.open_scores("other.h5")
    assert (scores.settings["of"], scores.settings["scale"]) == ("logit", "none")
    assert list(scores.stages) == ["all", "own"]
    assert not (run_folder / "scores.h5").exists()


def test_paths_are_relative_to_the_file(run_folder, cli, monkeypatch, tools):
    elsewhere = run_folder / "some [where]"
    elsewhere.mkdir()
    for name in ("ckpt-0.onnx", "ckpt-1.onnx", "ckpt-2.onnx", "train.npz"):
        (run_folder / name).rename(elsewhere / name)
    write(elsewhere, RUN)
    assert cli("score", "--config", "some [where]/run.toml").status == 0
    assert (elsewhere / "scores.h5").is_file()
    assert cli("score", "--config", elsewhere / "run.toml", "-o", "here.h5").status == 0
    assert (run_folder / "here.h5").is_file()


def test_means_and_stages_may_be_lists(run_folder, cli):
    text = 'mean = [0.5, 0.25]\nstd = "2"\nscale = 0.5\nmaps = 3\ncheckpoints = ["a.onnx", "b.onnx"]\n'
    result = cli("score", "--config", write(run_folder, text), "-o", "x.h5", "--print-config")
    found = tomllib.loads(result.out)
    assert (found["mean"], found["std"], found["scale"], found["maps"]) == ("0.5,0.25", "2", "0.5", "3")
    assert found["checkpoints"] == ["a.onnx", "b.onnx"]


def test_what_is_printed_gives_the_same_options(run_folder, cli, tools):
    before = tools.listing(run_folder)
    words = [
        "--checkpoints",
        "a b.onnx",
        'c"d.onnx',
        "--data",
        "ünï\\x.npz",
        "-o",
        "out.h5",
        "--target-checkpoint",
        "-2",
    ]
    words += ["--stage", "early=0:2", "--stage", "odd name=0,1", "--relative", "--threads", "2", "--memory", "2GB"]
    first = cli("score", *words, "--print-config")
    assert (first.status, first.err) == (0, "")
    assert tools.listing(run_folder) == before
    again = cli("score", "--config", write(run_folder, first.out), "--print-config")
    assert (again.status, again.out) == (0, first.out)


def test_every_character_survives():
    text = "".join(map(chr, [*range(1, 0x250), 0x7F, 0x2028, 0x1F600]))
    assert tomllib.loads(as_toml(argparse.Namespace(data=text, stage=[f"{text}=0:1"])))["data"] == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chekpoints = 'x'", ["run.toml: chekpoints is not an option", "the closest is checkpoints"]),
        ("zzz = 1", ["zzz is not an option", "vogcore score --help lists them"]),
        ("config = 'x'", ["config is not an option"]),
        ("[score]\nof = 'loss'", ["score is not an option"]),
        ("batch-size = 1\nbatch_size = 2", ["batch_size is there twice"]),
        ("batch-size = 0", ["batch-size: 0 is not possible"]),
        ("batch-size = [1]", ["batch-size must be a text or a number, not [1]"]),
        ("threads = true", ["threads must be a text or a number, not True"]),
        ("relative = 'yes'", ["relative must be true or false, not 'yes'"]),
        ("of = 'x'", ["of: 'x' is not possible, choose one of logit, probability"]),
        ("checkpoints = []", ["checkpoints must be a text or a list of texts"]),
        ("stage = 5", ["stage must be a table such as"]),
        ("of = ", ["run.toml is not a TOML file (Invalid value"]),
        ("data = '\\ud800'\n\xff", ["run.toml is not a TOML file"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_named(text, words, run_folder, cli, tools):
    (run_folder / "run.toml").write_bytes(text.encode("latin-1"))
    tools.refused(cli("score", "--config", "run.toml", "-o", "x.h5"), *words)
    assert not (run_folder / "x.h5").exists()


def test_a_file_that_is_not_there(run_folder, cli, tools):
    tools.refused(cli("score", "--config", "nope.toml", "-o", "x.h5"), "Cannot read nope.toml: there is no such file")
    tools.refused(cli("score", "--config", "nope/run.toml", "-o", "x.h5"), "nope/run.toml")
    tools.refused(cli("score", "--config", ".", "-o", "x.h5"), "it is a folder")
    tools.refused(cli("score", "-o", "x.h5", "--config"), "--config", "expected one argument")


def test_an_output_is_needed_somewhere(run_folder, cli, tools):
    write(run_folder, RUN.replace('output = "scores.h5"\n', ""))
    tools.refused(cli("score", "--config", "run.toml"), "-o/--output")
    assert cli("score", "--config", "run.toml", "-o", "scores.h5").status == 0
    np.testing.assert_array_equal(len(vogcore.open_scores("scores.h5")), 48)
