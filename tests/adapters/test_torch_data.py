"""torch data sets and loaders as sources."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from vogcore.errors import DataError, SettingsError, VogcoreError
from vogcore_adapters.torch_data import open_dataset

X = torch.arange(40 * 6, dtype=torch.float32).reshape(40, 2, 3)
Y = torch.arange(40) % 4


class Items(Dataset):
    """Whatever a function of the position gives."""

    def __init__(self, item, n=40):
        self.item, self.n = item, n

    def __len__(self):
        return self.n

    def __getitem__(self, position):
        return self.item(position)


FORMS = {
    "tuple": (lambda x, y: (x, y), {}),
    "triple": (lambda x, y: [x, y, "meta"], {}),
    "dict": (lambda x, y: {"image": x, "label": y}, {}),
    "named": (lambda x, y: {"left": x, "right": y}, {"x_name": "left", "y_name": "right"}),
    "turned": (lambda x, y: (y, x), {"x_name": 1, "y_name": 0}),
    "plain numbers": (lambda x, y: (x.tolist(), int(y)), {}),
}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_blocks_are_those_of_the_tensors(labelled_arrays, check_source, data) -> None:
    x, y, ranges = data.draw(labelled_arrays())
    form, names = FORMS[data.draw(st.sampled_from(sorted(set(FORMS) - {"plain numbers"})))]
    dataset = Items(lambda i: form(torch.from_numpy(x)[i], torch.tensor(y[i])), len(x))
    loader = data.draw(st.booleans())
    given_ids = data.draw(st.sampled_from([None, [f"n{i}" for i in range(len(x))]]))
    whole = DataLoader(dataset, batch_size=3, shuffle=True, drop_last=True) if loader else dataset
    check_source(open_dataset(whole, ids=given_ids, **names), x, y, ranges, given_ids)


@pytest.mark.parametrize("form", FORMS)
def test_items_of_every_form(form: str) -> None:
    make, names = FORMS[form]
    source = open_dataset(Items(lambda i: make(X[i], Y[i])), **names)
    np.testing.assert_array_equal(source.read(5, 9), X[5:9].numpy())
    assert source.labels.tolist() == Y.tolist()


def test_a_shuffling_loader_keeps_the_order_of_its_data_set() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)
    source = open_dataset(loader)
    np.testing.assert_array_equal(source.read(0, 40), X.numpy())
    assert source.labels.tolist() == Y.tolist()
    assert source.name == "TensorDataset"


def test_a_collate_function_is_applied_item_by_item() -> None:
    def collate(items):
        return {"x": torch.stack([x / 2 for x, _ in items]), "y": torch.stack([y for _, y in items])}

    source = open_dataset(DataLoader(TensorDataset(X, Y), batch_size=4, collate_fn=collate))
    np.testing.assert_array_equal(source.read(0, 40), X.numpy() / 2)
    assert source.labels.tolist() == Y.tolist()
    with pytest.raises(DataError, match="collate_fn makes no batch of one out of one item: pass the data set"):
        open_dataset(DataLoader(TensorDataset(X, Y), collate_fn=lambda items: 5))
    with pytest.raises(DataError, match="collate_fn makes no batch of one"):
        open_dataset(DataLoader(TensorDataset(X, Y), collate_fn=lambda items: (X, Y)))


def test_given_labels_save_the_pass_over_all_items() -> None:
    read = []

    def item(position):
        read.append(position)
        return X[position], "no class index"

    source = open_dataset(Items(item), Y.numpy())
    assert max(read) == 31
    assert source.labels.tolist() == Y.tolist()


def test_examples_alone() -> None:
    source = open_dataset(Items(lambda i: X[i]))
    assert source.labels is None
    assert open_dataset(TensorDataset(X)).labels is None
    with pytest.raises(SettingsError, match="x_name and y_name choose parts of an item"):
        open_dataset(Items(lambda i: X[i]), x_name="image")


def test_class_names_of_the_data_set_where_they_fit() -> None:
    dataset = TensorDataset(X, Y)
    dataset.classes = ["a", "b", "c", "d"]
    assert open_dataset(dataset).class_names == ["a", "b", "c", "d"]
    assert open_dataset(Subset(dataset, [3, 5])).class_names == ["a", "b", "c", "d"]
    dataset.classes = ["a", "b"]
    assert open_dataset(dataset).class_names is None
    with pytest.raises(DataError, match="only 2 class names"):
        open_dataset(dataset, class_names=["a", "b"])


def test_random_augmentation_is_refused() -> None:
    def flip(position):
        x = X[position]
        return (x.flip(-1) if torch.rand(()) < 0.5 else x), Y[position]

    with pytest.raises(DataError, match=r"Items: example \d+ differs between two reads: switch off random"):
        open_dataset(Items(flip))
    with pytest.raises(DataError, match="differs between two reads"):
        open_dataset(TensorDataset(X, Y), transform=lambda x: x + torch.rand(()))


def test_the_random_state_of_training_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    open_dataset(DataLoader(TensorDataset(X, Y), shuffle=True)).read(0, 40)
    assert torch.equal(before, torch.get_rng_state())


class Endless(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (Endless(), {}, "Endless cannot be read by position: pass a map-style data set"),
        (DataLoader(Endless()), {}, "Endless cannot be read by position"),
        (Items(lambda i: X[i], 0), {}, "Items: there are 0 examples"),
        (Items(lambda i: (X[i], torch.eye(4)[Y[i]])), {}, "label of example 0 is .*one class index"),
        (Items(lambda i: (X[: i + 1], Y[i])), {}, r"example 1 has shape \(2, 2, 3\)"),
        (Items(lambda i: {"a": X[i]}), {}, "items have the keys 'a': choose that of the example with x_name"),
        (Items(lambda i: {"x": X[i]}), {"y_name": "z"}, "has no column 'z' for the label: choose y_name among 'x'"),
        (Items(lambda i: (X[i], Y[i])), {"y_name": 4}, "items are tuples of 2 entries, so 4 is not one of them"),
        (Items(lambda i: (X[i].bfloat16(), Y[i])), {}, "values of example 0 cannot be turned into a NumPy array"),
        (Items(lambda i: (X[i] if i < 39 else X[i] / 0, Y[i])), {}, None),
    ],
)
def test_data_that_cannot_be_used(dataset, options, message) -> None:
    if message is None:
        source = open_dataset(dataset, **options)
        with pytest.raises(DataError, match="example 39 holds inf at"):
            source.read(30, 40)
        return
    with pytest.raises(DataError, match=message):
        open_dataset(dataset, **options)


def test_a_data_set_that_fails_names_the_item() -> None:
    def item(position):
        if position == 35:
            raise OSError("no such image")
        return X[position], Y[position]

    with pytest.raises(DataError, match=r"Items: example 35 cannot be read .OSError: no such image"):
        open_dataset(Items(item))


def test_torch_missing(without) -> None:
    without("torch")
    with pytest.raises(VogcoreError, match=r"Reading a torch data set needs torch.*pip install 'vogcore\[torch\]'"):
        open_dataset(None)


def test_the_scores_of_a_loader_are_those_of_its_arrays(tmp_path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    import vogcore

    rng = np.random.default_rng(0)
    for step in range(2):
        weights = rng.normal(size=(6, 4)).astype(np.float32)
        nodes = [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Tanh", ["flat"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "w"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", 1, ["n", 2, 3])],
            [helper.make_tensor_value_info("logits", 1, ["n", 4])],
            [numpy_helper.from_array(weights, "w")],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / f"c-{step}.onnx")
    x = torch.from_numpy(rng.normal(size=(40, 2, 3)).astype(np.float32))
    x[9] = x[4]
    loader = DataLoader(TensorDataset(x, Y), batch_size=8, shuffle=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scored = vogcore.score(str(tmp_path / "c-*.onnx"), open_dataset(loader))
        expected = vogcore.score(str(tmp_path / "c-*.onnx"), x.numpy(), Y.numpy())
    np.testing.assert_array_equal(scored.vog, expected.vog)
    assert scored.settings["data"]["sha256"] == expected.settings["data"]["sha256"]
    copies = "1 of 40 examples are copies of earlier ones, 1 of them with another label; the first pair is 4 and 9."
    assert f"TensorDataset: {copies}" in scored.warnings
    assert f"array: {copies}" in expected.warnings
