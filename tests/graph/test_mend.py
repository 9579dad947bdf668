"""What exporters write that is not ONNX."""

from __future__ import annotations

from math import erfc

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper

from tests.autodiff.sessions import session
from tests.graph.models import node
from vogcore.autodiff import vjp_model
from vogcore.errors import ModelError
from vogcore.graph import load_model
from vogcore.graph.mend import mend

X = np.linspace(-3, 3, 13)


def model(*nodes: onnx.NodeProto, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, ["n"])],
        [helper.make_tensor_value_info("y", dtype, ["n"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("as_bytes", [True, False])
def test_erfc_and_its_gradient(as_bytes: bool) -> None:
    forward = model(node("Erfc", "x", "e"), node("Mul", "e x", "y"))
    graph = vjp_model(forward.SerializeToString() if as_bytes else forward, ["x"])
    feeds = {"x": X.astype(np.float32), "vogcore_cotangent": np.ones(13, np.float32)}
    y, gradient = session(graph).run(None, feeds)
    values = np.array([erfc(x) for x in X])
    np.testing.assert_allclose(y, values * X, atol=1e-6)
    np.testing.assert_allclose(gradient, values - X * 2 / np.sqrt(np.pi) * np.exp(-(X**2)), atol=1e-6)


def test_erfc_in_a_branch_and_in_double() -> None:
    branch = helper.make_graph(
        [node("Erfc", "x", "z")], "b", [], [helper.make_tensor_value_info("z", TensorProto.DOUBLE, ["n"])]
    )
    choose = node("If", "c", "y", then_branch=branch, else_branch=branch)
    always = node("Constant", "", "c", value=helper.make_tensor("t", TensorProto.BOOL, [], [True]))
    del always.input[:]
    mended = mend(model(always, choose, dtype=TensorProto.DOUBLE))
    onnx.checker.check_model(mended)
    (y,) = onnx.reference.ReferenceEvaluator(mended).run(None, {"x": X})
    np.testing.assert_allclose(y, [erfc(x) for x in X], atol=1e-6)  # onnx computes erf in float32


def test_a_model_without_it_is_not_copied() -> None:
    forward = model(node("Erf", "x", "y"))
    assert mend(forward) is forward
    assert load_model(forward) is forward


def test_other_unknown_operators_are_still_refused() -> None:
    with pytest.raises(ModelError, match="No Op registered for Nonsense"):
        load_model(model(node("Nonsense", "x", "y")).SerializeToString())
