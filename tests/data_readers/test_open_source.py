"""open_source: every kind of data, the names tried in files, and what it says when something does not fit."""

import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vogcore._types import ExampleSource
from vogcore.data import ArraySource, Preprocess, open_source
from vogcore.errors import DataError, SettingsError, VogcoreWarning

X = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
Y = np.array([0, 1, 2, 1, 0])


def save(folder: Path, kind: str, **arrays: np.ndarray) -> Path:
    """Write the arrays in one of the formats and return the path."""
    if kind in ("npz", "compressed npz"):
        path = folder / "data.npz"
        (np.savez if kind == "npz" else np.savez_compressed)(path, **arrays)
        return path
    path = folder / "data.h5"
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            options = {}
            if kind == "chunked hdf5" and values.ndim and values.size:
                options = {"chunks": tuple(min(2, length) for length in values.shape), "compression": "gzip"}
            if values.dtype.kind in "UO":
                file.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=values, **options)
    return path


FILE_KINDS = ["npz", "compressed npz", "hdf5", "chunked hdf5"]
KINDS = [*FILE_KINDS, "npy", "fortran npy", "array", "view", "memmap", "pair", "wrapped source"]


def build(folder: Path, kind: str, x: np.ndarray, y: np.ndarray) -> ExampleSource:
    if kind in FILE_KINDS:
        return open_source(save(folder, kind, x=x, y=y))
    if kind in ("npy", "fortran npy", "memmap"):
        path = folder / "x.npy"
        np.save(path, np.asfortranarray(x) if kind == "fortran npy" else x)
        return open_source(np.load(path, mmap_mode="r") if kind == "memmap" else path, y)
    if kind == "view":
        return open_source(np.repeat(x, 2, axis=0)[::2], y)
    if kind == "pair":
        return open_source((x, y))
    if kind == "wrapped source":
        return open_source(OwnSource(x), y)
    return open_source(x, y)


class OwnSource:
    """The least that a user has to write."""

    def __init__(self, x: np.ndarray, labels: np.ndarray | None = None) -> None:
        self.x = x
        self.name = "mine"
        self.shape = x.shape[1:]
        self.dtype = x.dtype
        self.labels = labels
        self.ids = None
        self.class_names = None
        self.reads: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.x)

    def read(self, start: int, stop: int) -> np.ndarray:
        self.reads.append((start, stop))
        return self.x[start:stop]

    def fingerprint(self) -> str:
        return f"{self.x.sum()}"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_blocks_are_slices_of_the_whole(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    dtype = data.draw(st.sampled_from(["u1", "<i2", ">i4", "<i8", "<f2", ">f4", "<f4", "<f8", "?"]))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    elements = {"allow_nan": False, "allow_infinity": False} if "f" in dtype else None
    x = data.draw(hnp.arrays(np.dtype(dtype), shape, elements=elements))
    n = shape[0]
    y = np.arange(n) % 3
    # A folder for each example: what an earlier one opened may not be closed yet.
    source = build(Path(tempfile.mkdtemp(dir=tmp_path)), kind, x, y)
    assert isinstance(source, ExampleSource)
    assert len(source) == n
    assert source.shape == shape[1:]
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    assert source.dtype.isnative
    np.testing.assert_array_equal(source.labels, y)
    assert source.labels.dtype == np.int64
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    block = source.read(start, stop)
    assert type(block) is np.ndarray
    assert block.dtype == source.dtype
    assert block.shape == (stop - start, *source.shape)
    assert block.flags.c_contiguous
    assert block.flags.aligned
    np.testing.assert_array_equal(block, x[start:stop])
    if isinstance(source, ArraySource):
        source.close()


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
@pytest.mark.parametrize("x_name", ["x", "images", "data", "X", "x_train", "X_train"])
@pytest.mark.parametrize("y_name", ["y", "labels", "targets", "Y"])
def test_usual_names(kind: str, x_name: str, y_name: str, tmp_path: Path) -> None:
    source = open_source(save(tmp_path, kind, **{x_name: X, y_name: Y}))
    np.testing.assert_array_equal(source.read(1, 4), X[1:4])
    np.testing.assert_array_equal(source.labels, Y)
    assert source.name.endswith(("data.npz", "data.h5"))


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_ids_and_class_names_come_from_the_file(kind: str, tmp_path: Path) -> None:
    ids = np.array(["a", "b", "ç", "dd", "e"])
    names = np.array(["cat", "dog", "Ente"])
    source = open_source(save(tmp_path, kind, x=X, y=Y, ids=ids, class_names=names))
    assert source.ids.tolist() == ids.tolist()
    assert source.ids.dtype.kind == "U"
    assert source.class_names == ["cat", "dog", "Ente"]
    with_own = open_source(source.name, ids=[5, 4, 3, 2, 1], class_names=["p", "q", "r"])
    assert with_own.ids.tolist() == [5, 4, 3, 2, 1]
    assert with_own.ids.dtype == np.int64
    assert with_own.class_names == ["p", "q", "r"]


def test_names_can_be_chosen(tmp_path: Path) -> None:
    path = save(tmp_path, "npz", x=X, y=Y, other=X + 1, wanted=Y[::-1])
    source = open_source(path, x_name="other", y_name="wanted")
    np.testing.assert_array_equal(source.read(0, 5), X + 1)
    np.testing.assert_array_equal(source.labels, Y[::-1])
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file["group/inner/x"] = X
        file["group/y"] = Y
        file["images"] = h5py.SoftLink("/group/inner/x")
    deep = open_source(tmp_path / "deep.h5", x_name="/group/inner/x", y_name="group/y")
    np.testing.assert_array_equal(deep.read(0, 5), X)
    np.testing.assert_array_equal(open_source(tmp_path / "deep.h5", Y).read(0, 2), X[:2])


def test_labels_of_another_split_are_never_taken(tmp_path: Path) -> None:
    path = save(tmp_path, "npz", x_train=X, y_train=Y, x_test=X + 1, y_test=Y[::-1], ids_test=np.arange(5) + 10)
    test = open_source(path, x_name="x_test")
    np.testing.assert_array_equal(test.labels, Y[::-1])
    np.testing.assert_array_equal(test.ids, np.arange(5) + 10)
    train = open_source(path)
    np.testing.assert_array_equal(train.read(0, 5), X)
    np.testing.assert_array_equal(train.labels, Y)
    assert train.ids is None
    lacking = save(tmp_path, "hdf5", x_train=X, y_train=Y, x_val=X)
    with pytest.raises(DataError, match="no labels under the usual names y_val"):
        open_source(lacking, x_name="x_val")


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_wrong_names_list_what_is_there(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path, kind, pictures=X, kinds=Y)
    with pytest.raises(DataError, match=r"no examples under .*'pictures' \(5, 2, 3\) float32.*choose with x_name"):
        open_source(path)
    with pytest.raises(DataError, match=r"no labels under .*'kinds' \(5,\) int64.*choose with y_name"):
        open_source(path, x_name="pictures")
    with pytest.raises(DataError, match=r"no 'nothing' for the examples: it holds '(kinds|pictures)'"):
        open_source(path, x_name="nothing")
    with pytest.raises(DataError, match="no 'nothing' for the labels"):
        open_source(path, x_name="pictures", y_name="nothing", require_labels=False)
    with pytest.raises(DataError, match="it holds no arrays"):
        open_source(save(tmp_path, kind))
    many = {f"a{i}": np.zeros(1) for i in range(30)}
    with pytest.raises(DataError, match="and 10 more"):
        open_source(save(tmp_path, kind, **many))


def test_labels_from_a_npy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y.astype(np.uint8)[:, None])
    np.save(tmp_path / "ids.npy", np.array(list("abcde")))
    source = open_source(str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), ids=tmp_path / "ids.npy")
    np.testing.assert_array_equal(source.labels, Y)
    assert source.ids.tolist() == list("abcde")
    with pytest.raises(DataError, match=r"labels are read from \.npy files only"):
        open_source(X, tmp_path / "y.csv")


