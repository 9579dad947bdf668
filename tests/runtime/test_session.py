from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from vogcore.errors import DataError, ModelError, SettingsError
from vogcore.runtime import ForwardSession, GradientSession, Session, _serialise, _threads

from .models import CLASSES, FEATURES, examples, expected, forward, gradient, model

CPU = {"provider": "cpu", "threads": 1}


def _reshape_to_3x4():
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="fold")]
    return model(
        nodes,
        [("x", TensorProto.FLOAT, ["N"])],
        [("y", TensorProto.FLOAT, [3, 4])],
        [("shape", np.array([3, 4]))],
    )


def _huge():
    nodes = [helper.make_node("Expand", ["x", "shape"], ["y"])]
    size = np.array([1 << 20, 1 << 20, 1])
    return model(nodes, [("x", TensorProto.FLOAT, ["N"])], [("y", TensorProto.FLOAT, None)], [("shape", size)])


def test_session_describes_the_model():
    session = Session(gradient(metadata={"vogcore.of": "logit"}), **CPU)
    assert session.input_names == ["x", "vogcore_target"]
    assert session.input_shapes == {"x": (None, FEATURES), "vogcore_target": (None,)}
    assert session.input_dtypes == {"x": np.float32, "vogcore_target": np.int64}
    assert session.output_names == ["logits", "vogcore_gradient"]
    assert session.output_shapes["logits"] == (None, CLASSES)
    assert session.metadata["vogcore.of"] == "logit"
    assert (session.provider.name, session.threads) == ("cpu", 1)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_session_runs_a_model_and_its_bytes(as_bytes):
    x, target = examples(5)
    built = forward()
    session = Session(built.SerializeToString() if as_bytes else built, **CPU)
    (logits,) = session.run(["logits"], {"x": x})
    np.testing.assert_allclose(logits, expected(x, target)[0], rtol=1e-5, atol=1e-6)


def test_session_options(monkeypatch):
    seen = []
    real = onnxruntime.InferenceSession

    def spy(data, options, **kwargs):
        seen.append((options, kwargs))
        return real(data, options, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    Session(forward(), provider="cpu", threads=2)
    options, kwargs = seen[0]
    assert options.intra_op_num_threads == 2
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.enable_mem_pattern is False
    assert options.use_deterministic_compute is True
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert kwargs["enable_fallback"] == 0


def test_default_threads_are_the_usable_cpus(monkeypatch):
    monkeypatch.setattr("vogcore.runtime._ort_session.usable_cpus", lambda: 3)
    assert Session(forward(), provider="cpu").threads == 3


@pytest.mark.parametrize(
    ("quota", "allowed", "count"),
    [("max 100000", 8, 8), ("250000 100000", 8, 2), ("50000 100000", 8, 1), ("800000 100000", 4, 4), (None, 4, 4)],
)
def test_usable_cpus(monkeypatch, tmp_path, quota, allowed, count):
    monkeypatch.setattr(_threads.os, "sched_getaffinity", lambda pid: set(range(allowed)), raising=False)
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(quota + "\n")
    assert _threads.usable_cpus(str(path)) == count


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_must_be_positive(threads):
    with pytest.raises(SettingsError, match=f"number of threads is {threads}"):
        Session(forward(), provider="cpu", threads=threads)


@pytest.mark.parametrize("data", [b"", b"not an ONNX model" * 20])
def test_bytes_that_are_no_model(data):
    with pytest.raises(ModelError, match=r"^run3/ckpt.onnx: ONNX Runtime cannot load the model \(.*\)\.$"):
        Session(data, where="run3/ckpt.onnx", **CPU)


def test_unknown_operator_is_named():
    built = forward()
    built.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(ModelError, match="No Op registered for Frobnicate"):
        Session(built, **CPU)


def test_run_time_failure_is_one_clean_sentence(capfd):
    session = Session(_reshape_to_3x4(), where="m.onnx", **CPU)
    with pytest.raises(ModelError) as caught:
        session.run(None, {"x": np.zeros(7, np.float32)})
    message = str(caught.value)
    assert message.startswith("m.onnx: ONNX Runtime cannot run the model (Non-zero status code returned while running")
    assert "Name:'fold'" in message
    assert "Input shape:{7}, requested shape:{3,4}" in message
    assert "\n" not in message
    assert "onnxruntime_src" not in message
    assert "ONNXRuntimeError" not in message
    assert capfd.readouterr().err == "", "ONNX Runtime must not print what is raised"


def test_missing_input_is_a_model_error():
    with pytest.raises(ModelError, match="x"):
        Session(forward(), **CPU).run(None, {})


def test_out_of_memory_advises_a_smaller_batch():
    with pytest.raises(ModelError, match=r"m.onnx: memory ran out on inputs of shape x \(1,\).*smaller batch size\.$"):
        Session(_huge(), where="m.onnx", **CPU).run(None, {"x": np.zeros(1, np.float32)})


def test_weights_on_the_side_compute_the_same(monkeypatch):
    """What happens above 2 GB, with the limit lowered."""
    x, target = examples(5)
    built = gradient(metadata={"vogcore.logits": "logits"})
    before = built.SerializeToString(deterministic=True)
    monkeypatch.setattr(_serialise, "_INLINE_LIMIT", 10)
    monkeypatch.setattr(_serialise, "LARGE", 64)
    data, weights = _serialise.serialise(built, "model")
    assert set(weights) == {"w", "wt"}
    assert weights["w"].tobytes() not in data
    assert built.SerializeToString(deterministic=True) == before
    session = Session(built, **CPU)
    assert session.metadata == {"vogcore.logits": "logits"}
    results = session.run(None, {"x": x, "vogcore_target": target})
    for result, reference in zip(results, expected(x, target)):
        np.testing.assert_allclose(result, reference, rtol=1e-5, atol=1e-6)


def test_gradient_session_describes_itself():
    session = GradientSession(gradient(), where="a.onnx", **CPU)
    assert (session.input_name, session.input_shape, session.input_dtype) == ("x", (FEATURES,), np.float32)
    assert (session.n_classes, session.fixed_batch, session.provider.name) == (CLASSES, None, "cpu")
    fixed = GradientSession(gradient(3), **CPU)
    assert (fixed.input_shape, fixed.fixed_batch) == ((FEATURES,), 3)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 17), batch=st.sampled_from(["N", 1, 2, 5, 16]), seed=st.integers(0, 1000))
