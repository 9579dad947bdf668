"""Walks a graph in order and computes every value with torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from benchmarks.zoo.interpreter import elementwise, layers, shapes
from benchmarks.zoo.interpreter.node import Node

__all__ = ["Interpreter", "logits_and_gradient"]

OPERATORS = {**elementwise.OPERATORS, **layers.OPERATORS, **shapes.OPERATORS}


class Interpreter:
    """Runs a model; floating-point values are float64, whatever the model says.

    Args:
        model: the model, at any opset.
        cut: names of values that are taken from the feeds even though a node computes them.
    """

    def __init__(self, model: onnx.ModelProto, cut: Sequence[str] = ()) -> None:
        self.graph, self.cut = model.graph, set(cut)
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))

    def run(self, feeds: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, torch.Tensor]:
        """All values of the graph by name. A feed that is a tensor takes part in torch's graph of gradients."""
        values = {tensor.name: _tensor(numpy_helper.to_array(tensor)) for tensor in self.graph.initializer}
        values |= {name: feed if isinstance(feed, torch.Tensor) else _tensor(feed) for name, feed in feeds.items()}
        for proto in self.graph.node:
            if self.cut.issuperset(proto.output):
                continue
            node = Node(proto, [values[name] if name else None for name in proto.input], self.opset)
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


def logits_and_gradient(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], wrt: str, logits: str, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and the gradient of the ``target`` logits with respect to ``wrt``, in float64.

    ``wrt`` is an input, or a value inside the graph.
    """
    plain = Interpreter(model).run(feeds) if wrt not in feeds else feeds
    source = torch.as_tensor(plain[wrt]).detach().double().requires_grad_()
    values = Interpreter(model, [wrt]).run({**feeds, wrt: source})
    scores = values[logits].flatten(1)
    chosen = scores.gather(1, torch.from_numpy(target)[:, None])
    (gradient,) = torch.autograd.grad(chosen.sum(), source)
    return scores.detach().numpy(), gradient.numpy()


def _tensor(array: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array))  # a copy that torch may write to
    return tensor.double() if tensor.is_floating_point() else tensor
