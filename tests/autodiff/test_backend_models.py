"""The small models in onnx's own backend test data, each against central differences in float64.

All of ``pytorch-converted``, ``pytorch-operator`` and ``simple``; the table says why not, for those that have no
gradient. Weights that hold one number only are replaced by random ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from vogcore.autodiff import vjp_model
from vogcore.errors import VogcoreError
from vogcore.graph.prepare import prepare

ROOT = Path(onnx.__file__).parent / "backend" / "test" / "data"
MODELS = {
    f"{folder}/{path.parent.name.removeprefix('test_')}": path
    for folder in ("pytorch-converted", "pytorch-operator", "simple")
    for path in sorted((ROOT / folder).glob("*/model.onnx"))
}

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
INTEGER_IN, INTEGER_OUT, TEXT = "no floating-point input", "no floating-point output", "text"
FLAT = "piecewise constant"
TRAINING = "Gradient, an operator of ai.onnx.preview.training that asks for a derivative itself"

WITHOUT_GRADIENT = {
    "pytorch-converted/Embedding": INTEGER_IN,
    "pytorch-converted/Embedding_sparse": INTEGER_IN,
    "pytorch-operator/operator_non_float_params": INTEGER_IN,
    "simple/gradient_of_add": TRAINING,
    "simple/gradient_of_add_and_mul": TRAINING,
    "simple/sequence_model6": INTEGER_OUT,
    "simple/sequence_model8": INTEGER_OUT,
    "simple/sign_model": FLAT,
    "simple/strnorm_model_monday_casesensintive_lower": TEXT,
    "simple/strnorm_model_monday_casesensintive_nochangecase": TEXT,
    "simple/strnorm_model_monday_casesensintive_upper": TEXT,
    "simple/strnorm_model_monday_empty_output": TEXT,
    "simple/strnorm_model_monday_insensintive_upper_twodim": TEXT,
    "simple/strnorm_model_nostopwords_nochangecase": TEXT,
}
SMALLER = {
    # The sizes in the files say no more than these, and take the reference evaluator minutes.
    "pytorch-converted/MaxPool1d_stride_padding_dilation": [1, 1, 2100],
    "pytorch-converted/MaxPool2d_stride_padding_dilation": [1, 1, 590, 770],
    "pytorch-operator/operator_conv": [2, 16, 12, 11],
    "pytorch-operator/operator_maxpool": [2, 3, 50],
}
STEP = 1e-6


def randomised(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Random numbers for weights that hold one number only, from which any error could hide."""
    for tensor in model.graph.initializer:
        content = numpy_helper.to_array(tensor)
        if tensor.data_type in FLOATS and content.size > 1 and np.all(content == content.flat[0]):
            content = rng.uniform(0.2, 1.8, content.shape).astype(content.dtype)  # it may be a variance
            tensor.CopyFrom(numpy_helper.from_array(content, tensor.name))
    return model


def double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 in the place of every floating-point type."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    tensors = [*graph.initializer]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in FLOATS:
                attribute.i = TensorProto.DOUBLE
            if attribute.HasField("t"):
                tensors.append(attribute.t)
    for tensor in tensors:
        if tensor.data_type in FLOATS:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type in FLOATS:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def shrunk(model: onnx.ModelProto, sizes: list[int]) -> onnx.ModelProto:
    del model.graph.value_info[:], model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
        dim.dim_value = size
    return onnx.shape_inference.infer_shapes(model)


