"""Random small graphs drawn from the whole table of cases, against central differences in float64.

Every case is an operator with a point at which it can be differentiated. A node of a random graph is a case moved a
little: its inputs are those of the case plus 0.01 tanh of values that the graph computed before, brought to the right
size by a random matrix, and its output counts as a hundred times the distance to the output of the case. So any case
can follow any other, kinks and the ends of domains stay where they were, and no value grows or dies out.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, helper, numpy_helper

from tests.autodiff.cases import CASES, Case
from tests.autodiff.reference import evaluator
from tests.autodiff.test_rules import directional_difference
from tests.graph.models import DOUBLE, value
from vogcore.autodiff import vjp_model
from vogcore.autodiff.registry import RULES

NEAR = 0.01


@functools.cache
def output_of(position: int) -> np.ndarray | None:
    """First output of a case at its own point; None where it does not fit into a chain."""
    case = CASES[position]
    model = case.model()
    subgraphs = any(
        a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for n in model.graph.node for a in n.attribute
    )
    if subgraphs or model.functions or len(model.opset_import) > 1 or not case.wrt:
        return None
    result = evaluator(model).run(None, {f"in{i}": case.inputs[i] for i in case.wrt})[0]
    fits = isinstance(result, np.ndarray) and result.dtype == np.float64 and result.size and np.isfinite(result).all()
    return result if fits else None


def by_operator(opset: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for position, case in enumerate(CASES):
        if case.opset == opset and case.op in RULES:
            found.setdefault(case.op, []).append(position)
    return found


TABLES = {opset: by_operator(opset) for opset in sorted({case.opset for case in CASES})}
NEWEST = [opset for opset in TABLES if opset >= 18]
OLD = [opset for opset in TABLES if 9 <= opset < 18 and len(TABLES[opset]) > 1]


class Chain:
    """A graph that grows case by case."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.sizes: dict[str, int] = {}
        """Number of elements of the values that later nodes may read."""
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def constant(self, array: np.ndarray) -> str:
        name = self.name("c")
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str) -> str:
        name = self.name(op)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name))
        return name

    def near(self, source: str, point: np.ndarray) -> str:
        """``point`` plus a little of ``source``."""
        matrix = self.rng.normal(size=(self.sizes[source], point.size)) / max(self.sizes[source], 1) ** 0.5
        flat = self.add("Reshape", source, self.constant(np.asarray([1, -1])))
        mixed = self.add("Tanh", self.add("MatMul", flat, self.constant(matrix)))
        shaped = self.add("Reshape", mixed, self.constant(np.asarray(point.shape, np.int64)))
        return self.add("Add", self.add("Mul", shaped, self.constant(np.asarray(NEAR))), self.constant(point))

    def append(self, case: Case, at_point: np.ndarray, sources: list[str]) -> None:
        graph = case.model().graph
        names = {"": ""}
        for tensor in graph.initializer:
            names[tensor.name] = self.constant(numpy_helper.to_array(tensor))
        for index, source in zip(case.wrt, sources, strict=True):
            names[f"in{index}"] = self.near(source, np.asarray(case.inputs[index]))
        for original in graph.node:
            node = onnx.NodeProto.FromString(original.SerializeToString())
            node.name = self.name(node.op_type)
            for output in node.output:
                names.setdefault(output, self.name(output))
            node.input[:] = [names[name] for name in original.input]
            node.output[:] = [names[name] for name in original.output]
            self.nodes.append(node)
        change = self.add("Sub", names[graph.output[0].name], self.constant(at_point))
        result = self.add("Mul", change, self.constant(np.asarray(1 / NEAR)))
        self.sizes[result] = at_point.size


@st.composite
def chains(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, np.ndarray], list[str]]:
    """A model of two inputs and 2 to 5 cases, values for its inputs, and the names of the cases."""
    opset = draw(st.one_of(st.just(18), st.just(18), st.sampled_from(NEWEST), st.sampled_from(OLD)))
    chain = Chain(np.random.default_rng(draw(st.integers(0, 2**16))))
    feeds = {name: chain.rng.normal(size=draw(st.sampled_from([(3,), (2, 2), (1, 4)]))) for name in ("x", "y")}
    chain.sizes = {name: array.size for name, array in feeds.items()}
    drawn = []
    for _ in range(draw(st.integers(2, 5))):
        position = draw(st.sampled_from(TABLES[opset][draw(st.sampled_from(sorted(TABLES[opset])))]))
        at_point = output_of(position)
        if at_point is None:
            continue
        names = st.sampled_from(sorted(chain.sizes))
        chain.append(CASES[position], at_point, [draw(names) for _ in CASES[position].wrt])
        drawn.append(CASES[position].id)
    # What no node reads joins the output, so that none is drawn in vain.
    read = {name for node in chain.nodes for name in node.input}
    total = None
    for name in [name for name in chain.sizes if name not in read] or ["x"]:
        ones = chain.constant(chain.rng.normal(size=(chain.sizes[name], 2)))
        part = chain.add("MatMul", chain.add("Reshape", name, chain.constant(np.asarray([1, -1]))), ones)
        total = part if total is None else chain.add("Add", total, part)
    assert total is not None
    sizes = {name: [None] * a.ndim if draw(st.booleans()) else list(a.shape) for name, a in feeds.items()}
    graph = helper.make_graph(
        chain.nodes,
        "random",
        [value(name, sizes[name], DOUBLE) for name in feeds],
        [value(total, [1, 2], DOUBLE)],
        chain.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return model, feeds, drawn


@settings(
    max_examples=int(os.environ.get("VOGCORE_FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(chains())
def test_graph_drawn_from_the_table_agrees_with_central_differences(
    drawn: tuple[onnx.ModelProto, dict[str, np.ndarray], list[str]],
) -> None:
    model, feeds, _ = drawn
    read = {name for node in model.graph.node for name in node.input}
    names = [name for name in feeds if name in read]
    gradient = vjp_model(model, names)
    onnx.checker.check_model(gradient)
    rng = np.random.default_rng(1)
    directions, cotangent, expected = directional_difference(model, feeds, names, rng)
    results = evaluator(gradient).run(None, {**feeds, "vogcore_cotangent": cotangent})[1:]
    products = [result * directions[name] for name, result in zip(names, results, strict=True)]
    assert [result.shape for result in results] == [feeds[name].shape for name in names]
    scale = sum(float(np.abs(product).sum()) for product in products)
    got = sum(float(product.sum()) for product in products)
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-5 * max(scale, 0.1))


def test_most_of_the_table_can_be_drawn() -> None:
    """Nearly every operator with a rule has a case that fits into a chain."""
    fits = {case.op for position, case in enumerate(CASES) if case.op in RULES and output_of(position) is not None}
    assert len(fits) >= 0.9 * len(RULES)
