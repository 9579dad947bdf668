"""Which graphs ONNX Runtime is given with the shapes inside of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graph.models import build, node, random, value
from vogcore.autodiff import gradient_model
from vogcore.runtime import Session, shapes_left_out


def gradient(convolutions: int) -> onnx.ModelProto:
    nodes, weights, last = [], {"w": random(16 * 16, 3)}, "x"
    for k in range(convolutions):
        nodes += [node("Conv", f"{last} k{k}", f"c{k}", name=f"conv{k}", pads=[1] * 4), node("Relu", f"c{k}", f"r{k}")]
        weights[f"k{k}"] = 0.3 * random(16, 16, 3, 3, seed=k)
        last = f"r{k}"
    nodes += [node("Flatten", last, "f"), node("MatMul", "f w", "z")]
    for number, each in enumerate(nodes):
        each.name = f"node{number}"
    return gradient_model(build(nodes, [value("x", ["N", 16, 4, 4])], [value("z", ["N", 3])], weights))


@pytest.mark.parametrize(("convolutions", "provider"), [(0, "cpu"), (1, "cpu"), (3, "cpu"), (0, "cuda")])
def test_shapes_stay_where_a_layout_needs_them(convolutions: int, provider: str) -> None:
    model = gradient(convolutions)
    before = model.SerializeToString(deterministic=True)
    assert model.graph.value_info
    with shapes_left_out(model, provider):
        assert bool(model.graph.value_info) == (convolutions > 1 or provider == "cuda")
    assert model.SerializeToString(deterministic=True) == before


def test_shapes_come_back_after_an_error() -> None:
    model = gradient(0)
    count = len(model.graph.value_info)
    with pytest.raises(RuntimeError), shapes_left_out(model, "cpu"):
        raise RuntimeError
    assert len(model.graph.value_info) == count > 0


def test_operators_of_other_domains_keep_them() -> None:
    model = gradient(0)
    model.graph.node[0].domain = "custom"
    with shapes_left_out(model, "cpu"):
        assert model.graph.value_info


@pytest.mark.parametrize("convolutions", [0, 1, 3])
def test_the_numbers_are_the_same(convolutions: int) -> None:
    model = gradient(convolutions)
    feeds = {"x": random(2, 16, 4, 4, seed=9), "vogcore_target": np.asarray([0, 2])}
    from_proto = Session(model, provider="cpu", threads=1).run(["vogcore_gradient"], feeds)[0]
    from_bytes = Session(model.SerializeToString(), provider="cpu", threads=1).run(["vogcore_gradient"], feeds)[0]
    np.testing.assert_allclose(from_proto, from_bytes, rtol=1e-5, atol=1e-6)