def examples(path: Path, model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Values for the inputs: random numbers for floating-point ones, the stored ones (shapes, mostly) for others."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    feeds: dict[str, np.ndarray] = {}
    for position, value in enumerate(v for v in model.graph.input if v.name not in fixed):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type in FLOATS:
            feeds[value.name] = np.asarray(rng.uniform(0.2, 1.8, sizes))
        else:
            stored = onnx.load_tensor(path.parent / "test_data_set_0" / f"input_{position}.pb")
            feeds[value.name] = numpy_helper.to_array(stored)
    return feeds


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITHOUT_GRADIENT])
def test_gradient_agrees_with_central_differences(name: str) -> None:
    rng = np.random.default_rng(sum(name.encode()))
    stored = onnx.load(MODELS[name])
    if name in SMALLER:
        stored = shrunk(stored, SMALLER[name])
    model = randomised(stored, rng)
    feeds = examples(MODELS[name], model, rng)
    # The reference evaluator has few operators in the form of opset 6: it gets the forward graph as prepared.
    prepared = double(ir.to_proto(prepare(model)))
    forward = evaluator(prepared)
    for output in (value.name for value in model.graph.output):
        at = [value.name for value in prepared.graph.output].index(output)
        reached = [n for n, a in feeds.items() if a.dtype == np.float64 and _depends(forward, feeds, n, at, rng)]
        if not reached:
            continue
        gradient = vjp_model(model, reached, output)
        onnx.checker.check_model(gradient)
        directions = {n: rng.normal(size=feeds[n].shape) for n in reached}
        plus = forward.run(None, {**feeds, **{n: feeds[n] + STEP * d for n, d in directions.items()}})[at]
        minus = forward.run(None, {**feeds, **{n: feeds[n] - STEP * d for n, d in directions.items()}})[at]
        cotangent = rng.normal(size=np.shape(plus))
        wanted = float(np.sum(cotangent * (plus - minus)) / (2 * STEP))
        value, *products = evaluator(double(gradient)).run(None, {**feeds, "vogcore_cotangent": cotangent})
        np.testing.assert_allclose(value, forward.run(None, feeds)[at], rtol=1e-12, atol=1e-12)
        parts = [product * directions[n] for n, product in zip(reached, products, strict=True)]
        scale = sum(float(np.abs(part).sum()) for part in parts)
        assert sum(float(part.sum()) for part in parts) == pytest.approx(wanted, rel=1e-5, abs=1e-6 * max(scale, 1e-3))


def _depends(
    forward: ReferenceEvaluator, feeds: dict[str, np.ndarray], name: str, at: int, rng: np.random.Generator
) -> bool:
    """Does output number ``at`` change with this input?"""
    moved = {**feeds, name: feeds[name] + 1e-3 * rng.normal(size=feeds[name].shape)}
    return not np.array_equal(forward.run(None, feeds)[at], forward.run(None, moved)[at])


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITHOUT_GRADIENT])
def test_prepared_model_computes_the_stored_outputs(name: str) -> None:
    """Raising the opset and the other passes change no number."""
    folder = MODELS[name].parent / "test_data_set_0"
    stored = onnx.load(MODELS[name])
    prepared = ir.to_proto(prepare(stored))
    feeds = {
        value.name: numpy_helper.to_array(onnx.load_tensor(folder / f"input_{position}.pb"))
        for position, value in enumerate(prepared.graph.input)
    }
    for position, got in enumerate(session(prepared).run(None, feeds)):
        wanted = numpy_helper.to_array(onnx.load_tensor(folder / f"output_{position}.pb"))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_the_others_have_no_gradient_and_say_so(name: str) -> None:
    """The reason in the table is the one in the model, and there is an error, not a zero."""
    model = onnx.load(MODELS[name])
    fixed = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in fixed]
    kinds_in = {value.type.tensor_type.elem_type for value in inputs}
    kinds_out = {value.type.tensor_type.elem_type for value in model.graph.output}
    reason = WITHOUT_GRADIENT[name]
    assert {
        INTEGER_IN: not kinds_in & set(FLOATS),
        INTEGER_OUT: not kinds_out & set(FLOATS),
        TEXT: TensorProto.STRING in kinds_in,
        FLAT: {node.op_type for node in model.graph.node} == {"Sign"},
        TRAINING: "Gradient" in {node.op_type for node in model.graph.node},
    }[reason]
    with pytest.raises(VogcoreError):
        vjp_model(model, [inputs[0].name], model.graph.output[-1].name)


def test_the_table_names_models_that_exist() -> None:
    assert set(WITHOUT_GRADIENT) | set(SMALLER) <= set(MODELS)
    assert len(MODELS) >= 140
