"""Labels, ids and class names."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.data.labels import check_class_names, check_ids, check_labels
from vogcore.errors import DataError


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 120), min_size=1, max_size=20),
    st.sampled_from(["i1", "u1", ">i2", "u4", "i8", "u8"]),
    st.booleans(),
)
def test_integers_of_every_kind(labels: list[int], dtype: str, column: bool) -> None:
    given_labels = np.array(labels, dtype=dtype)
    checked = check_labels(given_labels[:, None] if column else given_labels, len(labels), where="data")
    assert checked.tolist() == labels
    assert checked.dtype == np.int64
    given_labels[0] += 1
    assert checked[0] == labels[0]
    with pytest.raises(ValueError, match="read-only"):
        checked[0] = 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, 2.0], r"dtype float64, not integers.*astype\('int64'\)"),
        ([[0.0], [1.0], [2.0]], "dtype float64"),
        ([True, False, True], "dtype bool"),
        (["cat", "dog", "cat"], r"numpy\.unique\(labels, return_inverse=True\)"),
        (np.array([0, None, 1], dtype=object), "not integers"),
        ([1j, 0, 0], "not integers"),
        ([0, 1], "2 labels for 3 examples"),
        ([], "0 labels for 3 examples"),
        ([0, -1, -2], "label of example 1 is -1"),
        (np.eye(3, dtype=int), r"shape \(3, 3\).*argmax"),
        (np.zeros((3, 1, 1), int), r"shape \(3, 1, 1\)"),
        (3, r"shape \(\)"),
        ([0, [1], 2], "cannot be turned into"),
        (np.array([0, 1, 2**63], dtype=np.uint64), "does not fit into int64"),
    ],
)
def test_labels_that_cannot_be_used(labels: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check_labels(labels, 3, where="train.npz")
    assert str(caught.value).startswith("train.npz")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1, max_size=12, unique=True))
def test_text_ids(ids: list[str]) -> None:
    assert check_ids(ids, len(ids), where="data").tolist() == ids
    assert check_ids(np.array(ids, dtype=object), len(ids), where="data").tolist() == ids
    encoded = np.array([text.encode() for text in ids], dtype=object)
    assert check_ids(encoded, len(ids), where="data").tolist() == ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([4, 5, 4], "examples 0 and 2 have the same id 4"),
        (["a", "b", "b"], "examples 1 and 2 have the same id 'b'"),
        ([1, 2], r"shape \(2,\) for 3 examples"),
        ([[1], [2], [3]], r"shape \(3, 1\)"),
        ([1.0, 2.0, 3.0], "dtype float64: they must be integers or text"),
        ([True, False, True], "dtype bool"),
        (np.array(["a", 1, "b"], dtype=object), "entry 1 of the ids is 1, not text"),
        (np.array([b"a", b"\xff", b"b"]), "not valid UTF-8"),
        (np.array(["a", "a\0", "b"], dtype=object), "NUL"),
        (np.array([0, 1, 2**63], dtype=np.uint64), "does not fit into int64"),
    ],
)
def test_ids_that_cannot_be_used(ids: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check_ids(ids, 3, where="train.npz")
    assert str(caught.value).startswith("train.npz")


def test_integer_ids() -> None:
    checked = check_ids(np.array([7, -3, 0], dtype=np.int16), 3, where="data")
    assert checked.tolist() == [7, -3, 0]
    assert checked.dtype == np.int64


def test_class_names() -> None:
    labels = np.array([0, 2, 1])
    assert check_class_names(("a", "b", "c", "never seen"), labels, where="data") == ["a", "b", "c", "never seen"]
    assert check_class_names(np.array([b"a", "ü".encode()], dtype=object), None, where="data") == ["a", "ü"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], "example 1 has label 2 but there are only 2 class names"),
        (["a", "b", "a"], "classes 0 and 2 are both named 'a'"),
        ([0, 1, 2], "dtype int64: they must be text"),
        ("abc", "must be a list"),
        ([], "must be a list"),
        ([["a", "b", "c"]], "must be a list"),
        (["a", None, "c"], "entry 1 of the class names is None"),
    ],
)
def test_class_names_that_cannot_be_used(names: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_class_names(names, np.array([0, 2, 1]), where="data")  # type: ignore[arg-type]


def test_numbers_that_are_no_characters() -> None:
    """NumPy reads them from a damaged file, and making a str of one raises SystemError."""
    for order in "<>":
        ids = np.array(["a", "b"], f"{order}U1")
        ids.view(f"{order}u4")[1] = 0x110000
        with pytest.raises(DataError, match="the ids are not valid Unicode text: store them anew"):
            check_ids(ids, 2, where="here")


def test_names_that_no_file_can_hold_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"data: entry 1 of the ids is not valid Unicode text \('b\\udcff.png'\): rename it"
    ):
        check_ids(["é.png", "b\udcff.png"], 2, where="data")
    with pytest.raises(DataError, match="entry 0 of the class names is not valid Unicode"):
        check_class_names(["\ud800"], None, where="data")
