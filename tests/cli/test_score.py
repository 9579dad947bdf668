"""``vogcore score`` on good input: every way to give data and checkpoints, and what is printed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

import vogcore
from vogcore.cli.score import parse_bytes, parse_stage
from vogcore.errors import SettingsError


def same(first: str, second: str) -> None:
    one, other = vogcore.open_scores(first), vogcore.open_scores(second)
    assert list(one.stages) == list(other.stages)
    for name in one.stages:
        np.testing.assert_array_equal(one.stage(name).vog, other.stage(name).vog)
        np.testing.assert_array_equal(one.stage(name).vog_raw, other.stage(name).vog_raw)
        np.testing.assert_array_equal(one.stage(name).vog_relative, other.stage(name).vog_relative)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_the_first_command_of_the_readme(run_folder, score, tools):
    before = tools.listing(run_folder)
    result = score()
    assert result.status == 0
    assert tools.listing(run_folder) == sorted([*before, "scores.h5"])
    x, y = tools.examples()
    direct = vogcore.score("ckpt-*.onnx", x, y, provider="cpu")
    scores = vogcore.open_scores("scores.h5")
    np.testing.assert_array_equal(scores.vog, direct.vog)
    np.testing.assert_array_equal(scores.labels, y)
    assert [c.name for c in scores.checkpoints] == ["ckpt-0.onnx", "ckpt-1.onnx", "ckpt-2.onnx"]
    assert result.out.startswith("48 examples scored over 3 checkpoints into scores.h5.\nTime: ")
    assert result.out.endswith("Look at it with: vogcore show scores.h5\n")
    assert re.fullmatch(r"scoring: 144 of 144 gradients \(100%\), [\d,]+/s, 0:\d\d so far\n", result.err)


def test_the_parts_of_the_time_add_up(run_folder, score):
    line = next(line for line in score().out.splitlines() if line.startswith("Time: "))
    total, parts = re.fullmatch(r"Time: ([\d.]+) s \((.*)\)\.", line).groups()
    seconds = [float(part.split()[-1]) for part in parts.split(", ")]
    assert sum(seconds) == pytest.approx(float(total), abs=0.06 * (len(seconds) + 1))


def test_quiet_leaves_standard_error_empty(run_folder, score):
    for flag in ("--quiet", "-q"):
        result = score(flag, "--overwrite")
        assert (result.status, result.err) == (0, "")
        assert "48 examples" in result.out


def test_npz_npy_and_hdf5_hold_the_same_data(run_folder, score, tools):
    x, y = tools.examples()
    np.save("x.npy", x)
    np.save("y.npy", y)
    with h5py.File("d.h5", "w") as file:
        file["pictures"], file["truth"] = x, y
    assert score("-o", "a.h5").status == 0
    assert score("-o", "b.h5", "--labels", "y.npy", data="x.npy").status == 0
    assert score("-o", "c.h5", "--x-name", "pictures", "--y-name", "truth", data="d.h5").status == 0
    same("a.h5", "b.h5")
    same("a.h5", "c.h5")


def test_stored_bytes_become_the_models_input(run_folder, score, tools):
    x, y = tools.examples()
    stored = np.clip(x * 40 + 128, 0, 255).astype(np.uint8)
    np.savez("bytes.npz", x=stored.reshape(-1, 2, 3), y=y)
    np.savez("floats.npz", x=(stored * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.25), y=y)
    words = ["--scale", "1/255", "--mean", "0.5", "--std", "0.25", "--layout", "flatten"]
    assert score("-o", "a.h5", *words, data="bytes.npz").status == 0
    assert score("-o", "b.h5", data="floats.npz").status == 0
    one, other = vogcore.open_scores("a.h5"), vogcore.open_scores("b.h5")
    np.testing.assert_allclose(one.vog_raw, other.vog_raw, rtol=1e-5)


@pytest.mark.parametrize("recorded", [False, True], ids=["by name", "by recorded step"])
def test_checkpoints_that_a_shell_expanded_are_put_in_the_order_of_training(recorded, run_folder, score, cli, tools):
    for number in (2, 10, 1):
        # By name 1, 2, 10; by step the other way round.
        metadata = tools.checkpoint_metadata(step=100 - number) if recorded else {}
        tools.save(tools.classifier(number), run_folder / f"epoch-{number}.onnx", metadata)
    assert score("-o", "a.h5", checkpoints="epoch-*.onnx").status == 0
    words = ["--checkpoints", "epoch-1.onnx", "epoch-10.onnx", "epoch-2.onnx"]
    assert score("-o", "b.h5", *words).status == 0
    same("a.h5", "b.h5")
    order = [10, 2, 1] if recorded else [1, 2, 10]
    for path in ("a.h5", "b.h5"):
        assert [c.name for c in vogcore.open_scores(path).checkpoints] == [f"epoch-{n}.onnx" for n in order]


def test_a_folder_and_a_pattern_are_the_same(run_folder, score):
    assert score("-o", "a.h5").status == 0
    assert score("-o", "b.h5", checkpoints=".").status == 0
    same("a.h5", "b.h5")


@pytest.mark.parametrize("of", ["logit", "loss"])
def test_gradients_that_were_kept_give_the_same_scores(of, run_folder, score, cli):
    assert score("--of", of, "--keep-gradients", "g.h5", "-o", "a.h5", "--memory", "5kB").status == 0
    result = cli("score", "--gradients", "g.h5", "-o", "b.h5", "-q")
    assert (result.status, result.err) == (0, "")
    same("a.h5", "b.h5")
    assert vogcore.open_scores("b.h5").direction == vogcore.open_scores("a.h5").direction
    assert sorted(os.listdir()) == sorted(
        ["a.h5", "b.h5", "g.h5", "train.npz", *(f"ckpt-{i}.onnx" for i in range(3))]
    )  # no .partial


def test_labels_of_ones_own_for_kept_gradients(run_folder, score, cli, tools):
    assert score("--keep-gradients", "g.h5", "-o", "a.h5").status == 0
    np.save("y.npy", tools.examples()[1][::-1].copy())
    assert cli("score", "--gradients", "g.h5", "--labels", "y.npy", "-o", "b.h5").status == 0
    np.testing.assert_array_equal(vogcore.open_scores("b.h5").labels, tools.examples()[1][::-1])


def test_machine_settings_change_no_score(run_folder, score):
    assert score("-o", "a.h5").status == 0
    try:
        assert score("-o", "b.h5", "--memory", "1", "--threads", "1").status == 0
    finally:
        from vogcore.kernels import set_threads

        set_threads(None)
    same("a.h5", "b.h5")
    assert score("-o", "c.h5", "--batch-size", "7").status == 0
    one, other = vogcore.open_scores("a.h5"), vogcore.open_scores("c.h5")
    np.testing.assert_allclose(one.vog_raw, other.vog_raw, rtol=1e-5)


def test_stages_are_windows_of_the_checkpoints(run_folder, score):
    assert score("--stage", "start=:2", "--stage", "ends=0,-1").status == 0
    scores = vogcore.open_scores("scores.h5")
    assert {name: s.checkpoints.tolist() for name, s in scores.stages.items()} == {
        "all": [0, 1, 2], "start": [0, 1], "ends": [0, 2],
    }  # fmt: skip


def test_relative_and_the_other_choices_are_recorded(run_folder, score):
    words = ["--relative", "--normalise", "none", "--of", "margin", "--reduction", "var", "--channels", "none"]
    assert score(*words).status == 0
    settings = vogcore.open_scores("scores.h5").settings
    chosen = {"scale": "relative", "normalise": "none", "of": "margin", "reduction": "var", "channels": "none"}
    assert {name: settings[name] for name in chosen} == chosen


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--target", "predicted"], {"target": "predicted", "target_checkpoint": -1}),
        (["--target", "predicted", "--target-checkpoint", "0"], {"target": "predicted", "target_checkpoint": 0}),
        (["--target", "2"], {"target": 2}),
    ],
)
def test_other_targets_need_no_labels(words, settings, run_folder, score, cli, tools):
    np.save("x.npy", tools.examples()[0])
    assert score(*words, data="x.npy").status == 0
    scores = vogcore.open_scores("scores.h5")
    assert {name: scores.settings[name] for name in settings} == settings
    assert scores.direction.measured == "not measured"
    shown = cli("show", "scores.h5")
    assert shown.status == 0
    assert "was not measured" in shown.out


def test_a_test_set_is_scored_against_the_statistics_of_its_training_set(run_folder, score, tools):
    assert score().status == 0
    x, y = tools.examples(20)
    np.savez("test.npz", x=x[::-1] * 2, y=y[::-1])
    assert score("--statistics", "scores.h5", "-o", "test.h5", data="test.npz").status == 0
    train, test = vogcore.open_scores("scores.h5").stage("all"), vogcore.open_scores("test.h5")
    expected = (test.vog_raw - train.class_mean[test.labels]) / train.class_std[test.labels]
    np.testing.assert_allclose(test.vog, expected, rtol=1e-12)


def test_warnings_are_one_line_each(run_folder, score, tools):
    x, y = tools.examples()
    y[:] = np.where(y == 3, 2, y)
    y[0] = 3
    np.savez("train.npz", x=x, y=y)
    lines = score("-q").err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("vogcore: warning: Class '3' has")
    assert vogcore.open_scores("scores.h5").vog[0] == 0


def test_names_with_blanks_are_quoted_where_they_are_to_be_typed(run_folder, score):
    assert "vogcore show 'my scores.h5'\n" in score("-o", "my scores.h5").out
    assert Path("my scores.h5").exists()


@pytest.mark.parametrize(
    ("text", "number"),
    [("512MB", 512_000_000), ("2gb", 2_000_000_000), ("1.5GiB", 3 << 29), ("100", 100), (" 4 kB ", 4000), ("0.1", 1)],
)
def test_sizes(text, number):
    assert parse_bytes(text) == number


def test_windows():
    assert parse_stage("a=0:4") == ("a", slice(0, 4))
    assert parse_stage("a=-4:") == ("a", slice(-4, None))
    assert parse_stage("a=0:8:2") == ("a", slice(0, 8, 2))
    assert parse_stage("a=3,1,-1") == ("a", [3, 1, -1])
    for text in ("a", "a=", "a=1.5", "a=0:4:0", "a=0:4:00", "a=x:y", "a=-:2", "a=1,,2", "a=1,"):
        with pytest.raises(SettingsError, match="is not of the form"):
            parse_stage(text)


def test_maps_of_the_hardest_and_of_chosen_examples(run_folder, score):
    assert score("--maps", "5").status == 0
    scores = vogcore.open_scores("scores.h5")
    assert scores.maps.index.tolist() == scores.hardest(5).tolist()
    np.save("chosen.npy", np.array([7, 3]))
    assert score("--maps", "chosen.npy", "--overwrite").status == 0
    assert vogcore.open_scores("scores.h5").maps.index.tolist() == [7, 3]
    result = score("--maps", "0", "--overwrite")
    assert result.status == 2
    assert "maps=0 is not possible" in result.err
