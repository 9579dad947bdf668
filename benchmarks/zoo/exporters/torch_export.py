"""torch networks through the two exporters of torch.onnx; the truth is torch's autograd in float64."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.zoo.entry import Entry, Exported
from benchmarks.zoo.models.spec import Network

__all__ = ["embedding_output", "entry", "export_dynamo", "export_legacy", "reference"]

HALF_BOUND, HALF_WHY = 2e-2, "float16 arithmetic"


def entry(network: Network, exporter: str, opset: int, framework: str = "torch") -> Entry:
    """The entry of a network for one of the two exporters."""
    looser = {"bound": HALF_BOUND, "why": HALF_WHY} if network.half else {}
    return Entry(network.name, framework, exporter, opset, lambda: _build(network, exporter, opset), **looser)


def _build(network: Network, exporter: str, opset: int) -> Exported:
    module, inputs, gradient, logits, target, own = _prepared(network)
    export = export_dynamo if exporter == "torch dynamo" else export_legacy
    model = export(module, inputs, opset)
    names = [value.name for value in model.graph.input]
    return Exported(
        model=model.SerializeToString(),
        feeds={name: value.numpy() for name, value in zip(names, inputs)},
        target=target,
        gradient=gradient,
        logits=logits,
        own=own,
        wrt=embedding_output(model) if network.embedding else (names[0] if len(names) > 1 else None),
        reference="torch.autograd, float64",
    )


@functools.lru_cache(maxsize=1)
def _prepared(network: Network) -> tuple[Any, ...]:
    """Network, inputs and truth; kept for the next opset of the same network."""
    module, inputs = network.build()
    gradient, logits, target = reference(module, inputs, network.embedding)
    own = reference(module, inputs, network.embedding, next(module.parameters()).dtype)[0]
    return module, inputs, gradient, logits, target, own


def reference(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    embedding: str | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient (N, ...) and logits (N, C), and the classes chosen: 0, 1, 2, ... in turn.

    Args:
        module: network in evaluation mode; it is copied.
        inputs: the gradient is taken with respect to the first one.
        embedding: or with respect to the output of this submodule.
        dtype: the type to compute in.
    """
    module = copy.deepcopy(module).to(dtype)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    if embedding is None:
        source = inputs[0].detach().requires_grad_()
        inputs = (source, *inputs[1:])
    else:
        found: list[torch.Tensor] = []

        def cut(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            found.append(output.detach().requires_grad_())
            return found[-1]

        module.get_submodule(embedding).register_forward_hook(cut)
    logits = module(*inputs)
    logits = getattr(logits, "logits", logits)
    if embedding is not None:
        (source,) = found
    target = torch.arange(len(logits)) % logits.shape[1]
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), source)
    return gradient.numpy(), logits.detach().numpy(), target.numpy()


def export_dynamo(module: nn.Module, inputs: tuple[torch.Tensor, ...], opset: int) -> onnx.ModelProto:
    """Export with a free batch size."""
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            module, inputs, dynamo=True, verbose=False, opset_version=opset,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
        )  # fmt: skip
    return program.model_proto


def export_legacy(module: nn.Module, inputs: tuple[torch.Tensor, ...], opset: int) -> onnx.ModelProto:
    """Export with a free batch size."""
    names = [f"input_{i}" for i in range(len(inputs))]
    buffer = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            module, inputs, buffer, dynamo=False, opset_version=opset, input_names=names, output_names=["logits"],
            dynamic_axes={name: {0: "batch"} for name in [*names, "logits"]},
        )  # fmt: skip
    return onnx.load_model_from_string(buffer.getvalue())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings, prints and log lines."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def embedding_output(model: onnx.ModelProto) -> str:
    """Name of the first table look-up whose indices are the model's first input."""
    tables = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    tables |= {node.output[0] for node in model.graph.node if node.op_type in ("Identity", "Constant")}
    ids = {model.graph.input[0].name}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[0] in tables and node.input[1] in ids:
            return node.output[0]
        if node.op_type in ("Cast", "Identity", "Mul", "Transpose") and node.input[0] in ids:
            ids.update(node.output)
    raise LookupError("no Gather reads the first input")