def test_gradients_for_any_block_and_batch(n, batch, seed):
    x, target = examples(n, seed)
    logits, grads = _gradient_session(batch).run(x, target)
    assert logits.shape == (n, CLASSES)
    assert grads.shape == x.shape
    assert logits.dtype == grads.dtype == np.float32
    for got, reference in zip((logits, grads), expected(x, target)):
        np.testing.assert_allclose(got, reference, rtol=2e-5, atol=2e-6)


_CACHE: dict[object, GradientSession] = {}


def _gradient_session(batch):
    if batch not in _CACHE:
        _CACHE[batch] = GradientSession(gradient(batch), **CPU)
    return _CACHE[batch]


def test_last_batch_is_filled_with_its_last_example(monkeypatch):
    session = GradientSession(gradient(4), **CPU)
    batches = []
    run = session._session.run
    monkeypatch.setattr(session._session, "run", lambda o, feeds: batches.append(feeds) or run(o, feeds))
    x, target = examples(6)
    session.run(x, target)
    assert [len(feeds["x"]) for feeds in batches] == [4, 4]
    np.testing.assert_array_equal(batches[1]["x"], x[[4, 5, 5, 5]])
    np.testing.assert_array_equal(batches[1]["vogcore_target"], target[[4, 5, 5, 5]])


def test_examples_are_converted_within_their_kind():
    x, target = examples(4)
    session = GradientSession(gradient(), **CPU)
    reference = session.run(x, target)
    for given_x, given_target in ((x.astype(np.float64), target.astype(np.uint8)), (x.tolist(), target.tolist())):
        for got, want in zip(session.run(given_x, given_target), reference):
            np.testing.assert_array_equal(got, want)
    assert session.run(np.full((2, FEATURES), 3, np.uint8), [0, 1])[1].dtype == np.float32


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 5), np.float32), r"takes examples of shape \(n, 6\), got an array of shape \(2, 5\)"),
        (np.zeros(6, np.float32), r"got an array of shape \(6,\)"),
        (np.zeros((2, 6, 1), np.float32), r"got an array of shape \(2, 6, 1\)"),
        (np.zeros((0, 6), np.float32), "block without examples"),
        (np.zeros((2, 6), np.complex64), "takes float32 and got complex64"),
        (np.array([["a"] * 6] * 2), "takes float32 and got <U1"),
    ],
)
def test_examples_that_do_not_fit(x, message):
    with pytest.raises(DataError, match=f"^a.onnx: .*{message}"):
        GradientSession(gradient(), where="a.onnx", **CPU).run(x, np.zeros(len(x), np.int64))
    with pytest.raises(DataError, match=f"^a.onnx: .*{message}"):
        ForwardSession(forward(), where="a.onnx", **CPU).run(x)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([0, CLASSES], rf"target {CLASSES} at position 1 .* classes 0 to {CLASSES - 1}"),
        ([-1, 0], "target -1 at position 0"),
        ([0, 1, 2], r"shape \(2,\), got int64 of shape \(3,\)"),
        ([[0], [1]], r"of shape \(2, 1\)"),
        ([0.0, 1.0], "got float64"),
    ],
)
def test_targets_that_do_not_fit(target, message):
    with pytest.raises(DataError, match=message):
        GradientSession(gradient(), **CPU).run(np.zeros((2, FEATURES), np.float32), target)


