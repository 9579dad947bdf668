from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from vogcore.errors import ModelError
from vogcore.runtime import GradientSession, Session, make_batch_dynamic

from .models import FEATURES, examples, expected, forward, gradient, model

CPU = {"provider": "cpu", "threads": 1}


def free(fixed: onnx.ModelProto) -> onnx.ModelProto:
    """The plainest rewriting: declare the leading dimension a symbol and touch nothing else."""
    copy = onnx.ModelProto()
    copy.CopyFrom(fixed)
    for value in [*copy.graph.input, *copy.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return copy


def one_node(op, shape, *extra, out=None, **attributes):
    """A model of one operator on a fixed-shape input."""
    names = [name for name, _ in extra]
    nodes = [helper.make_node(op, ["x", *names], ["y"], **attributes)]
    return model(nodes, [("x", TensorProto.FLOAT, list(shape))], [("y", TensorProto.FLOAT, list(out or shape))], extra)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("make", [forward, gradient])
def test_sound_rewriting_is_taken(make, batch):
    fixed = make(batch)
    before = fixed.SerializeToString(deterministic=True)
    rewritten, dynamic = make_batch_dynamic(fixed, "cpu", threads=1, rewrite=free)
    assert dynamic
    assert rewritten is not fixed
    assert fixed.SerializeToString(deterministic=True) == before
    x, target = examples(7)
    feeds = {"x": x, "vogcore_target": target} if make is gradient else {"x": x}
    results = Session(rewritten, **CPU).run(None, feeds)
    for result, reference in zip(results, expected(x, target)):
        np.testing.assert_allclose(result, reference, rtol=1e-5, atol=1e-6)


def _centred_over_the_batch():
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    shape = [3, FEATURES]
    values = ([("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)])
    return model(nodes, *values, [("axes", np.array([0]))])


@pytest.mark.parametrize(
    "fixed",
    [
        pytest.param(_centred_over_the_batch(), id="batch statistics"),
        pytest.param(one_node("CumSum", (2, 4), ("axis", np.array(0))), id="sum along the batch"),
        pytest.param(one_node("Add", (2, 4), ("b", np.ones((2, 4), np.float32))), id="cannot run at another size"),
        pytest.param(
            one_node("Reshape", (1, 4), ("shape", np.array([1, -1])), out=(1, 4)), id="batch spread over features"
        ),
        pytest.param(one_node("Mul", (2, 4), ("b", np.zeros(1, np.float32))), id="answers a constant"),
        pytest.param(one_node("Add", (2, 4), ("b", np.full(1, np.inf, np.float32))), id="answers no finite number"),
    ],
)
def test_rewriting_that_is_not_shown_sound_is_dropped(fixed):
    result, dynamic = make_batch_dynamic(fixed, "cpu", threads=1, rewrite=free)
    assert result is fixed
    assert not dynamic


def test_rewriting_that_swaps_examples_is_dropped():
    """Right values in the wrong rows: only a comparison row by row sees it."""

    def swap(fixed):
        copy = free(fixed)
        copy.graph.node[-1].output[0] = "before"
        copy.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "order"))
        copy.graph.node.append(helper.make_node("Gather", ["before", "order"], ["logits"], axis=0))
        return copy

    fixed = forward(1)
    assert make_batch_dynamic(fixed, "cpu", threads=1, rewrite=swap) == (fixed, False)


def test_every_output_is_judged():
    """Sound logits do not excuse gradients of other examples."""

    def swap(fixed):
        copy = free(fixed)
        copy.graph.node[-1].output[0] = "before"
        copy.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "order"))
        copy.graph.node.append(helper.make_node("Gather", ["before", "order"], ["vogcore_gradient"], axis=0))
        return copy

    fixed = gradient(1)
    assert make_batch_dynamic(fixed, "cpu", threads=1, rewrite=swap) == (fixed, False)


def test_large_biases_do_not_hide_the_answer():
    """Outputs that barely depend on the input are judged by how much they differ, not by how large they are."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["s"]),
        helper.make_node("Mul", ["s", "small"], ["m"]),
        helper.make_node("Add", ["m", "large"], ["y"]),
    ]
    fixed = model(
        nodes,
        [("x", TensorProto.FLOAT, [3, 4])],
        [("y", TensorProto.FLOAT, [3, 4])],
        [("axes", np.array([0])), ("small", np.float32(1e-5)), ("large", np.float32(10))],
    )
    assert make_batch_dynamic(fixed, "cpu", threads=1, rewrite=free) == (fixed, False)


def test_dynamic_model_is_handed_back_unjudged():
    dynamic = forward("N")
    result, free_batch = make_batch_dynamic(dynamic, "cpu", rewrite=lambda given: given)
    assert result is dynamic
    assert free_batch


def test_no_rewriting_keeps_the_model():
    fixed = forward(2)
    assert make_batch_dynamic(fixed, "cpu", rewrite=lambda given: None) == (fixed, False)


def test_rewriting_that_does_not_load_is_dropped():
    def spoil(fixed):
        copy = free(fixed)
        copy.graph.node[0].op_type = "Frobnicate"
        return copy

    fixed = forward(2)
    assert make_batch_dynamic(fixed, "cpu", threads=1, rewrite=spoil) == (fixed, False)


def test_original_that_does_not_load_is_an_error():
    fixed = forward(2)
    fixed.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(ModelError, match=r"^old.onnx: .*Frobnicate"):
        make_batch_dynamic(fixed, "cpu", threads=1, where="old.onnx", rewrite=free)


def test_the_default_rewriting_is_the_graph_layer_s(monkeypatch):
    import vogcore.graph

    monkeypatch.setattr(vogcore.graph, "dynamic_batch", free)
    assert make_batch_dynamic(forward(2), "cpu", threads=1)[1]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 23), fixed=st.sampled_from(["N", 1, 4]))
def test_a_block_of_any_size_runs_at_a_fixed_batch(n, fixed):
    x, target = examples(n)
    for got, reference in zip(_session(fixed).run(x, target), expected(x, target)):
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got, reference, rtol=2e-5, atol=2e-6)


_CACHE: dict[object, GradientSession] = {}


def _session(batch):
    if batch not in _CACHE:
        _CACHE[batch] = GradientSession(gradient(batch), **CPU)
    return _CACHE[batch]


@pytest.mark.parametrize(("fixed", "sizes"), [("N", [10]), (3, [3, 3, 3, 3]), (4, [4, 4, 4]), (10, [10])])
def test_sizes_of_the_runs(monkeypatch, fixed, sizes):
    session = GradientSession(gradient(fixed), **CPU)
    seen = []
    run = session._session.run
    monkeypatch.setattr(session._session, "run", lambda o, feeds: seen.append(len(feeds["x"])) or run(o, feeds))
    session.run(*examples(10))
    assert seen == sizes
