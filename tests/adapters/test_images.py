"""Folders of images as sources."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import DataError, SettingsError, VogcoreError
from vogcore_adapters.images import open_folder

Image = pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)
NAMES = ["b/1.png", "b/10.png", "b/2.png", "a/x.PNG", "a/deep/y.png", "c.d/z.png", "a/w.bmp"]
ORDER = [4, 6, 3, 0, 1, 2, 5]
"""Positions of the names once they are sorted part by part."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (root / "a" / ".hidden.png").write_bytes(b"no image")
    (root / "a" / "notes.txt").write_text("no image")
    (root / ".cache").mkdir()
    return root


def test_classes_ids_and_order_come_from_the_paths(folder: Path, check_source) -> None:
    labels = [0, 0, 0, 1, 1, 1, 2]
    ids = [NAMES[i] for i in ORDER]
    source = open_folder(folder)
    check_source(source, PIXELS[ORDER], labels, [(5, 7), (0, 3), (6, 6), (2, 5)], ids)
    assert source.class_names == ["a", "b", "c.d"]
    assert open_folder(folder, class_names=["c.d", "b", "none", "a"]).labels.tolist() == [3, 3, 3, 1, 1, 1, 0]
    assert open_folder(folder, labels=range(7)).class_names is None


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_blocks_are_those_of_the_array(tmp_path_factory, check_source, labelled_arrays, data) -> None:
    x, y, ranges = data.draw(labelled_arrays(("uint8",)))
    x = np.tile(x.reshape(len(x), -1, 1, 1), (1, 1, 2, 3))  # (N, height, 2, 3)
    root = tmp_path_factory.mktemp("images")
    order = sorted(range(len(x)), key=lambda i: (y[i], f"{i:03}"))
    for i in data.draw(st.permutations(range(len(x)))):
        path = root / f"class-{y[i]}" / f"{i:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(x[i]).save(path)
    names = sorted({f"class-{label}" for label in y})
    labels = [names.index(f"class-{y[i]}") for i in order]
    check_source(open_folder(root), x[order], labels, ranges, [f"class-{y[i]}/{i:03}.png" for i in order])


def test_a_folder_without_classes(folder: Path) -> None:
    source = open_folder(folder / "b")
    assert source.labels is None
    assert source.ids.tolist() == ["1.png", "10.png", "2.png"]
    assert open_folder(folder / "b", labels=[2, 0, 1]).labels.tolist() == [2, 0, 1]
    Image.fromarray(PIXELS[0]).save(folder / "loose.png")
    with pytest.raises(DataError, match=r"the image 'loose\.png' lies beside the class folders 'a' and so on"):
        open_folder(folder)


def test_a_class_without_images_keeps_its_index(folder: Path) -> None:
    (folder / "aa").mkdir()
    source = open_folder(folder)
    assert source.class_names == ["a", "aa", "b", "c.d"]
    assert source.labels.tolist() == [0, 0, 0, 2, 2, 2, 3]


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    os.symlink(folder / "b", folder / "bb")
    os.symlink(folder, folder / "b" / "up")
    source = open_folder(folder)
    assert source.class_names == ["a", "b", "bb", "c.d"]
    assert len(source) == 10


def test_sizes_agree_or_a_resize_is_asked_for(folder: Path) -> None:
    Image.fromarray(PIXELS[0][:2]).save(folder / "b" / "3.png")
    with pytest.raises(DataError, match=r"example 6 has shape \(2, 5, 3\).* the first has \(4, 5, 3\).*: bring them"):
        open_folder(folder).read(0, 8)
    with pytest.raises(DataError, match="bring them to one size"):
        open_folder(folder).fingerprint()
    source = open_folder(folder, resize=(6, 8))
    assert source.read(0, 8).shape == (8, 6, 8, 3)
    expected = np.asarray(Image.fromarray(PIXELS[4]).resize((8, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(source.read(0, 1)[0], expected)


def test_modes_and_transforms(folder: Path) -> None:
    grey = open_folder(folder, mode="L")
    assert grey.shape == (4, 5)
    np.testing.assert_array_equal(grey.read(1, 2)[0], np.asarray(Image.fromarray(PIXELS[6]).convert("L")))

    def transform(image):
        assert isinstance(image, Image.Image)
        return np.asarray(image, np.float32).transpose(2, 0, 1) / 255

    source = open_folder(folder, transform=transform)
    np.testing.assert_array_equal(source.read(0, 7), PIXELS[ORDER].astype(np.float32).transpose(0, 3, 1, 2) / 255)
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="differs between two reads: switch off random augmentation"):
        open_folder(folder, transform=lambda image: np.asarray(image)[:: 1 if rng.random() < 0.5 else -1])


def test_wide_pixels_are_not_cut_off(folder: Path) -> None:
    wide = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    Image.fromarray(wide).save(folder / "b" / "1.png")
    with pytest.raises(DataError, match=r"b/1\.png has Pillow mode I;16, which RGB would cut off: convert it first"):
        open_folder(folder)
    raw = open_folder(folder / "b", mode=None, transform=np.asarray)
    np.testing.assert_array_equal(raw.read(0, 1)[0], wide)


def test_copies_are_named_by_their_files(folder: Path) -> None:
    Image.fromarray(PIXELS[4]).save(folder / "b" / "9.tiff")
    with pytest.warns(UserWarning, match=r"1 of 8 examples .* 1 of them with another label; the first pair is 0 \(id "):
        open_folder(folder).fingerprint()


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_damaged_images_are_named(folder: Path, damage: str) -> None:
    path = folder / "b" / "10.png"
    content = {"cut": path.read_bytes()[:60], "text": b"not an image", "empty": b""}[damage]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images/b/10\.png cannot be read as an image .*: repair or remove it"):
        open_folder(folder).fingerprint()


def test_bad_calls(folder: Path, tmp_path: Path, without) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        open_folder(folder / "a" / "x.PNG")
    with pytest.raises(DataError, match="there are no images"):
        open_folder(folder / ".cache")
    with pytest.raises(DataError, match=r"'a/deep/y\.png' lies in the folder 'a', which is none of the class names"):
        open_folder(folder, class_names=["b", "c.d"])
    for options in ({"mode": "HSV"}, {"resize": (0, 4)}, {"resize": (4,)}, {"x_name": "x"}):
        with pytest.raises(SettingsError):
            open_folder(folder, **options)
    with pytest.raises(DataError, match="7 examples"):
        open_folder(folder, labels=[0, 1])
    without("PIL")
    with pytest.raises(VogcoreError, match=r"Reading images needs PIL.*pip install 'vogcore\[images\]'"):
        open_folder(folder)


def test_a_file_name_of_another_encoding_is_named(folder: Path) -> None:
    name = os.fsdecode(os.fsencode(str(folder / "b")) + b"/\xff.png")
    try:
        Image.fromarray(PIXELS[0]).save(name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match="entry 6 of the ids is not valid Unicode text"):
        open_folder(folder)


def test_animated_and_palette_images_decode_to_their_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(PIXELS[i]).convert("P") for i in range(2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "moving.gif").write_bytes(buffer.getvalue())
    assert open_folder(tmp_path).read(0, 1).shape == (1, 4, 5, 3)