def test_labels_given_take_the_place_of_those_in_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, "hdf5", x=X, y=np.zeros(5))  # float labels in the file do not matter then
    np.testing.assert_array_equal(open_source(path, Y).labels, Y)
    with pytest.raises(SettingsError, match="given twice"):
        open_source(path, Y, y_name="y")
    with pytest.raises(SettingsError, match="given twice"):
        open_source((X, Y), Y)


def test_labels_are_required_unless_said_otherwise(tmp_path: Path) -> None:
    for data in (X, save(tmp_path, "npz", x=X), OwnSource(X)):
        with pytest.raises(DataError, match=r"no labels"):
            open_source(data)
        assert open_source(data, require_labels=False).labels is None
    np.testing.assert_array_equal(open_source(save(tmp_path, "npz", x=X, y=Y), require_labels=False).labels, Y)


def test_regression_targets_are_not_taken_for_labels(tmp_path: Path) -> None:
    path = save(tmp_path, "hdf5", x=X, y=np.linspace(0, 1, 5))
    with pytest.warns(VogcoreWarning, match="'y' has dtype float64 and is not used") as caught:
        assert open_source(path, require_labels=False).labels is None
    assert caught[0].filename == __file__
    with pytest.raises(DataError, match="dtype float64, not integers"):
        open_source(path, y_name="y", require_labels=False)


def test_own_sources_pass_through() -> None:
    own = OwnSource(X, Y)
    assert open_source(own) is own
    reader = open_source(X, Y)
    assert open_source(reader) is reader
    assert own.reads == []


def test_own_sources_are_checked() -> None:
    small = OwnSource(X, Y.astype(np.int32))
    assert open_source(small).labels.dtype == np.int64
    with pytest.raises(DataError, match="mine: there are 4 labels for 5 examples"):
        open_source(OwnSource(X, Y[:4]))
    with pytest.raises(DataError, match="mine: there are 0 examples"):
        open_source(OwnSource(X[:0], Y[:0]))
    bad_names = OwnSource(X, Y)
    bad_names.class_names = ["only one"]
    with pytest.raises(DataError, match="only 1 class names"):
        open_source(bad_names)


