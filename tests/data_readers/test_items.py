"""Examples made by code: transforms, randomness, copies, and the fingerprint that is made on the way."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.data import ArraySource, open_source
from vogcore.data.digests import ExampleDigests
from vogcore.data.items import ItemRows, open_items
from vogcore.errors import DataError, VogcoreWarning

X = np.arange(12 * 6, dtype=np.float32).reshape(12, 2, 3)
Y = np.arange(12) % 3


def test_a_transform_works_on_each_example(tmp_path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    seen = []

    def double(example):
        seen.append(example.shape)
        return (example * 2).transpose()

    for data, labels in ((X, Y), (tmp_path / "x.npy", Y), (tmp_path / "data.npz", None), (open_source(X, Y), None)):
        source = open_source(data, labels, transform=double)
        assert source.shape == (3, 2)
        np.testing.assert_array_equal(source.read(3, 7), (X * 2).transpose(0, 2, 1)[3:7])
        assert source.labels.tolist() == Y.tolist()
        assert source.fingerprint() == open_source((X * 2).transpose(0, 2, 1), Y).fingerprint()
    assert set(seen) == {(2, 3)}


def test_a_random_transform_is_refused() -> None:
    rng = np.random.default_rng(0)

    def flip(example):
        return example[::-1] if rng.random() < 0.5 else example

    def crop(example):
        return example[:, : rng.integers(1, 4)]

    for transform in (flip, crop):
        with pytest.raises(DataError, match=r"example \d+ differs between two reads: switch off random augmentation"):
            open_source(X, Y, transform=transform)


@given(st.integers(32, 59))
@settings(max_examples=10, deadline=None)
def test_randomness_behind_the_first_examples_is_noticed_when_they_are_read_again(position: int) -> None:
    x = np.arange(60.0)[:, None]
    calls = {"n": 0}

    def jitter(example):
        calls["n"] += 1
        return example + (calls["n"] if example[0] == position else 0)

    source = open_source(x, np.zeros(60, int), transform=jitter)
    source.fingerprint()
    source.read(0, position)
    with pytest.raises(DataError, match=f"example {position} came with other values than when it was read before"):
        source.read(position - 3, 60)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda example: 1 / 0, "the transform failed on example 0 .ZeroDivisionError: division by zero"),
        (lambda example: "text", "example 0 is a str and not an array of numbers: pass a transform"),
        (lambda example: example + 1j, "not an array of numbers"),
        (lambda example: example[: 1 + int(example[0, 0] > 20)], r"example 4 has shape \(2, 3\) .* first has \(1, 3\)"),
        (lambda example: example if example[0, 0] else example.astype("f8"), "example 1 has .* dtype float32, .*64"),
        (lambda example: [[1], [2, 3]], "the values of example 0 cannot be turned into a NumPy array"),
    ],
)
def test_transforms_that_do_not_make_examples(transform, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(X, Y, transform=transform).read(0, 12)


def test_items_that_fail_are_named() -> None:
    def items(start, stop):
        for position in range(start, stop):
            if position == 40:
                raise OSError("disk on fire")
            yield np.zeros(2) + position

    source = open_items(items, 50, np.zeros(50, int), labelled=False, name="set")
    source.read(0, 40)
    with pytest.raises(DataError, match=r"set: example 40 cannot be read .OSError: disk on fire"):
        source.read(35, 45)


def test_items_that_end_early_and_none_at_all() -> None:
    rows = ItemRows(lambda start, stop: X[start : min(stop, 9)], 9, where="set")
    rows._n = 12
    with pytest.raises(DataError, match="set: the examples ended after 9, and 12 were counted"):
        rows[slice(4, 12)]
    with pytest.raises(DataError, match="set: there are 0 examples"):
        ItemRows(lambda start, stop: [], 0, where="set")
    with pytest.raises(DataError, match="set: the examples ended after 0"):
        ItemRows(lambda start, stop: [], 3, where="set")


def pairs(start: int, stop: int):
    return zip(X[start:stop], Y[start:stop], strict=True)


def test_labels_are_collected_in_the_pass_that_makes_the_fingerprint() -> None:
    reads = []

    def items(start, stop):
        reads.append((start, stop))
        return pairs(start, stop)

    source = open_items(items, 12, labelled=True, class_names=["a", "b", "c"], name="set")
    assert source.labels.tolist() == Y.tolist()
    assert source.class_names == ["a", "b", "c"]
    before = list(reads)
    assert source.fingerprint() == open_source(X, Y).fingerprint()
    assert reads == before
    assert open_items(lambda a, b: X[a:b], 12, Y[::-1], labelled=False, name="set").labels.tolist() == Y[::-1].tolist()


@pytest.mark.parametrize("label", [-1, 1.0, "cat", [0, 1], None, np.bool_(True)])
def test_labels_that_are_no_class_index(label) -> None:
    with pytest.raises(DataError, match=r"the label of example 0 is .*one class index from 0 on is needed"):
        open_items(lambda a, b: ((x, label) for x in X[a:b]), 12, labelled=True, name="set")


def test_labels_that_change_give_shuffling_away() -> None:
    reads = {"n": 0}

    def items(start, stop):
        reads["n"] += 1
        return ((np.zeros(2), (position + reads["n"]) % 5) for position in range(start, stop))

    with pytest.raises(DataError, match="the label of example 0 was 1 and is now 2: switch off shuffling"):
        open_items(items, 12, labelled=True, name="set")


def test_copies_are_counted_and_the_first_pair_is_named() -> None:
    x = X.copy()
    x[7], x[9], x[4] = x[2], x[2], x[3]
    labels = Y.copy()
    labels[[2, 7, 3, 4]] = 0
    labels[9] = 1
    source = open_source(x, labels, ids=[f"n{i}" for i in range(12)])
    assert source.notes == []
    message = (
        "array: 3 of 12 examples are copies of earlier ones, 1 of them with another label; the first pair is 2 (id "
        "'n2') and 7 (id 'n7')."
    )
    with pytest.warns(VogcoreWarning) as caught:
        source.fingerprint()
    assert [str(warning.message) for warning in caught] == [message]
    assert source.notes == [message]
    wrapped = open_source(open_source(x, labels), np.zeros(12, int), transform=lambda example: example + 1)
    with pytest.warns(VogcoreWarning, match="3 of 12 examples are copies of earlier ones; the first pair is 2 and 7"):
        wrapped.fingerprint()


def test_no_copies_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(X, Y).fingerprint()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_digests_do_not_depend_on_how_the_blocks_came(data) -> None:
    values = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    x = np.array(values, dtype=data.draw(st.sampled_from(["<f4", ">f4", "<i8", "|u1"])))[:, None]
    n = len(x)
    digests = ExampleDigests(n, (1,), x.dtype)
    starts = data.draw(st.lists(st.integers(0, n), max_size=8))
    for start in starts:
        digests.add(start, x[start : data.draw(st.integers(start, n))], where="data")
    while digests.next < n:
        digests.add(digests.next, x[digests.next : digests.next + 3], where="data")
    whole = ExampleDigests(n, (1,), x.dtype)
    whole.add(0, x, where="data")
    assert digests.copy_hash().digest() == whole.copy_hash().digest()
    copies = digests.copies(None)
    again = [at for at, value in enumerate(values) if value in values[:at]]
    if not again:
        assert copies is None
        return
    first = min(values.index(values[at]) for at in again)
    second = next(at for at in again if values[at] == values[first])
    assert copies == (len(again), 0, first, second)
    assert whole.copies(np.arange(n)) == (len(again), len(again), first, second)


def test_an_array_is_not_hashed_on_every_read() -> None:
    source = ArraySource(X.copy(), Y)
    source.read(0, 12)
    assert source._digests.next == 0
