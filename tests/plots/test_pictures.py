"""Grids of images and per-pixel maps."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from vogcore.errors import DataError, SettingsError
from vogcore.plots.images import open_images, picture
from vogcore.store import Maps


def positions_of(ax, images: np.ndarray) -> list[int]:
    """Which examples are on the axes, in the order of drawing."""
    shown = [np.asarray(image.get_array()) for image in ax.images]
    return [next(i for i in range(len(images)) if np.allclose(images[i] / 255, picture)) for picture in shown]


def ranked(scores, members: list[int], hard_first: bool) -> list[int]:
    """By the definition: ties in the order of the data, NaN last; low is hard in these scores."""
    known = [i for i in members if np.isfinite(scores.vog[i])]
    sign = 1 if hard_first else -1
    return sorted(known, key=lambda i: (sign * scores.vog[i], i))


def test_grid_shows_the_ends_of_every_class(scores, images):
    ax = scores.plot.grid(images, 3)
    found = positions_of(ax, images)
    for c in range(4):
        members = [i for i in range(len(scores)) if scores.labels[i] == c]
        row = found[6 * c : 6 * c + 6]
        assert row[:3] == ranked(scores, members, hard_first=False)[:3]
        assert row[3:] == ranked(scores, members, hard_first=True)[:3][::-1]
    assert "low is hard (as measured" in ax.get_title()
    headings = [text.get_text() for text in ax.texts if text.get_text().startswith(("easiest", "hardest"))]
    assert headings == ["easiest (highest)", "hardest (lowest)"]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "cat", "dog", r"\$100 or \$200", "<b>bird</b>",
    ]  # fmt: skip
    ax.figure.canvas.draw()


def test_captions_say_prediction_and_score(scores, images):
    ax = scores.plot.grid(images, 1, classes=["dog"])
    assert len(ax.images) == 2
    easiest, hardest = positions_of(ax, images)
    captions = [text.get_text() for text in ax.texts if "\n" in text.get_text()]
    for position, caption in zip((easiest, hardest), captions, strict=True):
        guess = scores.predictions_class[-1][position]
        wrong = " (wrong)" if guess != 1 else ""
        assert caption.replace("\\", "") == f"{scores.classes[guess][:12]}{wrong}\n{scores.vog[position]:+.2f}"


def test_grid_without_labels_is_one_row(make, images):
    scores = make(labels=np.full(103, -1))
    ax = scores.plot.grid(images, 4, score="vog")
    assert len(ax.images) == 8
    assert positions_of(ax, images)[:4] == ranked(scores, list(range(103)), hard_first=False)[:4]


def test_a_class_smaller_than_the_row(make, images):
    labels = np.zeros(103, int)
    labels[4] = 1
    scores = make(labels=labels, class_count=np.bincount(labels, minlength=4))
    ax = scores.plot.grid(images, 3, classes=[1])
    assert positions_of(ax, images) == [4, 4]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 5), (6, 5)), ((1, 6, 5), (6, 5)), ((6, 5, 1), (6, 5)), ((3, 6, 5), (6, 5, 3)), ((6, 5, 3), (6, 5, 3)),
     ((4, 6, 5), (6, 5, 4)), ((3, 8, 4), (8, 4, 3)), ((1, 1, 1), (1, 1))],
)  # fmt: skip
def test_shapes_of_images(shape, expected):
    data = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    shown = picture(open_images(data, 2), 1)
    assert shown.shape == expected
    assert sorted(shown.ravel().tolist()) == sorted((data[1] / 255).ravel().tolist())


def test_range_of_other_numbers():
    data = np.zeros((3, 2, 2), np.float32)
    data[0] = [[0.25, 0.5], [0.5, 0.5]]
    data[1] = [[-2.0, 0.0], [2.0, 1.0]]
    data[2] = 7.0
    source = open_images(data, 3)
    np.testing.assert_array_equal(picture(source, 0), data[0])
    np.testing.assert_array_equal(picture(source, 1), [[0.0, 0.5], [1.0, 0.75]])
    np.testing.assert_array_equal(picture(source, 2), np.zeros((2, 2)))


def test_map_over_an_image(scores, images):
    ax = scores.plot.map(9, images)
    below, above = ax.images
    np.testing.assert_allclose(below.get_array(), images[9] / 255)
    np.testing.assert_allclose(above.get_array(), scores.maps.vog[1])
    assert above.get_alpha().shape == (6, 5)
    assert above.get_alpha().argmax() == scores.maps.vog[1].argmax()
    assert "standard deviation of the gradient" in ax.figure.axes[-1].get_ylabel()
    ax.figure.canvas.draw()


def test_map_alone(scores):
    ax = scores.plot.map(3)
    (shown,) = ax.images
    np.testing.assert_allclose(shown.get_array(), scores.maps.vog[0])
    assert shown.get_alpha() is None
    assert ax.get_title().startswith("Example 3 (id picture-3), label <b>bird</b>\nVoG ")


def test_map_of_colours_that_were_not_reduced(make):
    vog = np.random.default_rng(1).random((1, 3, 6, 5)).astype(np.float32)
    shown = make(maps=Maps(np.array([2]), vog)).plot.map(2).images[0].get_array()
    np.testing.assert_allclose(shown, vog[0].astype(float).mean(axis=0))


def test_map_of_features_becomes_bars(make):
    vog = np.arange(8, dtype=np.float32).reshape(1, 8)
    ax = make(maps=Maps(np.array([2]), vog)).plot.map(2)
    assert [bar.get_height() for bar in ax.patches] == list(range(8))


def test_a_map_of_zeros_is_drawn(make, images):
    ax = make(maps=Maps(np.array([2]), np.zeros((1, 6, 5), np.float32))).plot.map(2, images)
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("changes", "draw", "message"),
    [
        ({}, lambda p, x: p.grid(x[:50]), "source has 50 examples and the scores are of 103"),
        ({}, lambda p, x: p.grid(x.reshape(103, -1)), r"shape \(30,\) are not images"),
        ({}, lambda p, x: p.grid(x, 0), "n=0 is not possible"),
        ({}, lambda p, x: p.grid(x, classes=["cow"]), "'cow', which is not one class"),
        ({}, lambda p, x: p.grid(x, classes=[9]), "9, which is not one class"),
        ({"labels": np.full(103, -1)}, lambda p, x: p.grid(x, classes=[0]), "no labels"),
        ({}, lambda p, x: p.map(4, x), "no map of example 4"),
        ({}, lambda p, x: p.map(400), "no example 400"),
        ({}, lambda p, x: p.map(3, stage="late"), "over all checkpoints, not those of stage 'late'"),
        ({"maps": None}, lambda p, x: p.map(3), r"no maps; ask for them when scoring"),
        (
            {"maps": Maps(np.array([3]), np.ones((1, 6, 6, 6), np.float32))},
            lambda p, x: p.map(3),
            r"shape \(6, 6, 6\) cannot be drawn",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(make, images, changes, draw, message):
    with pytest.raises(SettingsError, match=message):
        draw(make(**changes).plot, images)


def test_a_source_that_cannot_be_opened(scores):
    with pytest.raises(DataError):
        scores.plot.grid("nowhere.npz")
    assert plt.get_fignums() == []
