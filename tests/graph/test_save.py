"""Models on disk: in one file, and with their weights beside them."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime
import pytest

import vogcore.graph.save as save
from tests.graph.models import build, node, random, value
from vogcore.autodiff import gradient_model
from vogcore.errors import OutputExistsError, StoreError
from vogcore.graph import load_model
from vogcore.graph.save import save_model


@pytest.fixture
def model() -> onnx.ModelProto:
    forward = build(
        [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "z")],
        [value("x", ["N", 40])],
        [value("z", ["N", 30])],
        {"w": random(40, 50), "b": random(50), "v": random(50, 30)},
    )
    # One weight as a list of numbers instead of bytes.
    numbers = onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [50, 30], random(50, 30).reshape(-1).tolist())
    forward.graph.initializer[2].CopyFrom(numbers)
    return gradient_model(forward)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens above 2 GB, with the limit lowered."""
    monkeypatch.setattr(save, "INLINE_LIMIT", 1000)


def run(path: os.PathLike) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": random(3, 40, seed=5), "vogcore_target": np.arange(3)})


def test_small_models_are_one_file(tmp_path, model):
    assert save_model(model, tmp_path / "g.onnx") == [tmp_path / "g.onnx"]
    assert os.listdir(tmp_path) == ["g.onnx"]
    assert onnx.load(tmp_path / "g.onnx") == model


@pytest.mark.usefixtures("apart")
def test_large_weights_lie_beside_the_model(tmp_path, model):
    reference = tmp_path / "whole.onnx"
    onnx.save(model, reference)
    before = model.SerializeToString()
    paths = save_model(model, tmp_path / "g.onnx")
    assert model.SerializeToString() == before
    assert [path.name for path in paths] == ["g.onnx", "g.onnx.data"]
    assert sorted(os.listdir(tmp_path)) == ["g.onnx", "g.onnx.data", "whole.onnx"]
    assert paths[0].stat().st_size < 8000 < paths[1].stat().st_size
    for got, wanted in zip(run(paths[0]), run(reference), strict=True):
        np.testing.assert_array_equal(got, wanted)
    loaded = {t.name: onnx.numpy_helper.to_array(t) for t in load_model(paths[0]).graph.initializer}
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(loaded[tensor.name], onnx.numpy_helper.to_array(tensor))
    offsets = [int(e.value) for t in onnx.load(paths[0], load_external_data=False).graph.initializer
               for e in t.external_data if e.key == "offset"]  # fmt: skip
    assert len(offsets) == 2
    assert all(offset % 4096 == 0 for offset in offsets)


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("taken", ["g.onnx", "g.onnx.data"])
def test_neither_file_is_replaced_unasked(tmp_path, model, taken):
    (tmp_path / taken).write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        save_model(model, tmp_path / "g.onnx")
    assert os.listdir(tmp_path) == [taken]
    assert (tmp_path / taken).read_bytes() == b"mine"
    save_model(model, tmp_path / "g.onnx", overwrite=True)
    assert len(run(tmp_path / "g.onnx")) == 2


@pytest.mark.usefixtures("apart")
def test_a_full_disk_leaves_nothing_behind(tmp_path, model, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"Cannot write .*g\.onnx\.data: the disk is full"):
        save_model(model, tmp_path / "g.onnx")
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("apart")
def test_an_interruption_never_leaves_a_model_with_the_weights_of_another(tmp_path, model, monkeypatch):
    save_model(model, tmp_path / "g.onnx")
    monkeypatch.setattr(save, "write_whole", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_model(model, tmp_path / "g.onnx", overwrite=True)
    assert os.listdir(tmp_path) == []
