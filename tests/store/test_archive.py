"""Gradient archives: what is written is what is read, in whatever pieces."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import h5py
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import GradientError, SettingsError, StoreError
from vogcore.store import CheckpointInfo, GradientWriter, open_gradients

WIDE = st.floats(width=32, allow_nan=True, allow_infinity=True)
NARROW = st.floats(width=16, allow_nan=True, allow_infinity=True)


@st.composite
def archives(draw: st.DrawFn) -> dict:
    k, n = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    shape = draw(st.lists(st.integers(1, 3), max_size=3).map(tuple))
    dtype = draw(st.sampled_from(["float32", "float16", "bfloat16"]))
    kind = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[dtype]
    elements = {"float32": WIDE, "float16": NARROW, "bfloat16": st.integers(0, 2**16 - 1)}[dtype]
    cuts = draw(st.lists(st.integers(1, n), max_size=3, unique=True).map(sorted))
    edges = [0, *(cut for cut in cuts if cut < n), n]
    pieces = [(c, a, b) for c in range(k) for a, b in itertools.pairwise(edges)]
    return {
        "n": n,
        "shape": shape,
        "dtype": dtype,
        "gradients": draw(hnp.arrays(kind, (k, n, *shape), elements=elements)),
        "block_size": draw(st.none() | st.integers(1, 10)),
        "pieces": draw(st.permutations(pieces)),
        "channel_axis": draw(st.none() | st.integers(1, len(shape))) if shape else None,
        "logits": draw(st.none() | hnp.arrays(np.float32, (k, n, 2))),
    }


@settings(max_examples=50, deadline=None)
@given(archives(), st.data())
def test_what_is_written_is_what_is_read(given_archive, data):
    gradients, logits, n = given_archive["gradients"], given_archive["logits"], given_archive["n"]
    checkpoints = [CheckpointInfo(f"c{k}", k, None, "00") for k in range(len(gradients))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g.h5"
        options = {name: given_archive[name] for name in ("channel_axis", "block_size")}
        with GradientWriter(path, n, given_archive["shape"], given_archive["dtype"], **options) as writer:
            writer.set_checkpoints(checkpoints)
            for k, start, stop in given_archive["pieces"]:
                writer.write(k, start, gradients[k, start:stop])
                if logits is not None:
                    writer.write_logits(f"c{k}", start, logits[k, start:stop])
            assert not path.exists()
        assert [entry.name for entry in Path(folder).iterdir()] == ["g.h5"]
        with open_gradients(path) as archive:
            assert (len(archive), archive.shape, archive.dtype) == (n, given_archive["shape"], given_archive["dtype"])
            assert archive.channel_axis == given_archive["channel_axis"]
            assert archive.checkpoints == checkpoints
            for _ in range(4):
                k = data.draw(st.integers(0, len(gradients) - 1))
                start = data.draw(st.integers(0, n))
                stop = data.draw(st.integers(start, n))
                block = archive.read(k, start, stop)
                assert block.dtype == gradients.dtype
                assert block.tobytes() == gradients[k, start:stop].tobytes()
                if logits is not None:
                    assert archive.read_logits(k, start, stop).tobytes() == logits[k, start:stop].tobytes()


def test_the_layout_is_as_documented(tmp_path, write_archive):
    path = tmp_path / "g.h5"
    gradients = write_archive(path, labels=[0, 1] * 5, classes=["a", "b", "c"], settings={"of": "loss"}, channel_axis=1)
    with h5py.File(path) as file:
        data = file["gradients"]
        assert data.chunks == (1, 4, 2, 3)
        assert data.maxshape == (None, 10, 2, 3)
        assert data.id.get_create_plist().get_nfilters() == 0
        assert data.attrs["block_size"] == 4
        assert not data.attrs["bfloat16"]
        assert data.attrs["channel_axis"] == 1
        assert file["done"].shape == file["digest"].shape == (3, 3)
        assert file["done"].dtype == bool
        assert file["done"][:].all()
        assert data.attrs["digest"] == "xxh3_64"
        assert xxhash.xxh3_64_intdigest(gradients[2, 8:10].tobytes()) == file["digest"][2, 2]
        assert file["classes/count"][:].tolist() == [5, 5, 0]
        assert file["checkpoints/name"].asstr()[:].tolist() == ["0", "1", "2"]
        assert file["checkpoints/step"][:].tolist() == [-1, -1, -1]
        np.testing.assert_array_equal(data[:], gradients)


def test_blocks_have_1_to_10_megabytes_by_default(tmp_path):
    for shape, expected in [((3, 224, 224), 13), ((10,), 5000), ((3, 2000, 2000), 1)]:
        with pytest.raises(GradientError), GradientWriter(tmp_path / "g.h5", 5000, shape, overwrite=True) as writer:
            assert writer.block_size == expected


def test_bfloat16_rounds_to_nearest_even_and_keeps_nan(tmp_path):
    cases = [
        (0x3F808000, 0x3F80),  # half way: to even, down
        (0x3F818000, 0x3F82),  # half way: to even, up
        (0x3F808001, 0x3F81),
        (0x3F807FFF, 0x3F80),
        (0x7F800001, 0x7FC0),  # a NaN whose payload lies in the lower half only
        (0xFFFFFFFF, 0xFFC0),  # a NaN that rounding would carry over to +0
        (0xFF800000, 0xFF80),
        (0x80000000, 0x8000),
        (0x00000001, 0x0000),
    ]
    values = np.array([bits for bits, _ in cases], dtype=np.uint32).view(np.float32)
    with GradientWriter(tmp_path / "g.h5", len(cases), (), "bfloat16") as writer:
        writer.write(0, 0, values)
    with open_gradients(tmp_path / "g.h5") as archive:
        assert archive.read(0, 0, len(cases)).tolist() == [expected for _, expected in cases]


@settings(max_examples=100, deadline=None)
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**127, min_value=-(2.0**127)))
def test_bfloat16_is_the_nearest_value(value):
    from vogcore.store._blocks import convert

    bits = convert(np.float32([value]), "bfloat16")
    candidates = (np.clip(int(bits[0]) + np.arange(-1, 2), 0, 2**16 - 1).astype(np.uint32) << 16).view(np.float32)
    distance = np.abs(candidates.astype(np.float64) - value)
    assert distance[1] == np.nanmin(distance)


@pytest.mark.parametrize(
    ("dtype", "block"),
    [("float32", np.array([2**24, -(2**24)])), ("float16", np.array([0.1, 2.0])), ("float32", np.array([1e-50, 0.1])),
     ("bfloat16", np.array([256, -3], dtype=np.int16)), ("float16", np.array([np.inf, np.nan]))],
)  # fmt: skip
def test_other_types_are_rounded_to_the_type_of_the_archive(tmp_path, dtype, block):
    with GradientWriter(tmp_path / "g.h5", 2, (), dtype) as writer:
        writer.write(0, 0, block)
    with open_gradients(tmp_path / "g.h5") as archive:
        back = archive.read(0, 0, 2)
    if dtype == "bfloat16":
        back = (back.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(back, block.astype(back.dtype))


@pytest.mark.parametrize(
    ("dtype", "block", "message"),
    [
        ("float32", np.array([2**24 + 1, 0]), "beyond 16777216 do not fit float32"),
        ("bfloat16", np.array([257, 0]), "do not fit bfloat16"),
        ("float16", np.array([1e5, np.inf]), r"A gradient of 1e\+05 is too large for float16"),
        ("bfloat16", np.array([3.4e38, 0], "f4"), "too large for bfloat16"),
        ("float32", np.array([-1e39, 0]), "too large for float32"),
        ("float32", np.array([1j, 0]), "complex128 cannot be stored"),
        ("float32", np.array(["a", "b"]), "cannot be stored"),
        ("float32", np.array([True, False]), "bool cannot be stored"),
    ],
)
def test_values_that_do_not_fit_the_type_are_refused(tmp_path, dtype, block, message):
    with pytest.raises(GradientError, match=message), GradientWriter(tmp_path / "g.h5", 2, (), dtype) as writer:
        writer.write(0, 0, block)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.write(0, 0, np.zeros((2, 3, 2))), r"shape \('b', 2, 3\), not \(2, 3, 2\)"),
        (lambda w: w.write(0, 0, np.zeros((2, 3))), r"not \(2, 3\)"),
        (lambda w: w.write(0, 9, np.zeros((2, 2, 3))), "Examples 9 to 10 of gradients are outside of 0 to 9"),
        (lambda w: w.write(0, -1, np.zeros((2, 2, 3))), "outside of 0 to 9"),
        (lambda w: w.write(2, 0, np.zeros((2, 2, 3))), "Checkpoint 2 is out of order after 1 checkpoints"),
        (lambda w: w.write(-1, 0, np.zeros((2, 2, 3))), "Checkpoint -1 is out of order"),
        (lambda w: w.write(0, 4, np.zeros((2, 2, 3))), "gradients of example 5 at checkpoint 'a' have been written"),
        (lambda w: w.write("a", 0, np.zeros((10, 2, 3))), "gradients of example 5 at checkpoint 'a'"),
        (lambda w: w.write_logits(0, 0, np.zeros(2)), r"shape \(examples, classes\), not \(2,\)"),
        (lambda w: w.write_logits(0, 0, np.zeros((2, 0))), r"not \(2, 0\)"),
        (lambda w: [w.write_logits(0, s, np.zeros((2, s + 1))) for s in (0, 2)], r"\('b', 1\), not \(2, 3\)"),
        (lambda w: [w.write_logits(0, 0, np.zeros((2, 1))) for _ in "ab"], "logits of example 0"),
        (lambda w: w.set_checkpoints([]), "1 checkpoints have been written or announced, not 0"),
        (lambda w: w.set_checkpoints([CheckpointInfo("b")]), "Checkpoint 0 is 'a' already, not 'b'"),
        (lambda w: w.set_checkpoints([CheckpointInfo("a")] * 2), "same name"),
    ],
)
def test_blocks_that_do_not_fit_are_refused_and_nothing_changes(tmp_path, call, message):
    block = np.arange(6.0).reshape(1, 2, 3)
    with GradientWriter(tmp_path / "g.h5", 10, (2, 3), block_size=4) as writer:
        writer.write("a", 5, block)
        with pytest.raises(GradientError, match=message):
            call(writer)
        writer.write(0, 0, np.zeros((5, 2, 3)))
        writer.write(0, 6, np.zeros((4, 2, 3)))
        if writer._file.logits is not None:
            writer.write_logits("a", 2, np.zeros((8, 1)))
    with open_gradients(tmp_path / "g.h5") as archive:
        np.testing.assert_array_equal(archive.read(0, 5, 6), block)
        assert archive.read(0, 0, 10).sum() == block.sum()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "float64"}, SettingsError, "float32, float16 or bfloat16 gradients, not 'float64'"),
        ({"dtype": "nonsense"}, SettingsError, "not 'nonsense'"),
        ({"n_examples": 0}, SettingsError, "would hold nothing"),
        ({"shape": (3, 0)}, SettingsError, "would hold nothing"),
        ({"channel_axis": 3}, SettingsError, "must be 1 to 2, not 3"),
        ({"channel_axis": 0}, SettingsError, "not 0"),
        ({"block_size": 0}, SettingsError, "1 or more, not 0"),
        ({"shape": (2**31,)}, SettingsError, "larger than the 4 GB"),
        ({"labels": [0, 1]}, StoreError, "examples/label"),
        ({"labels": [0.5] * 4}, StoreError, "float64"),
        ({"labels": [-2] * 4}, StoreError, "-2 is not a class index"),
        ({"labels": [2**40] * 4}, StoreError, "too large for a class index"),
        ({"labels": [0, 1, 2, 3], "classes": ["a"]}, StoreError, "label 3 has no name among 1 classes"),
        ({"ids": ["a"]}, StoreError, "examples/id"),
        ({"ids": [None] * 4}, StoreError, "ids must be int64 or str"),
    ],
)
def test_archives_that_make_no_sense_are_refused_and_nothing_is_left(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        GradientWriter(tmp_path / "g.h5", **({"n_examples": 4, "shape": (2, 3)} | options))
    assert list(tmp_path.iterdir()) == []


def test_names_that_a_file_cannot_hold_are_refused_at_once(tmp_path):
    with pytest.raises(StoreError, match="NUL"), GradientWriter(tmp_path / "g.h5", 1, ()) as writer:
        writer.set_checkpoints([CheckpointInfo("a\0")])
    with pytest.raises(StoreError, match="NUL"), GradientWriter(tmp_path / "h.h5", 1, ()) as writer:
        writer.write("a\0", 0, np.zeros(1))


def test_numbered_checkpoints_can_be_described_afterwards(tmp_path):
    infos = [CheckpointInfo("x", 1), CheckpointInfo("y", 2)]
    with GradientWriter(tmp_path / "g.h5", 1, ()) as writer:
        writer.write(0, 0, np.zeros(1))
        writer.write(1, 0, np.ones(1))
        writer.set_checkpoints(infos)
        assert writer.n_checkpoints == 2
    with open_gradients(tmp_path / "g.h5") as archive:
        assert archive.checkpoints == infos
        assert repr(archive) == (
            f"GradientArchive('{tmp_path}/g.h5': 2 checkpoints, 1 examples of shape (), float32)"
        )  # fmt: skip


def test_reads_out_of_range_and_after_closing(tmp_path, write_archive):
    write_archive(tmp_path / "g.h5")
    with open_gradients(tmp_path / "g.h5") as archive:
        for arguments, message in [
            ((3, 0, 1), "checkpoints 0 to 2, not 3"),
            ((-1, 0, 1), "not -1"),
            ((0, 0, 11), "examples 0 to 9, not 0 to 10"),
            ((0, 3, 2), "not 3 to 1"),
        ]:
            with pytest.raises(GradientError, match=message):
                archive.read(*arguments)
        with pytest.raises(GradientError, match="holds no logits"):
            archive.read_logits(0, 0, 1)
    with pytest.raises(StoreError, match="has been closed"):
        archive.read(0, 0, 1)
