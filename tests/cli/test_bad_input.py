"""Everything that can be wrong with what ``vogcore score`` is given: one sentence, status 2, nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from vogcore.errors import ProviderError
from vogcore.runtime import choose_provider


def replace_data(**changes):
    def prepare(folder: Path, tools) -> None:
        x, y = tools.examples()
        np.savez(folder / "train.npz", **({"x": x, "y": y} | {k: f(x, y) for k, f in changes.items()}))

    return prepare


def replace_checkpoint(**options):
    def prepare(folder: Path, tools) -> None:
        tools.save(tools.classifier(1, **options), folder / "ckpt-1.onnx", {})

    return prepare


def replace_all(**options):
    def prepare(folder: Path, tools) -> None:
        tools.write_run(folder, **options)

    return prepare


def content(name: str, change):
    def prepare(folder: Path, tools) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))

    return prepare


def integer_input(folder: Path, tools) -> None:
    for index in range(3):
        table = np.random.default_rng(index).standard_normal((9, 4)).astype(np.float32)
        nodes = [
            helper.make_node("Gather", ["table", "tokens"], ["embedded"], "embed"),
            helper.make_node("ReduceMean", ["embedded", "axis"], ["logits"], "pool", keepdims=0),
        ]
        inputs, outputs = [("tokens", TensorProto.INT64, ["n", 6])], [("logits", TensorProto.FLOAT, ["n", 4])]
        model = tools.build(nodes, inputs, outputs, {"table": table, "axis": np.array([1])})
        tools.save(model, folder / f"ckpt-{index}.onnx", {})


def several_inputs(folder: Path, tools) -> None:
    for index in range(3):
        model = tools.classifier(index)
        model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 8]))
        model.graph.node[1].CopyFrom(helper.make_node("Mul", ["a", "mask"], ["h"], "masked"))
        tools.save(model, folder / f"ckpt-{index}.onnx", {})


def batch_norm(folder: Path, tools) -> None:
    for index in range(3):
        ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
        model = tools.classifier(index)
        nodes = [
            model.graph.node[0],
            helper.make_node(
                "BatchNormalization", ["a", "gain", "bias", "mean", "var"], ["h", "m", "v"], "norm", training_mode=1
            ),
            model.graph.node[2],
        ]
        weights = {"gain": ones, "bias": zeros, "mean": zeros, "var": ones}
        weights |= {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        inputs, outputs = [("x", TensorProto.FLOAT, ["n", 6])], [("logits", TensorProto.FLOAT, ["n", 4])]
        tools.save(tools.build(nodes, inputs, outputs, weights), folder / f"ckpt-{index}.onnx", {})


def dropout(folder: Path, tools) -> None:
    for index in range(3):
        model = tools.classifier(index, middle=[helper.make_node("Dropout", ["a", "ratio", "on"], ["h"], "drop")])
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "ratio"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
        tools.save(model, folder / f"ckpt-{index}.onnx", {})


def unknown_operator(folder: Path, tools) -> None:
    square = np.array([-1, 2, 4])  # Det wants square matrices, and so a product of each with itself
    middle = [
        helper.make_node("Reshape", ["a", "sizes"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["rows", "columns"], ["square"]),
        helper.make_node("Det", ["square"], ["one"], "determinant"),
        helper.make_node("Reshape", ["one", "column"], ["factor"]),
        helper.make_node("Mul", ["a", "factor"], ["h"]),
    ]
    for index in range(3):
        model = tools.classifier(index, middle=middle)
        for name, value in (("sizes", square), ("column", np.array([-1, 1]))):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        tools.save(model, folder / f"ckpt-{index}.onnx", {})


def foreign_hdf5(name: str):
    def prepare(folder: Path, tools) -> None:
        with h5py.File(folder / name, "w") as file:
            file["something/else"] = np.zeros(3)

    return prepare


def nothing(folder: Path, tools) -> None:
    pass


def labels(change):
    def prepare(folder: Path, tools) -> None:
        np.save(folder / "labels.npy", change(tools.examples()[1]))

    return prepare


def one_checkpoint(folder: Path, tools) -> None:
    for index in (1, 2):
        (folder / f"ckpt-{index}.onnx").unlink()


def no_checkpoint(folder: Path, tools) -> None:
    for index in range(3):
        (folder / f"ckpt-{index}.onnx").unlink()


def set_at(position, value):
    def change(array: np.ndarray, _: np.ndarray) -> np.ndarray:
        array[position] = value
        return array

    return change


INPUTS = {
    "no checkpoint matches": (no_checkpoint, [], ["ckpt-*.onnx"]),
    "one checkpoint": (one_checkpoint, [], ["ckpt-0.onnx", "at least two"]),
    "another input shape": (replace_checkpoint(features=5), [], ["ckpt-1.onnx", "6", "5"]),
    "another class count": (replace_checkpoint(classes=5), [], ["ckpt-1.onnx", "5 classes", "4 classes"]),
    "identical checkpoints": (
        lambda folder, tools: [tools.save(tools.classifier(0), folder / f"ckpt-{i}.onnx", {}) for i in range(3)],
        [], ["identical weights"],
    ),
    "truncated checkpoint": (content("ckpt-1.onnx", lambda b: b[: len(b) // 2]), [], ["ckpt-1.onnx"]),
    "empty checkpoint": (content("ckpt-1.onnx", lambda b: b""), [], ["ckpt-1.onnx"]),
    "text for a checkpoint": (content("ckpt-1.onnx", lambda b: b"not a model\n"), [], ["ckpt-1.onnx"]),
    "NaN in weights": (replace_checkpoint(nan=True), [], ["ckpt-1.onnx", "not finite", "example 0"]),
    "integer input": (integer_input, [], ["ckpt-0.onnx", "tokens", "--wrt"]),
    "several inputs": (several_inputs, [], ["ckpt-0.onnx", "'x'", "'mask'", "--wrt"]),
    "several outputs": (replace_all(more_outputs=True), [], ["ckpt-0.onnx", "auxiliary"]),
    "no such output": (nothing, ["--output-name", "nope"], ["nope"]),
    "no such tensor": (nothing, ["--wrt", "nope"], ["nope"]),
    "dropout in training mode": (dropout, [], ["ckpt-0.onnx", "drop", "training mode"]),
    "batch norm in training mode": (batch_norm, [], ["ckpt-0.onnx", "norm", "training mode"]),
    "operator without a rule": (unknown_operator, [], ["ckpt-0.onnx", "Det", "determinant"]),
    "label out of range": (replace_data(y=lambda x, y: set_at(5, 4)(y, y)), [], ["train.npz", "example 5", "label 4"]),
    "negative label": (replace_data(y=lambda x, y: set_at(5, -3)(y, y)), [], ["train.npz", "5", "-3"]),
    "labels too few": (replace_data(y=lambda x, y: y[:-1]), [], ["train.npz", "47", "48"]),
    "float labels": (replace_data(y=lambda x, y: y.astype(float)), [], ["train.npz", "float64"]),
    "labels missing": (lambda folder, tools: np.savez(folder / "train.npz", x=tools.examples()[0]), [], ["train.npz"]),
    "labels file too short": (labels(lambda y: y[:3]), ["--labels", "labels.npy"], ["3", "48"]),
    "labels file of floats": (labels(lambda y: y / 2), ["--labels", "labels.npy"], ["float64"]),
    "labels file missing": (nothing, ["--labels", "nope.npy"], ["nope.npy"]),
    "NaN in data": (replace_data(x=lambda x, y: set_at((11, 2), np.nan)(x, y)), [], ["train.npz", "11"]),
    "infinity in data": (replace_data(x=lambda x, y: set_at((11, 2), np.inf)(x, y)), [], ["train.npz", "11"]),
    "no examples": (replace_data(x=lambda x, y: x[:0], y=lambda x, y: y[:0]), [], ["train.npz"]),
    "another example shape": (replace_data(x=lambda x, y: x[:, :5]), [], ["6", "5"]),
    "data missing": (nothing, ["--data", "nope.npz"], ["nope.npz"]),
    "data truncated": (content("train.npz", lambda b: b[:300]), [], ["train.npz"]),
    "data empty": (content("train.npz", lambda b: b""), [], ["train.npz"]),
    "data of another kind": (nothing, ["--data", "ckpt-0.onnx"], ["ckpt-0.onnx"]),
    "data is text": (content("t.h5", lambda b: b"x,y\n1,2\n"), ["--data", "t.h5"], ["t.h5"]),
    "foreign HDF5 data": (foreign_hdf5("f.h5"), ["--data", "f.h5"], ["f.h5"]),
    "no such name in the data": (nothing, ["--x-name", "pixels"], ["train.npz", "pixels"]),
    "no such label name": (nothing, ["--y-name", "truth"], ["train.npz", "truth"]),
    "foreign HDF5 for gradients": (foreign_hdf5("f.h5"), None, ["f.h5"]),
    "text for gradients": (content("f.h5", lambda b: b"no gradients here"), None, ["f.h5"]),
    "missing gradients": (nothing, None, ["f.h5"]),
    "foreign statistics": (foreign_hdf5("f.h5"), ["--statistics", "f.h5"], ["f.h5"]),
    "output folder missing": (nothing, ["-o", "no/such/scores.h5"], ["no/such"]),
    "output is a folder": (lambda folder, tools: (folder / "d").mkdir(), ["-o", "d"], ["d: it is a folder"]),
    "archive folder missing": (nothing, ["--keep-gradients", "no/g.h5"], ["no/g.h5"]),
    "scores and archive the same": (nothing, ["--keep-gradients", "scores.h5"], ["scores.h5"]),
}  # fmt: skip


@pytest.mark.parametrize("case", INPUTS)
def test_bad_input_is_refused_in_one_sentence(case, run_folder, cli, score, tools):
    prepare, words, named = INPUTS[case]
    prepare(run_folder, tools)
    before = tools.listing(run_folder)
    result = cli("score", "--gradients", "f.h5", "-o", "scores.h5") if words is None else score(*words)
    tools.refused(result, *named)
    assert result.out == ""
    assert tools.listing(run_folder) == before


OPTIONS = [
    ("--scale", "ten"), ("--scale", "1/0"), ("--scale", "0"), ("--scale", "nan"), ("--mean", "a,b"), ("--mean", ""),
    ("--mean", "1,2"), ("--std", "0"), ("--std", "inf"), ("--std", "1,2,3"), ("--layout", "chwn"),
    ("--layout", "nhwc->nchw"), ("--stage", "late"), ("--stage", "late=-:2"), ("--stage", "late=0:4:0"),
    ("--stage", "late=0"), ("--stage", "late=0,9"), ("--stage", "all=0:2"), ("--stage", "=0:2"),
    ("--stage", "late=" + "9" * 5000), ("--memory", "much"), ("--memory", "0"), ("--memory", "9" * 400),
    ("--threads", "0"), ("--threads", "two"), ("--threads", "100000"), ("--batch-size", "0"), ("--batch-size", "-4"),
    ("--batch-size", "1.5"), ("--target", "best"), ("--target", "-1"), ("--target", "4"), ("--target", "9" * 5000),
    ("--target-checkpoint", "1"), ("--target-checkpoint", "x"), ("--of", "logits"), ("--channels", "rgb"),
    ("--channel-axis", "3"), ("--channel-axis", "0"), ("--channel-axis", "x"), ("--reduction", "mad"),
    ("--normalise", "z"), ("--keep-dtype", "int8"), ("--keep-dtype", "float16"), ("--provider", "tpu"),
    ("--checkpoints", "ckpt-0.onnx"), ("--checkpoints", "nope.onnx", "ckpt-0.onnx"), ("--gradients", "g.h5"),
    ("--chec", "x"), ("--no-such-option",), ("--data",), ("stray",),
]  # fmt: skip


@pytest.mark.parametrize("words", OPTIONS, ids=lambda words: " ".join(words)[:40])
def test_a_bad_option_is_refused_in_one_sentence_that_names_it(words, run_folder, score, tools):
    before = tools.listing(run_folder)
    message = tools.refused(score(*words))
    name = words[0].removeprefix("--").removesuffix("s").replace("-", "[-_ ]")
    assert re.search(name, message, re.IGNORECASE)
    assert tools.listing(run_folder) == before


def test_stages_of_one_name_and_predictions_past_the_checkpoints(run_folder, score, tools):
    tools.refused(score("--stage", "a=0:2", "--stage", "a=1:3"), "--stage", "same name")
    tools.refused(score("--target", "predicted", "--target-checkpoint", "3"), "checkpoint")
    assert not Path("scores.h5").exists()


def test_cuda_is_refused_where_there_is_none(run_folder, score, tools):
    try:
        choose_provider("cuda")
    except ProviderError:
        tools.refused(score("--provider", "cuda"), "CUDA", "cpu")
    else:
        assert score("--provider", "cuda").status == 0


@pytest.mark.parametrize("missing", [["-o"], ["--data"], ["--checkpoints"]], ids=lambda words: words[0])
def test_what_is_needed_and_not_given_is_named(missing, run_folder, cli, tools):
    given = {"--checkpoints": "ckpt-*.onnx", "--data": "train.npz", "-o": "scores.h5"}
    words = [word for name, value in given.items() if name not in missing for word in (name, value)]
    tools.refused(cli("score", *words), missing[0])


@pytest.mark.parametrize(
    "words",
    [
        ["--of", "loss"], ["--target", "predicted"], ["--scale", "2"], ["--data", "train.npz"], ["--batch-size", "3"],
        ["--keep-gradients", "k.h5"], ["--checkpoints", "ckpt-*.onnx"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_gradients_that_are_there_already_leave_no_choice_of_how_they_are_made(words, run_folder, score, cli, tools):
    assert score("--keep-gradients", "g.h5").status == 0
    tools.refused(cli("score", "--gradients", "g.h5", "-o", "again.h5", *words), words[0])


def test_results_are_replaced_only_on_request(run_folder, score, tools):
    assert score("--keep-gradients", "g.h5").status == 0
    first = Path("scores.h5").read_bytes()
    tools.refused(score(), "scores.h5", "--overwrite")
    tools.refused(score("-o", "other.h5", "--keep-gradients", "g.h5"), "g.h5", "--overwrite")
    assert Path("scores.h5").read_bytes() == first
    assert score("--of", "probability", "--keep-gradients", "g.h5", "--overwrite").status == 0
    assert Path("scores.h5").read_bytes() != first


def test_inputs_are_never_replaced_even_with_overwrite(run_folder, score, cli, tools):
    assert score("--keep-gradients", "g.h5").status == 0
    files = {path: path.read_bytes() for path in run_folder.iterdir()}
    for words in (["-o", "train.npz"], ["-o", "s.h5", "--keep-gradients", "./train.npz"]):
        tools.refused(score("--overwrite", *words), "train.npz", "input")
    tools.refused(score("-o", "scores.h5", "--statistics", "scores.h5", "--overwrite"), "scores.h5", "input")
    tools.refused(cli("score", "--gradients", "g.h5", "-o", "g.h5", "--overwrite"), "g.h5", "input")
    tools.refused(cli("gradient-model", "ckpt-0.onnx", "-o", "ckpt-0.onnx", "--overwrite"), "ckpt-0.onnx", "input")
    assert {path: path.read_bytes() for path in run_folder.iterdir()} == files


def test_a_checkpoint_is_not_replaced_though_a_pattern_names_it(run_folder, score, tools):
    before = Path("ckpt-1.onnx").read_bytes()
    tools.refused(score("-o", "ckpt-1.onnx", "--overwrite"), "ckpt-1.onnx", "input")
    assert Path("ckpt-1.onnx").read_bytes() == before


def test_an_archive_that_could_not_be_finished_is_named(run_folder, score, tools):
    replace_checkpoint(nan=True)(run_folder, tools)
    tools.refused(score("--keep-gradients", "g.h5"), "not finite", "g.h5.partial")
    assert not Path("g.h5").exists()
    assert not Path("scores.h5").exists()


def test_a_name_cannot_break_the_one_line(run_folder, score, tools):
    name = "a\nb\x1b[31m.npz"
    message = tools.refused(score("--data", name))
    assert "a\\nb\\x1b[31m.npz" in message


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train.npz"], ["train.npz", "not an HDF5 file"]),
        (["nope.h5"], ["nope.h5"]),
        (["."], ["not a file"]),
        (["foreign.h5"], ["foreign.h5"]),
        (["g.h5"], ["g.h5", "gradient archive"]),
        (["scores.h5", "--stage", "late"], ["late"]),
        (["scores.h5", "-n", "-1"], ["-n", "-1"]),
        (["scores.h5", "-n", "few"], ["-n", "few"]),
        ([], ["H5"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_show_refuses_what_is_no_score_file(words, named, run_folder, score, cli, tools):
    assert score("--keep-gradients", "g.h5").status == 0
    foreign_hdf5("foreign.h5")(run_folder, tools)
    tools.refused(cli("show", *words), *named)
