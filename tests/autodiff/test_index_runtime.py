"""Gradient graphs of operators that move, pick, resize or combine numbers: ONNX Runtime in float32 beside float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.autodiff.cases import (
    bounds,
    conv_transpose,
    einsum,
    index,
    layout,
    pool_norm,
    reduce,
    resize,
    sampling,
    shape,
)  # fmt: skip
from tests.autodiff.cases.case import Case
from tests.autodiff.reference import evaluator
from tests.autodiff.sessions import session
from vogcore.autodiff import vjp_model

FAMILIES = (bounds, conv_transpose, einsum, index, layout, pool_norm, reduce, sampling, shape)
# The order of an unsorted TopK is the runtime's own.
CASES = [case for family in FAMILIES for case in family.CASES if case.attributes.get("sorted", 1)]


def single(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float32 in the place of float64."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_onnx_runtime_agrees_in_single_precision(case: Case) -> None:
    names = [f"in{i}" for i in case.wrt]
    feeds = {f"in{i}": np.asarray(case.inputs[i]) for i in case.wrt}
    rng = np.random.default_rng(3)
    double = case.model()
    cotangent = rng.normal(size=np.shape(evaluator(double).run(None, feeds)[0]))
    wanted = evaluator(vjp_model(double, names)).run(None, {**feeds, "vogcore_cotangent": cotangent})
    gradient = vjp_model(single(double), names)
    onnx.checker.check_model(gradient)
    narrow = {name: np.asarray(array, np.float32) for name, array in {**feeds, "vogcore_cotangent": cotangent}.items()}
    for got, value in zip(session(gradient).run(None, narrow), wanted, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(value).max(initial=0))))


@pytest.mark.parametrize("case", resize.CASES, ids=lambda case: case.id)
def test_resampling_and_its_gradient_are_adjoint_in_onnx_runtime(case: Case) -> None:
    """<c, R d> = <Rᵀ c, d> for R as ONNX Runtime has it, which is not the reference evaluator's at every rounding."""
    rng = np.random.default_rng(3)
    model = single(case.model())
    zero = np.zeros_like(case.inputs[0], np.float32)
    direction = rng.normal(size=zero.shape).astype(np.float32)
    forward = session(model)
    change = forward.run(None, {"in0": direction})[0] - forward.run(None, {"in0": zero})[0]
    cotangent = rng.normal(size=change.shape).astype(np.float32)
    _value, gradient = session(vjp_model(model, ["in0"])).run(None, {"in0": direction, "vogcore_cotangent": cotangent})
    assert gradient.shape == zero.shape
    scale = float(np.abs(gradient * direction).sum())
    got, wanted = float((gradient * direction).sum()), float((cotangent * change).sum())
    assert got == pytest.approx(wanted, rel=1e-5, abs=1e-5 * scale)
