"""Hugging Face data sets as sources, and scores as their columns."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import DataError, VogcoreError
from vogcore_adapters.huggingface import add_scores, open_dataset

datasets = pytest.importorskip("datasets")
Image = pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 4, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) % 3


@pytest.fixture(scope="module")
def pictures():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    images = [Image.fromarray(pixels) for pixels in PIXELS]
    return datasets.Dataset.from_dict({"image": images, "label": LABELS.tolist()}, features=features)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_blocks_are_those_of_the_array(labelled_arrays, check_source, data) -> None:
    x, y, ranges = data.draw(labelled_arrays(("float32", "float64", "int64", "uint8")))
    x = x.reshape(len(x), -1)
    kind = (
        data.draw(st.sampled_from([datasets.Sequence, datasets.List]))
        if hasattr(datasets, "List")
        else datasets.Sequence
    )
    features = datasets.Features({"features": kind(datasets.Value(str(x.dtype))), "y": datasets.Value("int64")})
    ids = [f"n{i}" for i in range(len(x))]
    dataset = datasets.Dataset.from_dict({"features": x.tolist(), "y": y.tolist()}, features=features)
    dataset = dataset.add_column("id", ids)
    check_source(open_dataset(dataset), x, y, ranges, ids)
    shuffled = dataset.shuffle(seed=1)  # one fixed order, recorded in the data set
    order = [ids.index(name) for name in shuffled["id"]]
    check_source(open_dataset(shuffled), x[order], y[order], ranges, [ids[i] for i in order])
    as_torch = open_dataset(dataset.with_format("torch", columns=["features"], dtype=getattr(torch, str(x.dtype))))
    check_source(as_torch, x, y, ranges, ids)


def test_images_and_class_names(pictures, check_source) -> None:
    source = open_dataset(pictures)
    check_source(source, PIXELS, LABELS, [(30, 40), (0, 7), (9, 9)])
    assert source.class_names == ["a", "b", "c"]
    grey = open_dataset(pictures, mode="L", resize=(2, 3))
    assert grey.shape == (2, 3)
    scaled = open_dataset(pictures, transform=lambda image: np.asarray(image, np.float32) / 255)
    np.testing.assert_array_equal(scaled.read(3, 9), PIXELS[3:9].astype(np.float32) / 255)


def test_the_data_sets_own_transform_is_respected(pictures) -> None:
    def fixed(batch):
        return {"pixel_values": [np.asarray(image, np.float32) / 255 for image in batch["image"]], **batch}

    rng = np.random.default_rng(0)

    def flip(batch):
        return {"image": [np.asarray(image)[:: 1 if rng.random() < 0.5 else -1] for image in batch["image"]]}

    def scale(batch):
        return {"image": [np.asarray(image, np.float32) / 2 for image in batch["image"]]}

    source = open_dataset(pictures.with_transform(scale))
    np.testing.assert_array_equal(source.read(2, 5), PIXELS[2:5].astype(np.float32) / 2)
    assert source.labels.tolist() == LABELS.tolist()
    with pytest.raises(DataError, match="differs between two reads: switch off random augmentation"):
        open_dataset(pictures.with_transform(flip))
    made = open_dataset(pictures.with_transform(fixed))
    np.testing.assert_array_equal(made.read(0, 4), PIXELS[:4].astype(np.float32) / 255)


def test_arrays_of_several_axes(check_source) -> None:
    x = np.arange(24.0).reshape(4, 2, 3)
    features = datasets.Features({"x": datasets.Array2D((2, 3), "float64"), "y": datasets.Value("int8")})
    dataset = datasets.Dataset.from_dict({"x": x.tolist(), "y": [0, 1, 1, 0]}, features=features)
    check_source(open_dataset(dataset), x, [0, 1, 1, 0], [(2, 4), (0, 3)])
    doubled = open_dataset(dataset, transform=lambda example: example * 2)
    check_source(doubled, x * 2, [0, 1, 1, 0], [(2, 4), (0, 3)])


def test_columns_of_numbers_and_labels_by_name(check_source) -> None:
    table = {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0], "label": ["dog", "cat", "dog"]}
    source = open_dataset(datasets.Dataset.from_dict(table), x_name=["a", "b"])
    check_source(source, np.array([[1, 4], [2, 5], [3, 6.0]]), [1, 0, 1], [(1, 3), (0, 2)])
    assert source.class_names == ["cat", "dog"]


def test_data_that_cannot_be_used(pictures, without) -> None:
    with pytest.raises(DataError, match="holds the splits 'train', 'test': pass one of them"):
        open_dataset(datasets.DatasetDict(train=pictures, test=pictures))
    with pytest.raises(DataError, match="IterableDataset and cannot be read by position: load it without streaming"):
        open_dataset(pictures.to_iterable_dataset())
    with pytest.raises(DataError, match="has no column 'picture' for the examples: choose x_name among 'image'"):
        open_dataset(pictures, x_name="picture")
    with pytest.raises(DataError, match="has the columns 'a': choose those of the examples with x_name"):
        open_dataset(datasets.Dataset.from_dict({"a": [1.0]}))
    missing = datasets.Dataset.from_dict({"x": [[1.0], [2.0]], "label": [1, -1]})
    with pytest.raises(DataError, match="the label of example 1 is -1"):
        open_dataset(missing)
    for column, message in (
        ([0, None], "example 1 has no label: drop such examples"),
        (["cat", None], "example 1 has no label"),
        ([0.5, 1.0], "the labels have dtype float64, not integers"),
    ):
        unfit = datasets.Dataset.from_dict({"x": [[1.0], [2.0]], "label": column})
        with pytest.raises(DataError, match=message):
            open_dataset(unfit)
    ragged = datasets.Dataset.from_dict({"x": [[1.0], [2.0, 3.0]]})
    with pytest.raises(DataError, match="the lists have different lengths"):
        open_dataset(ragged).read(0, 2)
    with pytest.raises(DataError, match="there are 0 examples"):
        open_dataset(pictures.select([]))
    without("datasets")
    with pytest.raises(VogcoreError, match=r"needs datasets.*pip install 'vogcore\[huggingface\]'"):
        open_dataset(pictures)


def test_scores_as_columns(pictures, scores) -> None:
    scored = add_scores(pictures, scores(40, measured="lower is harder"))
    assert set(pictures.features) < set(scored.features)
    assert scored["hard_score"][0] == pytest.approx(0.5 / 40)
    assert [i for i, hard in enumerate(scored["is_hard_issue"]) if hard] == [0, 1]
    again = add_scores(scored, scores(40, measured="higher is harder"))
    assert [i for i, hard in enumerate(again["is_hard_issue"]) if hard] == [38, 39]
    with pytest.raises(DataError, match="has 5 examples and the scores are for 40"):
        add_scores(pictures.select(range(5)), scores(40, measured="lower is harder"))
