"""Examples on show: which ones, as pictures, features and text, with their maps and their history."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from vogcore.data import ArraySource, Preprocess
from vogcore.errors import SettingsError
from vogcore.report.data import open_data, read_vocabulary
from vogcore.report.examples import Maker, choose_classes, choose_detailed, extremes
from vogcore.report.findings import find
from vogcore.report.images import Look, as_pixels, data_uri, image_layout, look_of, overlay, undo_preprocess

from .runs import HOSTILE, pictures, run


def decoded(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((28, 28), "hw"),
        ((1, 8, 8), "chw"),
        ((3, 32, 40), "chw"),
        ((32, 40, 3), "hwc"),
        ((8, 8, 1), "hwc"),
        ((784,), None),
        ((2, 2), None),
        ((100, 3), None),
        ((16, 32, 32), None),
        ((3, 8, 8, 8), None),
        ((), None),
    ],
)
def test_which_shapes_are_images(shape, layout):
    assert image_layout(shape) == layout


@pytest.mark.parametrize(
    ("sample", "black", "white"),
    [
        (np.array([[0, 255]], np.uint8), 0, 255),
        (np.array([[3, 9]], np.uint8), 0, 255),
        (np.array([[0.0, 0.9]]), 0, 1),
        (np.array([[0.0, 200.0]]), 0, 255),
        (np.array([[-2.0, 3.0]]), -2, 3),
        (np.array([[0.0, 16.0]]), 0, 16),
        (np.array([[5.0, 5.0]]), 5, 6),
    ],
)
def test_black_and_white(sample, black, white):
    assert look_of(sample, "hw") == Look("hw", black, white)


def test_mean_and_std_are_taken_back_per_colour():
    x = np.random.default_rng(0).random((5, 8, 9, 3)).astype(np.float32)
    preprocess = Preprocess(mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4], layout="nhwc->nchw")
    back = undo_preprocess(preprocess.apply(x)[2], preprocess, "chw")
    np.testing.assert_allclose(back, x[2].transpose(2, 0, 1), atol=1e-6)


def test_pictures_hold_the_pixels():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (12, 10)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(data_uri(as_pixels(grey, Look("hw", 0, 255)))), grey)
    colour = rng.random((3, 12, 10))
    wanted = np.rint(255 * colour.transpose(1, 2, 0))
    np.testing.assert_array_equal(decoded(data_uri(as_pixels(colour, Look("chw", 0, 1)))), wanted)
    large = decoded(data_uri(rng.integers(0, 256, (400, 200, 3)).astype(np.uint8)))
    assert large.shape == (96, 48, 3)


@pytest.mark.parametrize("shape", [(6, 5), (30,), (3, 6, 5), (6, 5, 3)])
def test_a_map_lies_over_its_picture(shape):
    vog = np.zeros(shape, np.float32)
    vog.reshape(-1)[0] = 2.0
    mixed = overlay(np.full((6, 5), 100, np.uint8), vog)
    assert mixed.shape == (6, 5, 3)
    assert mixed[0, 0, 0] > 200 > mixed[0, 0, 2]
    np.testing.assert_array_equal(mixed[3, 3], [75, 75, 75])


def test_a_map_of_another_size_is_not_forced_onto_a_picture():
    assert overlay(np.zeros((6, 5), np.uint8), np.zeros((4, 4))) is None


def test_both_ends_have_no_example_in_common():
    values = np.array([3.0, 1.0, np.nan, 2.0, 5.0])
    assert extremes(values, np.arange(5), 2) == ([1, 3], [4, 0])
    assert extremes(values, np.arange(5), 9) == ([1, 3], [4, 0])
    assert extremes(values, np.array([0, 1, 3]), 9) == ([1, 3], [0])
    assert extremes(values, np.array([2]), 3) == ([], [])


def test_the_hardest_classes_are_shown():
    labels = np.repeat(np.arange(4), 10)
    errors = np.zeros(40, bool)
    errors[[20, 21, 30]] = True
    assert choose_classes(4, labels, errors, 2) == [2, 3]
    assert choose_classes(4, labels, errors, 9) == [0, 1, 2, 3]
    assert choose_classes(5, np.append(labels, [1, 1]), None, 1) == [1]


def test_examples_with_a_map_come_first_in_detail():
    scores = run(maps=(3,))
    chosen = choose_detailed(scores, "all", "vog", 8, 4)
    assert chosen[:8] == scores.hardest(8).tolist()
    assert chosen[8:] == scores.easiest(4).tolist()
    scores.maps.index[:3] = scores.easiest(3)
    chosen = choose_detailed(scores, "all", "vog", 8, 4)
    assert set(chosen[:8]) <= set(scores.maps.index.tolist())
    assert len(set(chosen)) == len(chosen)


def maker(scores, data, score="vog"):
    return Maker(scores, find(scores), data, "all", score)


def test_an_example_in_detail_says_what_the_run_says():
    scores = run(maps=(28, 28))
    data = open_data(ArraySource(pictures(labels=scores.labels), scores.labels), scores)
    at = int(scores.hardest(1)[0])
    example = maker(scores, data).detailed(at, "p")
    assert example.ident == str(scores.ids[at])
    assert example.label == scores.classes[scores.labels[at]]
    assert example.wrong == (scores.predictions_class[-1][at] != scores.labels[at])
    assert decoded(example.picture).shape == (28, 28)
    assert decoded(example.overlay).shape == (28, 28, 3)
    table = example.charts[0].table
    assert [row[0] for row in table.rows] == [c.name for c in scores.checkpoints]
    assert [row[1] for row in table.rows] == [scores.classes[c] for c in scores.predictions_class[:, at]]
    shown = [float(row[2].text) for row in table.rows]
    np.testing.assert_allclose(shown, scores.predictions_label_probability[:, at], atol=5.1e-4)


def test_pictures_stop_where_the_page_would_become_too_large(monkeypatch):
    monkeypatch.setattr("vogcore.report.examples._PICTURE_BYTES", 3000)
    scores = run()
    data = open_data(ArraySource(pictures(labels=scores.labels), scores.labels), scores)
    made = maker(scores, data)
    shown = [made.small(i) for i in range(20)]
    assert 0 < sum(bool(e.picture) for e in shown) < 20
    assert made.left_out == sum(not e.picture for e in shown)


def test_an_example_that_cannot_be_read_is_told(report):
    scores = run(n=60)
    x = pictures(60, labels=scores.labels).astype(np.float32)
    worst = int(scores.hardest(1)[0])
    x[worst, 0, 0] = np.nan
    page = report(scores, ArraySource(x, scores.labels))
    assert f"example {worst} holds nan at (0, 0), which is not finite" in page.text
    assert page.count("img") > 20


def test_features_have_bars_and_names(report):
    scores = run(maps=(30,))
    scores.maps.vog[:, 1] += 10
    x = np.random.default_rng(0).random((len(scores), 30)).astype(np.float32)
    source = ArraySource(x, scores.labels)
    source.feature_names = ["age", "<income>", *(f"f{i}" for i in range(28))]
    page = report(scores, source)
    assert "VoG by feature" in page.text
    assert "<income>" in page.text
    assert page.count("income") == 0
    assert page.count("img") == 0
    page = report(scores, x)
    assert "feature 1 " in page.text


def test_features_without_maps_and_maps_without_data(report):
    scores = run()
    x = np.random.default_rng(0).random((len(scores), 30)).astype(np.float32)
    assert "VoG by feature needs maps" in report(scores, x).text
    assert "VoG by feature" in report(run(maps=(30,))).text
    page = report(run(maps=(12, 12)))
    assert page.count("img") == 2


def test_tokens_are_coloured_by_vog(report):
    scores = run(maps=(9, 4))  # nine tokens, embeddings of four numbers
    tokens = np.random.default_rng(0).integers(0, 5, (len(scores), 9))
    vocabulary = ["the", "cat", HOSTILE, "sat"]
    page = report(scores, ArraySource(tokens, scores.labels), vocabulary=vocabulary)
    at = int(scores.hardest(1)[0])
    strength = scores.maps.of(at).mean(axis=1)
    shades = [float(a["style"].split()[-1]) for tag, a in page.tags if tag == "span" and "style" in a]
    np.testing.assert_allclose(shades[:9], strength / strength.max(), atol=0.0051)
    assert "cat" in page.text
    assert "#4" in page.text
    assert len(page.scripts) == 2


def test_integers_are_tokens_where_the_gradient_was_taken_inside_the_model():
    scores = run()
    tokens = ArraySource(np.zeros((len(scores), 9), np.int64), scores.labels)
    assert open_data(tokens, scores).kind == "features"
    scores.settings["wrt"] = "embeddings"
    assert open_data(tokens, scores).kind == "tokens"
    assert open_data(tokens, scores).token(7) == "#7"


def test_vocabulary_files(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("a\r\nü\n\nlast".encode())
    assert read_vocabulary(path) == ["a", "ü", "", "last"]
    with pytest.raises(SettingsError, match="does not exist"):
        read_vocabulary(tmp_path / "none" / "v.txt")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_vocabulary(path)
    path.write_bytes(b"")
    with pytest.raises(SettingsError, match="one token a line"):
        read_vocabulary(path)


def test_a_layout_that_does_not_fit_is_refused():
    scores = run()
    x = ArraySource(np.zeros((len(scores), 5, 8, 8), np.float32), scores.labels)
    assert open_data(x, scores).kind == "other"
    with pytest.raises(SettingsError, match="no images of layout chw"):
        open_data(x, scores, layout="chw")
