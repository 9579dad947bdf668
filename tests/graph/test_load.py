"""Reading models: what is accepted, and what each refusal says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from onnx import helper

from tests.graph.models import FLOAT, build, linear, node, random, value
from vogcore.errors import ModelError
from vogcore.graph import load_model, weights_digest


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(linear(), path)
    return path


@pytest.fixture
def external(tmp_path):
    """A model whose weights lie in weights.bin beside it."""
    path = tmp_path / "model.onnx"
    model = build([node("MatMul", "x w", "z")], [value("x", ["N", 64])], [value("z", ["N", 64])], {"w": random(64, 64)})
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_path_bytes_and_proto_give_the_same_model(saved):
    proto = load_model(linear())
    assert load_model(saved) == load_model(str(saved)) == load_model(saved.read_bytes()) == proto


def test_proto_is_handed_on():
    proto = linear()
    assert load_model(proto) is proto


@pytest.mark.parametrize("name", ["model.json", "model.txt", "model.bin"])
def test_ending_of_the_name_does_not_matter(saved, name):
    assert load_model(saved.rename(saved.with_name(name))) == linear()


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.onnx does not exist; check the path"):
        load_model(tmp_path / "absent.onnx")


def test_folder(tmp_path):
    with pytest.raises(ModelError, match=r"is a folder; give the path of an \.onnx file\."):
        load_model(tmp_path)


def test_every_truncation_is_refused(saved):
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"(cut short|complete graph|not a valid).*") as caught:
            load_model(saved)
        assert str(saved) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"epoch,loss\n1,0.3\n", b"PK\x03\x04" + bytes(60), bytes(range(256))])
def test_file_of_another_kind(tmp_path, content):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"other\.onnx is not an ONNX model.*{len(content)} bytes.*export it again"):
        load_model(path)
    with pytest.raises(ModelError, match="the model is not an ONNX model"):
        load_model(content)


def test_protobuf_of_another_kind():
    foreign = FileDescriptorProto(name="vogcore.proto", package="a.b", dependency=["x", "y"])
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_model(foreign.SerializeToString())


def test_invalid_graph_says_what_is_wrong(tmp_path):
    model = linear()
    model.graph.node[0].op_type = "Gemmm"
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"wrong\.onnx is not a valid ONNX model: .*Gemmm"):
        load_model(path)


@pytest.mark.parametrize("rows", [4, 400])
def test_weight_of_another_size_than_its_shape(tmp_path, rows):
    model = build(
        [node("MatMul", "x w", "z")], [value("x", ["N", rows])], [value("z", ["N", 3])], {"w": random(rows, 3)}
    )
    model.graph.initializer[0].raw_data += b"\0\0\0\0"
    path = tmp_path / "wrong.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"wrong\.onnx is not a valid ONNX model: .*"):
        load_model(path)


def test_external_weights_are_read(external):
    (weight,) = load_model(external).graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), random(64, 64))


def test_missing_external_weights(external):
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx has external data .*weights\.bin.*keep the data file beside"):
        load_model(external)


def test_short_external_weights(external):
    with open(external.parent / "weights.bin", "r+b") as file:
        file.truncate(100)
    with pytest.raises(ModelError, match=r"model\.onnx has external data .* .*'weights.bin' has 100\)"):
        load_model(external)


@pytest.mark.parametrize(
    "how", [lambda path: path.read_bytes(), lambda path: onnx.load(path, load_external_data=False)]
)
def test_external_weights_cannot_be_found_without_a_path(external, how):
    with pytest.raises(ModelError, match=r"'w'\) lie in another file, 'weights\.bin'; give the path"):
        load_model(how(external))


def test_digest_ignores_names_and_storage():
    model, renamed = linear(), linear()
    for tensor in renamed.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(f"{tensor.name}_2", FLOAT, array.shape, array.ravel().tolist()))
    assert weights_digest(renamed) == weights_digest(model)


def test_digest_changes_with_one_bit_of_one_weight():
    model, other = linear(), linear()
    raw = bytearray(other.graph.initializer[1].raw_data)
    raw[0] ^= 1
    other.graph.initializer[1].raw_data = bytes(raw)
    assert weights_digest(other) != weights_digest(model)


@pytest.mark.parametrize(
    "constants",
    [
        [{"value_float": 1.5}, {"value_float": 2.5}],
        [{"value_ints": [1, 2]}, {"value_ints": [1, 3]}],
        [
            {"value": onnx.numpy_helper.from_array(random(3))},
            {"value": onnx.numpy_helper.from_array(random(3, seed=1))},
        ],
        [{"value_string": b"a"}, {"value_string": b"b"}],
    ],
)
def test_digest_reads_every_form_of_constant(constants):
    models = []
    for attributes in constants:
        nodes = [helper.make_node("Constant", [], ["c"], **attributes), node("Relu", "x", "y")]
        models.append(build(nodes, [value("x", [2])], [value("y", [2])]))
    first, second = (weights_digest(model) for model in models)
    assert first != second
    assert weights_digest(models[0]) == first


def test_digest_reads_branches_and_functions():
    def model(number: float) -> onnx.ModelProto:
        branch = helper.make_graph(
            [helper.make_node("Constant", [], ["c"], value_float=number)], "branch", [], [value("c", [])]
        )
        return build(
            [node("If", "flag", "y", then_branch=branch, else_branch=branch)],
            [value("flag", [], onnx.TensorProto.BOOL)],
            [value("y", [])],
        )

    def with_function(number: float) -> onnx.ModelProto:
        body = [helper.make_node("Constant", [], ["c"], value_float=number), node("Mul", "a c", "b")]
        function = helper.make_function("local", "Scale", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
        call = helper.make_node("Scale", ["x"], ["y"], domain="local")
        return build([call], [value("x", [2])], [value("y", [2])], functions=[function], domains=["local"])

    for make in (model, with_function):
        assert weights_digest(make(1.0)) != weights_digest(make(2.0))
        assert weights_digest(make(1.0)) == weights_digest(make(1.0))
