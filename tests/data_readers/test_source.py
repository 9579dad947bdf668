"""ArraySource: finite values, ranges, fingerprints."""

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vogcore.data.source as source_module
from vogcore.data import ArraySource, Preprocess, open_source
from vogcore.errors import DataError

X = np.arange(6 * 4, dtype=np.float32).reshape(6, 2, 2)
Y = np.array([0, 1, 2, 2, 1, 0])


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, 5),
    st.integers(0, 3),
    st.sampled_from(["f2", "f4", "f8"]),
)
def test_values_that_are_not_finite_are_named(value: float, example: int, at: int, dtype: str) -> None:
    x = X.astype(dtype)
    x.reshape(6, 4)[example, at] = value
    x.reshape(6, 4)[5, 3] = value
    source = open_source(x, Y, ids=list("abcdef"), preprocess=Preprocess(scale=0.5))
    example, at = min((example, at), (5, 3))
    with pytest.raises(DataError) as caught:
        source.read(0, 6)
    assert f"example {example} (id {'abcdef'[example]!r}) holds {value} at {divmod(at, 2)}" in str(caught.value)
    with pytest.raises(DataError, match=f"example {example} "):
        source.read(example, 6)
    np.testing.assert_array_equal(source.read(0, example), X[:example] * np.float32(0.5))


def test_overflow_in_preprocessing_is_named() -> None:
    source = open_source(np.array([[1.0], [1e300]]), [0, 1], preprocess=Preprocess())
    assert source.read(0, 1) == 1
    with pytest.raises(DataError, match=r"example 1 holds inf .*after preprocessing"):
        source.read(0, 2)
    whole = open_source(np.array([[1], [2**62]]), [0, 1], preprocess=Preprocess(scale=1e30))
    with pytest.raises(DataError, match="example 1 holds inf"):
        whole.read(1, 2)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 7), (4, 3), (7, 7)])
def test_ranges_outside_the_source(start: int, stop: int) -> None:
    with pytest.raises(DataError, match=f"examples {start} to {stop} were asked for and there are 6"):
        open_source(X, Y).read(start, stop)


def test_blocks_cannot_be_written_and_arrays_stay_writable() -> None:
    x = X.copy()
    for preprocess in (None, Preprocess()):
        block = open_source(x, Y, preprocess=preprocess).read(0, 3)
        with pytest.raises(ValueError, match="read-only"):
            block[0] = 0
    x[0] = 1


def test_a_source_that_gives_too_little_is_caught() -> None:
    class Short:
        shape, dtype = (6, 2, 2), np.dtype(np.float32)

        def __getitem__(self, key: slice) -> np.ndarray:
            return X[key][:1]

    with pytest.raises(DataError, match=r"examples 2 to 4 came with shape \(1, 2, 2\) instead of \(2, 2, 2\)"):
        ArraySource(Short(), Y).read(2, 4)


def test_fingerprint_does_not_depend_on_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_source(X, Y).fingerprint()
    assert len(expected) == 64
    assert int(expected, 16) >= 0
    monkeypatch.setattr(source_module, "_HASH_BLOCK_BYTES", 40)  # two examples and a half
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez_compressed(tmp_path / "b.npz", x=X.astype(">f4"), y=Y.astype(np.uint8), ids=np.arange(6))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=(4, 1, 2), compression="gzip")
        file["y"] = Y[:, None]
    for source in (
        open_source(tmp_path / "x.npy", Y),
        open_source(tmp_path / "a.npz"),
        open_source(tmp_path / "b.npz"),
        open_source(tmp_path / "c.h5"),
        open_source(open_source(X, Y * 0), Y),
        open_source(open_source(X, Y), class_names=["a", "b", "c"]),
    ):
        assert source.fingerprint() == expected


def test_fingerprint_changes_with_what_it_covers() -> None:
    other = X.copy()
    other[5, 1, 1] += 1
    labels = Y.copy()
    labels[5] += 1
    sources = [
        open_source(X, Y),
        open_source(other, Y),
        open_source(X, labels),
        open_source(X, require_labels=False),
        open_source(X.reshape(6, 4), Y),
        open_source(X.view(np.int32), Y),
        open_source(X[:5], Y[:5]),
        open_source(X, Y, preprocess=Preprocess()),
        open_source(X, Y, preprocess=Preprocess(scale=2.0)),
        open_source(X, Y, preprocess=Preprocess(scale=2.0, layout="flatten")),
        open_source(open_source(X, Y, preprocess=Preprocess(scale=2.0)), preprocess=Preprocess(layout="flatten")),
    ]
    assert len({source.fingerprint() for source in sources}) == len(sources)


def test_fingerprint_is_kept_until_something_changes() -> None:
    class Counted:
        shape, dtype = X.shape, X.dtype
        reads = 0

        def __getitem__(self, key: slice) -> np.ndarray:
            self.reads += 1
            return X[key]

    rows = Counted()
    source = ArraySource(rows, Y)
    assert source.fingerprint() == source.fingerprint() == open_source(X, Y).fingerprint()
    assert rows.reads == 1
    assert source.with_changes(Y[::-1] + 1).fingerprint() != source.fingerprint()


def test_repr_is_short() -> None:
    text = repr(open_source(X, Y))
    assert text == "<ArraySource array: 6 examples (2, 2) float32, labels up to 2>"
    assert "no labels" in repr(open_source(X, require_labels=False))


def test_labels_are_a_copy() -> None:
    labels = Y.copy()
    source = open_source(io_free(X), labels)
    labels[:] = 9
    np.testing.assert_array_equal(source.labels, Y)


def io_free(x: np.ndarray) -> np.ndarray:
    """The array after a round trip through .npy bytes, so that no test shares memory with another."""
    stream = io.BytesIO()
    np.save(stream, x)
    stream.seek(0)
    return np.load(stream)
