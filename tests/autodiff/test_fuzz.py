"""Random small graphs of smooth operators against central differences in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.autodiff.reference import evaluator
from tests.autodiff.test_rules import directional_difference
from tests.graph.models import DOUBLE, value
from vogcore.autodiff import vjp_model

SMOOTH = ("Tanh", "Sigmoid", "Softplus", "Sin", "Cos", "Atan", "Asinh", "Erf", "Softsign", "Mish", "Neg", "Identity")
BINARY = ("Add", "Sub", "Mul", "Div", "Sum", "Mean")


class Builder:
    """A graph that grows node by node; every value stays of moderate size, so that differences are accurate."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes) -> str:
        name = f"v{len(self.nodes)}_{op}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.shapes[name] = shape
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def pick(self) -> str:
        return self.draw(st.sampled_from(sorted(self.shapes)))

    # -- kinds of nodes ------------------------------------------------------------------------------------------

    def unary(self) -> None:
        x = self.pick()
        self.add(self.draw(st.sampled_from(SMOOTH)), [x], self.shapes[x])

    def softmax(self) -> None:
        x = self.pick()
        axis = self.draw(st.integers(-len(self.shapes[x]), len(self.shapes[x]) - 1))
        self.add(self.draw(st.sampled_from(("Softmax", "LogSoftmax"))), [x], self.shapes[x], axis=axis)

    def binary(self) -> None:
        x = self.pick()
        partners = [y for y in sorted(self.shapes) if _broadcast(self.shapes[x], self.shapes[y]) is not None]
        y = self.draw(st.sampled_from(partners))
        shape = _broadcast(self.shapes[x], self.shapes[y])
        assert shape is not None
        op = self.draw(st.sampled_from(BINARY))
        if op == "Div":  # a divisor in (1/2, 3/2)
            y = self.add("Sigmoid", [y], self.shapes[y])
            y = self.add("Add", [y, self.constant(np.asarray(0.5))], self.shapes[y])
        self.add(op, [x, y], shape)

    def matmul(self) -> None:
        x = self.pick()
        shape = self.shapes[x]
        columns = self.draw(st.integers(1, 4))
        weight = self.constant(self.rng.normal(size=(shape[-1], columns)) / shape[-1] ** 0.5)
        self.add("MatMul", [x, weight], (*shape[:-1], columns))

    def reduce(self) -> None:
        x = self.pick()
        shape = self.shapes[x]
        axis, keep = self.draw(st.integers(0, len(shape) - 1)), self.draw(st.booleans()) or len(shape) == 1
        left = tuple(1 if a == axis else s for a, s in enumerate(shape) if keep or a != axis)
        op = self.draw(st.sampled_from(("ReduceSum", "ReduceMean", "ReduceLogSumExp", "ReduceSumSquare")))
        self.add(op, [x, self.constant(np.asarray([axis]))], left, keepdims=int(keep))

    def transpose(self) -> None:
        x = self.pick()
        order = self.draw(st.permutations(range(len(self.shapes[x]))))
        self.add("Transpose", [x], tuple(self.shapes[x][a] for a in order), perm=list(order))

    def concat(self) -> None:
        x = self.pick()
        shape = self.shapes[x]
        axis = self.draw(st.integers(0, len(shape) - 1))
        ranks = [y for y in sorted(self.shapes) if len(self.shapes[y]) == len(shape)]
        fits = [y for y in ranks if _without(self.shapes[y], axis) == _without(shape, axis)]
        y = self.draw(st.sampled_from(fits))
        longer = (*shape[:axis], shape[axis] + self.shapes[y][axis], *shape[axis + 1 :])
        self.add("Concat", [x, y], longer, axis=axis)

    def slice(self) -> None:
        x = self.pick()
        shape = self.shapes[x]
        axis = self.draw(st.integers(0, len(shape) - 1))
        start, step = self.draw(st.integers(0, shape[axis] - 1)), self.draw(st.sampled_from((1, 2, -1)))
        stop = shape[axis] if step > 0 else -shape[axis] - 1
        size = len(range(shape[axis])[start : stop if step > 0 else None : step])
        numbers = [self.constant(np.asarray([n])) for n in (start, stop, axis, step)]
        self.add("Slice", [x, *numbers], (*shape[:axis], size, *shape[axis + 1 :]))

    def gather(self) -> None:
        x = self.pick()
        shape = self.shapes[x]
        axis = self.draw(st.integers(0, len(shape) - 1))
        rows = self.draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), min_size=1, max_size=3))
        taken = (*shape[:axis], len(rows), *shape[axis + 1 :])
        self.add("Gather", [x, self.constant(np.asarray(rows))], taken, axis=axis)

    def flatten(self) -> None:
        x = self.pick()
        axis = self.draw(st.integers(0, len(self.shapes[x])))
        shape = self.shapes[x]
        self.add("Flatten", [x], (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))), axis=axis)


KINDS = ("unary", "unary", "softmax", "binary", "binary", "matmul", "reduce", "transpose", "concat", "slice", "gather",
         "flatten")  # fmt: skip


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], -1, *shape[axis + 1 :])


@st.composite
def graphs(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model with inputs x and y, 3 to 8 nodes drawn, and values for the inputs."""
    builder = Builder(draw)
    size = st.integers(1, 4)
    for name in ("x", "y"):
        shape = draw(st.lists(size, min_size=1, max_size=3)) if name == "x" or draw(st.booleans()) else None
        builder.shapes[name] = tuple(shape) if shape else builder.shapes["x"]
    feeds = {name: builder.rng.normal(size=shape) for name, shape in builder.shapes.items()}
    for _ in range(draw(st.integers(3, 8))):
        getattr(builder, draw(st.sampled_from(KINDS)))()
    last = builder.nodes[-1].output[0]
    # Everything that is left over joins the output, so that no node is drawn in vain.
    used = {name for node in builder.nodes for name in node.input}
    loose = [name for name in builder.shapes if name not in used and name != last]
    total = builder.add("Identity", [last], builder.shapes[last])
    for name in loose:
        part = builder.add("ReduceSum", [name], (), keepdims=0)
        total = builder.add("Add", [total, part], builder.shapes[last])
    dynamic = draw(st.booleans())
    inputs = [value(n, [None] * a.ndim if dynamic else list(a.shape), DOUBLE) for n, a in feeds.items()]
    outputs = [value(total, [None] * len(builder.shapes[total]), DOUBLE)]
    graph = helper.make_graph(builder.nodes, "random", inputs, outputs, builder.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model, feeds


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(graphs())
def test_random_graph_agrees_with_central_differences(case: tuple[onnx.ModelProto, dict[str, np.ndarray]]) -> None:
    model, feeds = case
    gradient = vjp_model(model, list(feeds))
    onnx.checker.check_model(gradient)
    rng = np.random.default_rng(1)
    directions, cotangent, expected = directional_difference(model, feeds, list(feeds), rng)
    results = evaluator(gradient).run(None, {**feeds, "vogcore_cotangent": cotangent})[1:]
    products = [result * directions[name] for name, result in zip(feeds, results, strict=True)]
    assert [result.shape for result in results] == [array.shape for array in feeds.values()]
    scale = sum(float(np.abs(product).sum()) for product in products)
    got = sum(float(product.sum()) for product in products)
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6 * max(scale, 1.0))
