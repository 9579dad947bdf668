"""Walks a graph in order and computes every value with torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from benchmarks.zoo.interpreter import elementwise, layers, shapes
from benchmarks.zoo.interpreter.node import Node

__all__ = ["Interpreter", "gradient_graph_error", "logits_and_gradient"]

OPERATORS = {**elementwise.OPERATORS, **layers.OPERATORS, **shapes.OPERATORS}


class Interpreter:
    """Runs a model; floating-point values are of one type, whatever the model says.

    Args:
        model: the model, at any opset.
        cut: names of values that are taken from the feeds even though a node computes them.
        dtype: the floating-point type.
    """

    def __init__(self, model: onnx.ModelProto, cut: Sequence[str] = (), dtype: torch.dtype = torch.float64) -> None:
        self.graph, self.cut, self.dtype = model.graph, set(cut), dtype
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))

    def run(self, feeds: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, torch.Tensor]:
        """All values of the graph by name. A feed that is a tensor takes part in torch's graph of gradients."""
        values = {tensor.name: self._tensor(numpy_helper.to_array(tensor)) for tensor in self.graph.initializer}
        values |= {name: feed if isinstance(feed, torch.Tensor) else self._tensor(feed) for name, feed in feeds.items()}
        for proto in self.graph.node:
            if self.cut.issuperset(proto.output):
                continue
            node = Node(proto, [values[name] if name else None for name in proto.input], self.opset, self.dtype)
            if node.op not in OPERATORS or proto.domain not in ("", "ai.onnx"):
                raise NotImplementedError(f"the interpreter has no {proto.domain}::{proto.op_type}")
            self.prepare(node, proto, values)
            results = OPERATORS[node.op](node)
            for name, result in zip(proto.output, results if isinstance(results, tuple | list) else (results,)):
                if name and name not in self.cut:
                    values[name] = result
        return values

    def prepare(self, node: Node, proto: onnx.NodeProto, values: dict[str, torch.Tensor]) -> None:
        """Called before a node is computed; a subclass may change the node's inputs here."""

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array))  # a copy that torch may write to
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def logits_and_gradient(
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    wrt: str,
    logits: str,
    target: np.ndarray,
    dtype: torch.dtype = torch.float64,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and the gradient of the ``target`` logits with respect to ``wrt``.

    ``wrt`` is an input, or a value inside the graph.
    """
    values, gradient = _differentiated(model, feeds, wrt, logits, target, dtype)
    return values[logits].detach().flatten(1).numpy(), gradient.numpy()


def gradient_graph_error(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], wrt: str, logits: str, gradient: str, target: np.ndarray
) -> np.ndarray:
    """Relative error of each example's gradient as the gradient graph computes it, in float64.

    One pass over the gradient graph gives its own gradient, and torch's through the same forward nodes. Rounding, and
    with it the side of a kink on which a unit lies, is the same in both: what is left are errors of the formulas, and
    the constants that a float32 model holds.
    """
    values, expected = _differentiated(model, feeds, wrt, logits, target)
    axes = list(range(1, expected.ndim))
    difference, size = (values[gradient].detach() - expected).square().sum(axes), expected.square().sum(axes)
    return torch.where(difference == 0, difference, difference / size).sqrt().numpy()


def _differentiated(
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    wrt: str,
    logits: str,
    target: np.ndarray,
    dtype: torch.dtype = torch.float64,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """All values, and the gradient of the chosen logits by torch."""
    if wrt in feeds:
        start = torch.from_numpy(feeds[wrt])
    else:
        with torch.no_grad():
            start = Interpreter(model, dtype=dtype).run(feeds)[wrt]
    source = start.detach().to(dtype).requires_grad_()
    values = Interpreter(model, [wrt], dtype).run({**feeds, wrt: source})
    chosen = values[logits].flatten(1).gather(1, torch.from_numpy(target)[:, None])
    (gradient,) = torch.autograd.grad(chosen.sum(), source)
    return values, gradient
