"""An ONNX graph as a float64 torch computation: the reference for models whose framework is not at hand.

It shares no code with vogcore, takes each operator as the specification of the model's own opset has it, and leaves
the differentiation to torch.
"""

from __future__ import annotations

from benchmarks.zoo.interpreter.interpreter import Interpreter, gradient_graph_error, logits_and_gradient

__all__ = ["Interpreter", "gradient_graph_error", "logits_and_gradient"]
