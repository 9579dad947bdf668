"""Examples and labels that cannot be scored: one sentence, before the run where it can be known, and no file."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import vogcore
from vogcore.errors import DataError

from .models import CNN_SHAPES, FEATURES, IMAGE, cnn, examples, mlps, walk

X, Y = examples(20)


def refused(folder, message, x, y, models=None, error=DataError, **options):
    with pytest.raises(error, match=message) as caught:
        vogcore.score(mlps(3) if models is None else models, x, y, out=folder / "s.h5", **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "s.h5").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.where(np.arange(20) == 11, 3, Y), r"example 11 has label 3, but the model has 3 classes \(0 to 2\)"),
        (Y[:19], "19 labels for 20 examples"),
        (Y.astype(float), "dtype float64"),
        (Y - 1, "class indices start at 0"),
        (None, "there are no labels: pass labels, or choose a target that needs none"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, labels, message):
    refused(tmp_path, message, X, labels)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("position", [0, 17])
def test_examples_that_are_not_finite_are_named(tmp_path, value, position):
    x = X.copy()
    x[position, 3] = value
    refused(tmp_path, rf"array: example {position} \(id 'e{position}'\) holds (nan|inf) at \(3,\)", x, Y,
            ids=[f"e{i}" for i in range(20)], memory=2000)  # fmt: skip
    np.savez(tmp_path / "x.npz", x=x, y=Y)
    (tmp_path / "s.h5.partial").unlink(missing_ok=True)  # the examples before it were scored
    refused(tmp_path, rf"x.npz: example {position} holds", tmp_path / "x.npz", None)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((20, FEATURES + 1), r"takes examples of shape \(n, 12\), got an array of shape \(1, 13\)"),
        ((20, FEATURES, 1), r"got an array of shape \(1, 12, 1\); choose the layout"),
    ],
)
def test_examples_of_another_shape(tmp_path, shape, message):
    refused(tmp_path, message, np.zeros(shape, np.float32), Y)
    channels_last = np.zeros((20, *IMAGE[1:], IMAGE[0]), np.float32)
    models = [cnn(w) for w in walk(CNN_SHAPES, 2)]
    refused(tmp_path, r"takes examples of shape \(n, 2, 6, 5\)", channels_last, Y, models)


def test_class_names_and_ids_that_do_not_fit(tmp_path):
    refused(tmp_path, "there are 4 class names, but the model has 3 classes", X, Y, class_names=list("abcd"))
    refused(tmp_path, "the same id", X, Y, ids=[1] * 20)


def test_files_opened_by_name_are_closed_again(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = X, Y
    scores = vogcore.score(mlps(3), path)
    with h5py.File(path, "a") as file:  # not possible while another handle reads it
        file["y"][0] = 3
    np.testing.assert_array_equal(scores.vog, vogcore.score(mlps(3), X, Y).vog)
    refused(tmp_path, "example 0 has label 3", path, None)
    with h5py.File(path, "a") as file:
        file["y"][0] = Y[0]
        open_data_set = file["x"]
        vogcore.score(mlps(3), open_data_set, Y)
        assert open_data_set.id.valid  # what the caller opened stays open


class Mine:
    """An example source of the user's own, that counts what is read at once."""

    name, shape, dtype, ids, class_names = "mine", (FEATURES,), np.dtype(np.float32), None, ["a", "b", "c"]
    labels = Y

    def __init__(self):
        self.most = 0

    def __len__(self):
        return len(X)

    def read(self, start, stop):
        self.most = max(self.most, stop - start)
        return X[start:stop]

    def fingerprint(self):
        return "mine"


def test_a_source_of_the_users_own_is_read_in_blocks():
    source = Mine()
    scores = vogcore.score(mlps(3), source, memory=5 * (FEATURES * 4 + 2 * FEATURES * 8), batch_size=1)
    assert source.most == 5
    assert scores.classes == ["a", "b", "c"]
    assert scores.settings["data"]["sha256"] == "mine"
    np.testing.assert_array_equal(scores.vog_raw, vogcore.score(mlps(3), X, Y, batch_size=1).vog_raw)
