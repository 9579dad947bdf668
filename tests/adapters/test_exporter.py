"""The exporter without a framework: names, schedules, what is kept and what goes, runs that are gone on with."""

import contextlib
import errno
import json
import logging
import os
import random

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import vogcore
from vogcore.data import Preprocess
from vogcore.errors import ModelError, OutputExistsError, SettingsError, StoreError
from vogcore_adapters.exporter import CheckpointExporter
from vogcore_adapters.schedule import Moment, at, every_epoch, every_n_steps


def to_onnx(number):
    """A linear model that holds a number, so that files can be told apart."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "xy"]
    weight = numpy_helper.from_array(np.full((1, 1), number, "float32"), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [weight]))


def number_in(path):
    return float(numpy_helper.to_array(onnx.load(path).graph.initializer[0])[0, 0])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def train(exporter, steps, per_epoch, start=0):
    """A loop whose model is the number of steps taken."""
    for step in range(start + 1, steps + 1):
        exporter.step(float(step), step if start else None)
        if step % per_epoch == 0:
            exporter.end_epoch(float(step), step // per_epoch if start else None)


def test_a_loop_of_steps_and_epochs(tmp_path):
    exporter = CheckpointExporter(tmp_path / "new" / "ckpts", to_onnx, schedule=every_n_steps(3) | every_epoch())
    train(exporter, 8, 4)
    assert names(exporter.folder) == ["ckpt-3.onnx", "ckpt-4.onnx", "ckpt-6.onnx", "ckpt-8.onnx"]
    assert [(e.step, e.epoch) for e in exporter.exports] == [(3, 0), (4, 1), (6, 1), (8, 2)]
    assert [number_in(e.path) for e in exporter.exports] == [3, 4, 6, 8]


def test_the_default_is_every_epoch(tmp_path):
    exporter = CheckpointExporter(tmp_path, to_onnx)
    train(exporter, 9, 3)
    assert [e.step for e in exporter.exports] == [3, 6, 9]


def test_metadata_of_a_checkpoint(tmp_path):
    exporter = CheckpointExporter(
        tmp_path, to_onnx, class_names=["a", "b"], preprocess=Preprocess(scale=1 / 255, layout="nhwc->nchw")
    )
    props = {p.key: p.value for p in onnx.load(exporter.save(1.0, 7, 2)).metadata_props}
    assert json.loads(props.pop("vogcore.preprocess")) == {
        "scale": 1 / 255, "mean": None, "std": None, "layout": "nhwc->nchw",
    }  # fmt: skip
    assert props == {
        "vogcore.step": "7",
        "vogcore.epoch": "2",
        "vogcore.class_names": '["a", "b"]',
        "vogcore.version": vogcore.__version__,
    }


@given(jumps=st.lists(st.integers(0, 7), min_size=1, max_size=30), n=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_no_step_is_missed_or_written_twice_however_the_framework_counts(tmp_path_factory, jumps, n):
    """Several optimisers take several steps at once; gradient accumulation takes none in some batches."""
    exporter = CheckpointExporter(tmp_path_factory.mktemp("jumps"), to_onnx, schedule=every_n_steps(n))
    step, expected = 1, []
    exporter.observe(0.0, Moment(step))
    if n == 1:
        expected.append(1)
    for jump in jumps:
        if jump and any(passed % n == 0 for passed in range(step + 1, step + jump + 1)):
            expected.append(step + jump)
        step += jump
        exporter.observe(0.0, Moment(step))
    assert [e.step for e in exporter.exports] == expected


def test_time_and_size_are_reported(tmp_path, caplog):
    with caplog.at_level(logging.INFO), CheckpointExporter(tmp_path, to_onnx) as exporter:
        path = exporter.save(1.0, 1)
        exporter.save(2.0, 2)
    assert exporter.exports[0].bytes == path.stat().st_size
    assert 0 < exporter.exports[0].seconds < 10
    assert exporter.report().startswith(f"2 checkpoints in {tmp_path}: ")
    assert [str(path) in caplog.text, exporter.report() in caplog.text] == [True, True]


def seed():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002


def drawn():
    return random.random(), np.random.random()  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_random_numbers_go_on_as_if_nothing_was_exported(tmp_path, fails):
    def draws(number):
        drawn()
        if fails:
            raise ModelError("no")
        return to_onnx(number)

    exporter = CheckpointExporter(tmp_path, draws)
    seed()
    expected = drawn()
    seed()
    with pytest.raises(ModelError) if fails else contextlib.nullcontext():
        exporter.save(1.0, 1)
    assert drawn() == expected


def test_nothing_is_deleted_unless_asked_for(tmp_path):
    train(CheckpointExporter(tmp_path / "all", to_onnx, schedule=every_n_steps(1)), 12, 4)
    assert len(names(tmp_path / "all")) == 12
    few = tmp_path / "few"
    few.mkdir()
    (few / "best.onnx").write_bytes(b"of somebody else")
    train(CheckpointExporter(few, to_onnx, schedule=every_n_steps(1), keep_last=3), 12, 4)
    assert names(few) == ["best.onnx", "ckpt-10.onnx", "ckpt-11.onnx", "ckpt-12.onnx"]


def test_an_old_checkpoint_stays_until_the_new_one_is_there(tmp_path, monkeypatch):
    exporter = CheckpointExporter(tmp_path, to_onnx, keep_last=2)
    for step in (1, 2):
        exporter.save(float(step), step)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"ckpt-3\.onnx: the disk is full"):
            exporter.save(3.0, 3)
    assert names(tmp_path) == ["ckpt-1.onnx", "ckpt-2.onnx"]
    assert [e.step for e in exporter.exports] == [1, 2]
    exporter.save(3.0, 3)
    assert names(tmp_path) == ["ckpt-2.onnx", "ckpt-3.onnx"]


def test_a_folder_with_checkpoints_is_not_mixed_with_a_new_run(tmp_path):
    CheckpointExporter(tmp_path, to_onnx).save(1.0, 1)
    with pytest.raises(OutputExistsError, match=r"holds 1 checkpoints already; .*resume=True.*overwrite=True"):
        CheckpointExporter(tmp_path, to_onnx)


def test_overwriting_keeps_the_old_run_until_the_new_one_has_a_checkpoint(tmp_path):
    train(CheckpointExporter(tmp_path, to_onnx, schedule=every_n_steps(1)), 3, 9)
    exporter = CheckpointExporter(tmp_path, to_onnx, schedule=at([2]), overwrite=True)
    exporter.step(10.0)
    assert len(names(tmp_path)) == 3
    exporter.step(20.0)
    assert names(tmp_path) == ["ckpt-2.onnx"]
    assert number_in(tmp_path / "ckpt-2.onnx") == 20


def test_a_resumed_run_sets_aside_what_was_given_up_and_loses_nothing(tmp_path):
    train(CheckpointExporter(tmp_path, to_onnx, schedule=every_n_steps(2)), 9, 4)
    for _ in range(2):  # interrupted twice, at the same place
        exporter = CheckpointExporter(tmp_path, to_onnx, schedule=every_n_steps(2), resume=True)
        exporter.step(-7.0, 7)
        exporter.step(-8.0)
        assert [e.step for e in exporter.exports] == [8]
    assert names(tmp_path) == [
        "ckpt-2.onnx", "ckpt-4.onnx", "ckpt-6.onnx",
        "ckpt-8.onnx", "ckpt-8.onnx.superseded", "ckpt-8.onnx.superseded-2",
    ]  # fmt: skip
    found = [number_in(tmp_path / f"ckpt-8.onnx{end}") for end in ("", ".superseded", ".superseded-2")]
    assert found == [-8, 8, -8]


def test_a_resumed_run_counts_the_checkpoints_of_before_as_its_own(tmp_path):
    train(CheckpointExporter(tmp_path, to_onnx, schedule=every_n_steps(1)), 4, 9)
    exporter = CheckpointExporter(tmp_path, to_onnx, schedule=every_n_steps(1), keep_last=3, resume=True)
    train(exporter, 6, 3, start=4)
    assert names(tmp_path) == ["ckpt-4.onnx", "ckpt-5.onnx", "ckpt-6.onnx"]
    assert exporter.exports[-1].epoch is None


def test_training_that_starts_again_supersedes_what_it_had_written(tmp_path, caplog):
    exporter = CheckpointExporter(tmp_path, to_onnx, schedule=every_n_steps(2))
    for step in (1, 2, 3, 4, 5, 3, 4, 1, 2, 3):
        exporter.observe(float(len(exporter.exports)), Moment(step))
    assert [export.step for export in exporter.exports] == [2, 4, 4, 2]
    assert names(tmp_path) == [
        "ckpt-2.onnx", "ckpt-2.onnx.superseded", "ckpt-4.onnx.superseded", "ckpt-4.onnx.superseded-2",
    ]  # fmt: skip
    assert number_in(tmp_path / "ckpt-2.onnx") == 3
    assert "went back from step 5 to 3" in caplog.text


def test_a_resumed_run_must_say_where_it_is(tmp_path):
    CheckpointExporter(tmp_path, to_onnx).save(1.0, 1)
    exporter = CheckpointExporter(tmp_path, to_onnx, resume=True)
    with pytest.raises(SettingsError, match="resumed, so pass how many steps"):
        exporter.step(1.0)
    exporter.step(1.0, 2)
    with pytest.raises(SettingsError, match="resumed, so pass how many epochs"):
        exporter.end_epoch(1.0)
    assert exporter.end_epoch(1.0, 2) == tmp_path / "ckpt-2.onnx"


def test_resuming_in_an_empty_folder_is_a_beginning(tmp_path):
    exporter = CheckpointExporter(tmp_path, to_onnx, resume=True)
    train(exporter, 3, 3)
    assert names(tmp_path) == ["ckpt-3.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": 100}, r"schedule must be one of vogcore_adapters\.schedule"),
        ({"keep_last": 1}, "keep_last=1 .* a score needs 2"),
        ({"keep_last": "2"}, "keep_last='2'"),
        ({"preprocess": {"scale": 2}}, r"vogcore\.data\.Preprocess"),
        ({"resume": True, "overwrite": True}, "resume and overwrite exclude each other"),
        ({"class_names": "ab"}, "class_names must be a list"),
    ],
)
def test_unusable_settings_are_refused_before_training(tmp_path, options, message):
    with pytest.raises(SettingsError, match=message):
        CheckpointExporter(tmp_path / "ckpts", to_onnx, **options)
    assert names(tmp_path) == []


def test_bad_numbers_and_places_are_refused(tmp_path):
    exporter = CheckpointExporter(tmp_path, to_onnx)
    with pytest.raises(SettingsError, match=r"step of a checkpoint .* not -1"):
        exporter.save(1.0, -1)
    with pytest.raises(SettingsError, match="No step was taken"):
        exporter.end_epoch(1.0)
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"folder .*file.* cannot be made"):
        CheckpointExporter(tmp_path / "file", to_onnx)