def test_dynamic_dimensions_of_an_example_are_none():
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
    ]
    session = ForwardSession(
        model(nodes, [("x", TensorProto.FLOAT, ["N", 3, "H", None])], [("logits", TensorProto.FLOAT, None)]), **CPU
    )
    assert session.input_shape == (3, None, None)
    assert session.n_classes == 3, "ONNX Runtime infers it"
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(session.run(x), x.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match=r"shape \(n, 3, any, any\)"):
        session.run(x[:, :2])


@pytest.mark.parametrize("batch", ["N", 4])
def test_forward_session(batch):
    x, target = examples(7)
    session = ForwardSession(forward(batch), **CPU)
    assert session.n_classes == CLASSES
    np.testing.assert_allclose(session.run(x), expected(x, target)[0], rtol=1e-5, atol=1e-6)


def test_float16_logits_are_widened():
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    half = model(nodes, [("x", TensorProto.FLOAT16, ["N", 2])], [("y", TensorProto.FLOAT16, ["N", 2])])
    logits = ForwardSession(half, **CPU).run(np.ones((3, 2), np.float32))
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, -np.ones((3, 2)))


def test_forward_model_is_no_gradient_graph():
    with pytest.raises(ModelError, match=r"^f.onnx: the model lacks the input vogcore_target.*vogcore.gradient_model"):
        GradientSession(forward(), where="f.onnx", **CPU)


def _with_target(nodes, inputs, outputs, metadata=None):
    target = ("vogcore_target", TensorProto.INT64, ["N"])
    grad = ("vogcore_gradient", TensorProto.FLOAT, None)
    return model(nodes, [*inputs, target], [*outputs, grad], metadata=metadata)


def test_gradient_graph_of_two_inputs_is_refused():
    nodes = [
        helper.make_node("Add", ["a", "b"], ["logits"]),
        helper.make_node("Identity", ["a"], ["vogcore_gradient"]),
    ]
    inputs = [("a", TensorProto.FLOAT, ["N", 2]), ("b", TensorProto.FLOAT, ["N", 2])]
    built = _with_target(nodes, inputs, [("logits", TensorProto.FLOAT, ["N", 2])], {"vogcore.wrt": "a"})
    with pytest.raises(ModelError, match=r"takes 2 inputs \(a, b\)"):
        GradientSession(built, **CPU)


def test_metadata_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="names the logits 'scores', and the model has the outputs logits, vogcore_"):
        GradientSession(gradient(metadata={"vogcore.logits": "scores"}), **CPU)


def test_metadata_names_the_logits():
    nodes = [
        helper.make_node("Abs", ["x"], ["features"]),
        helper.make_node("Neg", ["x"], ["scores"]),
        helper.make_node("Identity", ["x"], ["vogcore_gradient"]),
    ]
    outputs = [("features", TensorProto.FLOAT, ["N", 2]), ("scores", TensorProto.FLOAT, ["N", 2])]
    x = np.array([[1, 2], [3, 4]], np.float32)
    for metadata, want in ({"vogcore.logits": "scores"}, -x), ({}, np.abs(x)):
        built = _with_target(nodes, [("x", TensorProto.FLOAT, ["N", 2])], outputs, metadata)
        np.testing.assert_array_equal(GradientSession(built, **CPU).run(x, [0, 1])[0], want)


def test_gradient_without_the_batch_in_front_is_refused():
    nodes = [
        helper.make_node("Identity", ["x"], ["logits"]),
        helper.make_node("Transpose", ["x"], ["vogcore_gradient"]),
    ]
    built = _with_target(nodes, [("x", TensorProto.FLOAT, ["N", 3])], [("logits", TensorProto.FLOAT, ["N", 3])])
    with pytest.raises(ModelError, match=r"output vogcore_gradient has shape \(3, 2\) for 2 examples"):
        GradientSession(built, **CPU).run(np.ones((2, 3), np.float32), [0, 1])


def test_logits_of_another_rank_are_refused():
    nodes = [helper.make_node("Identity", ["x"], ["maps"])]
    shape = ["N", 3, 5]
    built = model(nodes, [("x", TensorProto.FLOAT, shape)], [("maps", TensorProto.FLOAT, shape)])
    with pytest.raises(ModelError, match=r"output maps has shape \(2, 3, 5\), logits must have shape \(n, classes\)"):
        ForwardSession(built, **CPU).run(np.ones((2, 3, 5), np.float32))


