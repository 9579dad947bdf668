"""The demo's training run: what it writes, how well it learns, what it refuses."""

import time

import numpy as np
import onnx
import onnxruntime
import pytest

from vogcore.demo import load_digits, train
from vogcore.errors import OutputExistsError, SettingsError, StoreError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    started = time.perf_counter()
    seen = []
    result = train(tmp_path_factory.mktemp("demo") / "made", on_epoch=seen.append)
    return result, seen, time.perf_counter() - started


def predictions(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": x[:, None].astype(np.float32) / 16})[0].argmax(1)


def test_it_learns_the_digits_in_seconds(run):
    result, seen, seconds = run
    assert seconds < 200  # where nothing else runs, two
    assert seen == result.epochs
    assert [epoch.epoch for epoch in result.epochs] == list(range(1, 13))
    assert [epoch.step for epoch in result.epochs] == [43 * epoch for epoch in range(1, 13)]
    assert result.test_accuracy[-1] > 0.95
    assert result.train_accuracy[-1] > 0.9
    assert result.epochs[-1].loss < result.epochs[0].loss


def test_the_data_files_say_where_each_image_comes_from_and_which_labels_are_wrong(run):
    result, *_ = run
    x, y = load_digits()
    with np.load(result.train_path) as train_set, np.load(result.test_path) as test_set:
        assert train_set["x"].shape == (1347, 8, 8)
        assert test_set["x"].shape == (450, 8, 8)
        ids = np.concatenate([train_set["ids"], test_set["ids"]])
        np.testing.assert_array_equal(np.sort(ids), np.arange(1797))
        for part in (train_set, test_set):
            np.testing.assert_array_equal(part["x"], x[part["ids"]])
            assert part["x"].dtype == np.uint8
            assert part["y"].dtype == np.int64
            assert part["class_names"].tolist() == [str(digit) for digit in range(10)]
        np.testing.assert_array_equal(test_set["y"], y[test_set["ids"]])
        np.testing.assert_array_equal(train_set["y_original"], y[train_set["ids"]])
        np.testing.assert_array_equal(train_set["flipped"], train_set["y"] != train_set["y_original"])
        np.testing.assert_array_equal(np.flatnonzero(train_set["flipped"]), result.flipped)
        assert len(result.flipped) == round(0.05 * 1347)


def test_every_checkpoint_is_the_network_of_its_epoch(run):
    result, *_ = run
    with np.load(result.train_path) as train_set, np.load(result.test_path) as test_set:
        for epoch in result.epochs:
            assert epoch.checkpoint.name == f"ckpt-{epoch.epoch}.onnx"
            metadata = {entry.key: entry.value for entry in onnx.load(epoch.checkpoint).metadata_props}
            assert metadata["vogcore.epoch"] == str(epoch.epoch)
            assert metadata["vogcore.step"] == str(epoch.step)
            correct = predictions(epoch.checkpoint, test_set["x"]) == test_set["y"]
            assert correct.mean() == pytest.approx(epoch.test_accuracy, abs=1 / 450)
        fitted = predictions(result.checkpoints[-1], train_set["x"]) == train_set["y"]
        assert fitted.mean() == pytest.approx(result.train_accuracy[-1], abs=1 / 1347)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    one, same, other = (train(tmp_path / name, 1, seed) for name, seed in (("a", 7), ("b", 7), ("c", 8)))
    assert one.train_path.read_bytes() == same.train_path.read_bytes()
    assert one.epochs[0].loss == pytest.approx(same.epochs[0].loss, rel=1e-6)
    assert one.train_path.read_bytes() != other.train_path.read_bytes()


def test_without_label_noise_split_and_images_stay(tmp_path):
    clean, noisy = train(tmp_path / "clean", 1, flip=0), train(tmp_path / "noisy", 1, flip=0.2)
    assert len(clean.flipped) == 0
    with np.load(clean.train_path) as one, np.load(noisy.train_path) as other:
        np.testing.assert_array_equal(one["ids"], other["ids"])
        np.testing.assert_array_equal(one["y"], other["y_original"])
        assert other["flipped"].sum() == round(0.2 * 1347)


def test_an_earlier_run_is_kept_unless_overwriting_is_asked_for(tmp_path):
    train(tmp_path, 2)
    before = (tmp_path / "ckpt-1.onnx").read_bytes()
    with pytest.raises(OutputExistsError, match=r"ckpt-1\.onnx"):
        train(tmp_path, 1, seed=1)
    assert (tmp_path / "ckpt-1.onnx").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    train(tmp_path, 1, seed=1, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ckpt-1.onnx", "notes.txt", "test.npz", "train.npz"]
    assert (tmp_path / "ckpt-1.onnx").read_bytes() != before


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"flip": 1.5}, {"flip": -0.1}])
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        train(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file"):
        train(tmp_path / "file" / "demo", 1)
