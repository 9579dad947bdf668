"""Writing a checkpoint: all or nothing, with metadata."""

import errno
import os

import onnx
import pytest
from onnx import TensorProto, helper

import vogcore
from vogcore._checkpoint import checkpoint_metadata, save_checkpoint
from vogcore._paths import write_whole
from vogcore.errors import SettingsError, StoreError


def identity_model():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    return helper.make_model(graph)


def test_metadata_names_only_what_is_known():
    version = {"vogcore.version": vogcore.__version__}
    assert checkpoint_metadata() == version
    assert checkpoint_metadata(0, 3, ("a", "b"), {"scale": 0.5}) == {
        **version,
        "vogcore.step": "0",
        "vogcore.epoch": "3",
        "vogcore.class_names": '["a", "b"]',
        "vogcore.preprocess": '{"scale": 0.5}',
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": -1}, "step.*-1"),
        ({"epoch": 1.5}, "epoch.*1.5"),
        ({"epoch": True}, "epoch.*True"),
        ({"class_names": "abc"}, "class_names"),
        ({"class_names": [0, 1]}, "class_names"),
    ],
)
def test_metadata_that_could_not_be_read_back_is_refused(arguments, message):
    with pytest.raises(SettingsError, match=message):
        checkpoint_metadata(**arguments)


def test_entries_of_others_are_kept_and_our_own_replaced(tmp_path):
    model = identity_model()
    helper.set_model_props(model, {"author": "someone", "vogcore.epoch": "1"})
    path = save_checkpoint(model, tmp_path / "m.onnx", checkpoint_metadata(epoch=2))
    assert {e.key: e.value for e in onnx.load(path).metadata_props} == {
        "author": "someone",
        "vogcore.epoch": "2",
        "vogcore.version": vogcore.__version__,
    }


def test_a_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"m\.onnx: the disk is full"):
        write_whole(path, b"new", overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_no_partial_file(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "m.onnx", b"new", overwrite=True)
    assert list(tmp_path.iterdir()) == []