def test_gradient_with_the_batch_in_front_but_another_shape_is_refused():
    nodes = [
        helper.make_node("Identity", ["x"], ["logits"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["vogcore_gradient"]),
    ]
    built = model(
        nodes,
        [("x", TensorProto.FLOAT, ["N", 3]), ("vogcore_target", TensorProto.INT64, ["N"])],
        [("logits", TensorProto.FLOAT, ["N", 3]), ("vogcore_gradient", TensorProto.FLOAT, ["N", 1])],
        [("axes", np.array([1]))],
    )
    with pytest.raises(ModelError, match=r"the gradient has shape \(2, 1\) for examples of shape \(2, 3\)"):
        GradientSession(built, **CPU).run(np.ones((2, 3), np.float32), [0, 1])


def test_fixed_batch_output_without_a_batch_is_refused():
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["logits"], keepdims=1)]
    built = model(
        nodes,
        [("x", TensorProto.FLOAT, [4, 2])],
        [("logits", TensorProto.FLOAT, [1, 2])],
        [("axes", np.array([0]))],
    )
    for n in (4, 6):
        with pytest.raises(ModelError, match=r"output logits has shape \(1, 2\) for 4 examples"):
            ForwardSession(built, **CPU).run(np.ones((n, 2), np.float32))


@pytest.mark.parametrize(
    ("element", "shape", "message"),
    [
        (TensorProto.FLOAT, None, "declares no shape"),
        (TensorProto.BFLOAT16, ["N", 2], "a type that NumPy lacks"),
    ],
)
def test_inputs_that_cannot_be_fed(element, shape, message):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    built = model(nodes, [("x", element, shape)], [("y", TensorProto.FLOAT, None)])
    with pytest.raises(ModelError, match=message):
        ForwardSession(built, **CPU)


def test_integer_input_has_no_gradient():
    nodes = [
        helper.make_node("Cast", ["x"], ["logits"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["logits"], ["vogcore_gradient"]),
    ]
    built = _with_target(nodes, [("x", TensorProto.INT64, ["N", 2])], [("logits", TensorProto.FLOAT, ["N", 2])])
    with pytest.raises(ModelError, match="of type int64, gradients need a floating-point one"):
        GradientSession(built, **CPU)


def embedding_gradient(batch: int | str = "N", element: int = TensorProto.INT64):
    """logits = the embedding of two tokens, summed; the gradient with respect to the embedding (N, 2, 3)."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["embedded"]),
        helper.make_node("ReduceSum", ["embedded", "axes"], ["logits"], keepdims=0),
        helper.make_node("Tanh", ["embedded"], ["vogcore_gradient"]),
    ]
    return model(
        nodes,
        [("tokens", element, [batch, 2]), ("vogcore_target", TensorProto.INT64, [batch])],
        [("logits", TensorProto.FLOAT, [batch, 3]), ("vogcore_gradient", TensorProto.FLOAT, [batch, 2, 3])],
        [("table", np.arange(12, dtype=np.float32).reshape(4, 3)), ("axes", np.array([1]))],
        {"vogcore.wrt": "embedded"},
    )


@pytest.mark.parametrize("batch", ["N", 2])
def test_gradients_of_a_value_inside_have_its_shape(batch):
    session = GradientSession(embedding_gradient(batch), **CPU)
    assert (session.input_name, session.wrt) == ("tokens", "embedded")
    tokens = np.array([[0, 3], [1, 2], [3, 3]], np.int32)
    logits, gradient = session.run(tokens, [0, 1, 2])
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(logits, table[tokens].sum(axis=1))
    np.testing.assert_allclose(gradient, np.tanh(table[tokens]), rtol=1e-6)


def forward_of_bytes():
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["x"], ["logits"]),
        helper.make_node("Identity", ["x"], ["vogcore_gradient"]),
    ]
    inputs = [("pixels", TensorProto.UINT8, ["N", 2])]
    return _with_target(nodes, inputs, [("logits", TensorProto.FLOAT, ["N", 2])], {"vogcore.wrt": "x"})


def test_tokens_that_do_not_fit():
    session = GradientSession(embedding_gradient(element=TensorProto.INT32), where="a.onnx", **CPU)
    with pytest.raises(DataError, match="takes int32 and got float32, convert the examples, and leave out preproc"):
        session.run(np.zeros((1, 2), np.float32), [0])
    with pytest.raises(DataError, match=r"takes int32, which cannot hold the examples' values 0 to 4294967296"):
        session.run(np.array([[0, 1 << 32]]), [0])
    with pytest.raises(DataError, match="values -1 to 0"):
        GradientSession(forward_of_bytes(), **CPU).run(np.array([[0, -1]]), [0])
    assert session.run(np.array([[0, 3]], np.uint64), [0])[1].shape == (1, 2, 3)


def test_runs_repeat_bit_for_bit():
    x, target = examples(50)
    first = GradientSession(gradient(), provider="cpu", threads=2).run(x, target)
    second = GradientSession(gradient(), provider="cpu", threads=2).run(x, target)
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)
