"""Models that somebody made to do harm: other people's files, memory, endless structures."""

from __future__ import annotations

import os

import onnx
import pytest
from onnx import TensorProto, helper

import vogcore
from tests.graph.models import build, linear, node, random, value
from vogcore.errors import ModelError
from vogcore.graph import load_model, weights_digest


def external(path, location: str, *, dims=(64, 64), offset: object = None, length: object = None) -> None:
    """A model at ``path`` with one weight of that shape in another file."""
    model = build([node("MatMul", "x w", "z")], [value("x", ["N", 64])], [value("z", ["N", 64])], {"w": random(64, 64)})
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    del weight.dims[:]
    weight.dims.extend(dims)
    weight.data_location = TensorProto.EXTERNAL
    for key, entry in (("location", location), ("offset", offset), ("length", length)):
        if entry is not None:
            weight.external_data.add(key=key, value=str(entry))
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path):
    """The folder of a model, and a secret beside it."""
    (tmp_path / "secret.bin").write_bytes(bytes(64 * 64 * 4))
    (tmp_path / "given").mkdir()
    (tmp_path / "given/weights.bin").write_bytes(bytes(64 * 64 * 4))
    return tmp_path / "given"


def test_weights_beside_the_model_are_read(folder):
    external(folder / "m.onnx", "weights.bin", offset=0, length=64 * 64 * 4)
    weight = load_model(folder / "m.onnx").graph.initializer[0]
    assert len(weight.raw_data) == 64 * 64 * 4
    assert not weight.external_data
    (folder / "below").mkdir()
    (folder / "weights.bin").rename(folder / "below/w.bin")
    external(folder / "m.onnx", "below/w.bin")
    assert load_model(folder / "m.onnx")


@pytest.mark.parametrize("kind", ["absolute", "upwards", "there and back", "file link", "folder link"])
def test_no_file_outside_of_the_folder_is_opened(kind, folder):
    secret = folder.parent / "secret.bin"
    os.symlink(secret, folder / "link.bin")
    os.symlink(folder.parent, folder / "up")
    location = {
        "absolute": str(secret),
        "upwards": "../secret.bin",
        "there and back": f"../{folder.name}/weights.bin",
        "file link": "link.bin",
        "folder link": "up/secret.bin",
    }[kind]
    external(folder / "m.onnx", location)
    with pytest.raises(ModelError, match="lies outside of the model's folder and is not opened"):
        load_model(folder / "m.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": 1}, "needs 16384 bytes from 1 on"),
        ({"offset": 1 << 50}, "needs 16384 bytes"),
        ({"offset": -1}, "has the offset '-1'"),
        ({"offset": "9" * 5000}, "has the offset"),
        ({"length": 1 << 40}, "has 1099511627776 bytes of external data instead of 16384"),
        ({"length": 5}, "has 5 bytes of external data instead of 16384"),
        ({"length": "x"}, "has the length 'x'"),
        ({"dims": (1 << 40, 1 << 20)}, "needs"),
        ({"dims": (-1, 64)}, "cannot have external data"),
    ],
)
def test_parts_that_the_file_does_not_have(options, message, folder):
    external(folder / "m.onnx", "weights.bin", **options)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder / "m.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["", ".", "pipe", "gone.bin"])
def test_what_is_no_file(location, folder):
    os.mkfifo(folder / "pipe")  # to open it would block
    external(folder / "m.onnx", location)
    with pytest.raises(ModelError, match="external data"):
        load_model(folder / "m.onnx")


def test_the_same_bytes_over_and_over(folder):
    (folder / "weights.bin").write_bytes(bytes(1 << 20))
    external(folder / "m.onnx", "weights.bin", dims=(512, 512))
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for number in range(2000):  # two gigabytes out of one megabyte
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"w{number}"
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="the same few bytes of its external data over and over"):
        load_model(folder / "m.onnx")


def test_external_data_of_attributes_counts_as_well(folder):
    model = linear()
    constant = model.graph.node.add(op_type="Constant", output=["unused"])
    attribute = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.data_type, attribute.t.data_location = TensorProto.FLOAT, TensorProto.EXTERNAL
    attribute.t.external_data.add(key="location", value="/etc/passwd")
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside of the model's folder"):
        load_model(folder / "m.onnx")
    with pytest.raises(ModelError, match="lie in another file"):
        load_model(model.SerializeToString())


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.dims.__setitem__(0, 1 << 60),
        lambda w: w.dims.__setitem__(0, -5),
        lambda w: (w.ClearField("raw_data"), w.dims.__setitem__(0, 1 << 40)),
        lambda w: (w.ClearField("raw_data"), w.float_data.extend([1.0])),
        lambda w: setattr(w, "data_type", 99),
        lambda w: setattr(w, "data_type", TensorProto.STRING),
        lambda w: setattr(w, "raw_data", w.raw_data[:-1]),
    ],
    ids=["a huge shape", "a negative shape", "a shape without content", "too few numbers", "an unknown type",
         "text as bytes", "a byte too few"],
)  # fmt: skip
def test_content_that_does_not_fill_its_shape(change, tmp_path):
    model = linear()
    change(model.graph.initializer[0])
    (tmp_path / "m.onnx").write_bytes(model.SerializePartialToString())
    with pytest.raises(ModelError, match=r"is not a valid ONNX model: the weight '.*'"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("element", ["FLOAT16", "BFLOAT16", "INT4", "UINT8", "DOUBLE", "COMPLEX64", "STRING", "BOOL"])
@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_content_as_onnx_packs_it_is_accepted(element, count):
    number = getattr(TensorProto, element)
    content = [b"a"] * count if element == "STRING" else [1] * count
    model = linear()
    model.graph.initializer.append(helper.make_tensor("more", number, [count], content))
    assert weights_digest(load_model(model.SerializeToString()))


def test_graphs_that_go_round(tmp_path):
    cyclic = linear()
    first = cyclic.graph.node[0]
    first.input[0] = cyclic.graph.node[-1].output[0]
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_model(cyclic.SerializeToString())


def recursive(calls: list[str]) -> onnx.ModelProto:
    """A model whose local functions call one another in a circle."""
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function("own", name, ["a"], ["b"], [helper.make_node(other, ["a"], ["b"], domain="own")], opset)
        for name, other in zip(calls, calls[1:] + calls[:1])
    ]
    graph = helper.make_graph(
        [helper.make_node(calls[0], ["x"], ["z"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3])],
    )
    return helper.make_model(graph, opset_imports=opset, functions=functions, ir_version=10)


@pytest.mark.parametrize("calls", [["F"], ["F", "G", "H"]])
def test_functions_that_call_themselves(calls):
    with pytest.raises(ModelError):
        vogcore.gradient_model(recursive(calls).SerializeToString())


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field as protobuf writes it."""
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def test_branches_inside_of_branches_without_end():
    graph = b""
    for _ in range(2000):  # a graph with a node with an attribute with a graph
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ModelError, match="is not an ONNX model"):
        load_model(field(7, graph) + field(8, b"\x10\x12"))


def test_text_that_is_not_utf8():
    content = linear().SerializeToString()
    name = linear().graph.node[0].op_type.encode()
    broken = content.replace(name, b"\xff" * len(name), 1)
    with pytest.raises(ModelError):
        vogcore.gradient_model(broken)


def test_the_digest_does_not_depend_on_where_the_weights_lie(tmp_path):
    onnx.save_model(linear(), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert weights_digest(load_model(tmp_path / "m.onnx")) == weights_digest(linear())