def test_wrapping_reads_only_what_is_asked_for() -> None:
    own = OwnSource(X)
    source = open_source(own, Y, preprocess=Preprocess(scale=2.0))
    np.testing.assert_array_equal(source.read(1, 3), X[1:3] * 2)
    assert own.reads == [(1, 3)]
    assert own.labels is None
    twice = open_source(source, preprocess=Preprocess(layout="flatten"), ids=list("vwxyz"))
    np.testing.assert_array_equal(twice.read(0, 5), X.reshape(5, 6) * 2)
    np.testing.assert_array_equal(twice.labels, Y)
    assert twice.ids.tolist() == list("vwxyz")
    assert source.shape == (2, 3)
    assert source.ids is None
    relabelled = open_source(source, Y[::-1])
    np.testing.assert_array_equal(relabelled.labels, Y[::-1])
    np.testing.assert_array_equal(relabelled.read(0, 5), X * 2)
    np.testing.assert_array_equal(source.labels, Y)
    with pytest.raises(DataError, match="only 2 class names"):
        open_source(open_source(X, Y % 2, class_names=["a", "b"]), Y)


@pytest.mark.parametrize("data", [7, {"x": X}, None, (X,), [X, Y, Y], ([[1.0]], [0])])
def test_other_data_is_refused(data: object) -> None:
    with pytest.raises(DataError, match="give"):
        open_source(data, None)


def test_names_make_no_sense_without_a_file_of_names(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    for data in (X, tmp_path / "x.npy", (X, Y)):
        with pytest.raises(SettingsError, match="x_name and y_name"):
            open_source(data, x_name="x")


def test_array_likes_are_converted() -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return X

    class OnDevice:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise TypeError("use .cpu() first")

    np.testing.assert_array_equal(open_source(Tensor(), Y.tolist()).read(0, 5), X)
    with pytest.raises(DataError, match=r"use \.cpu\(\) first"):
        open_source(OnDevice(), Y)
    with pytest.raises(DataError, match="masked"):
        open_source(np.ma.masked_equal(X, 3), Y)


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"by their suffix \(\.npy, \.npz, \.h5, \.hdf5"):
        open_source(tmp_path / "x.csv")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".hdf5"])
def test_unreadable_paths(suffix: str, tmp_path: Path) -> None:
    missing = tmp_path / f"missing{suffix}"
    with pytest.raises(DataError, match="does not exist"):
        open_source(missing, Y)
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    with pytest.raises(DataError, match="is a folder"):
        open_source(folder, Y)
    empty = tmp_path / f"empty{suffix}"
    empty.touch()
    with pytest.raises(DataError, match="is empty"):
        open_source(empty, Y)
    foreign = tmp_path / f"foreign{suffix}"
    foreign.write_bytes(b"This is a letter to a friend.\n" * 40)
    with pytest.raises(DataError, match="is not "):
        open_source(foreign, Y)
    nul = f"{tmp_path}/a\0b{suffix}"
    with pytest.raises(DataError, match="cannot be read"):
        open_source(nul, Y)


@pytest.mark.parametrize("kind", ["npy", *FILE_KINDS])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 0.999))
def test_truncated_files_say_so(kind: str, share: float, tmp_path: Path) -> None:
    if kind == "npy":
        path = tmp_path / "x.npy"
        np.save(path, X)
    else:
        path = save(tmp_path, kind, x=X, y=Y)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(1, int(len(whole) * share))])
    with pytest.raises(DataError, match=r"truncated|damaged|is not") as caught:
        open_source(path, Y)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "hdf5"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.astype(np.complex64), "dtype complex64"),
        (X[:0], "0 examples"),
        (X[:, :0], "hold no values"),
        (np.float32(3.0), "single number"),
        (np.array([b"ab", b"cd"]), r"dtype \|S2"),
    ],
)
def test_unusable_examples(kind: str, x: np.ndarray, message: str, tmp_path: Path) -> None:
    labels = np.zeros(len(x), int) if np.ndim(x) else Y
    path = save(tmp_path, kind, x=np.asarray(x), y=labels)
    with pytest.raises(DataError, match=message):
        open_source(path)


def test_unusable_arrays() -> None:
    for x in (np.array([{}, []], dtype=object), X.astype("datetime64[s]"), X.astype(np.longdouble), X.astype("V4")):
        with pytest.raises(DataError, match="the examples"):
            open_source(x, np.zeros(len(x), int))


def test_a_fresh_process_loads_h5py_for_hdf5_only(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    script = (
        "import sys; from vogcore.data import open_source; import vogcore.data.open_source as module\n"
        f"assert len(open_source({str(tmp_path / 'data.npz')!r})) == 5\n"
        "import vogcore.data; assert callable(vogcore.data.open_source)\n"
        "assert not {'h5py', 'numba', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
