"""PyTorch modules as ONNX checkpoints, written while training runs and without disturbing it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vogcore._checkpoint import checkpoint_metadata, save_checkpoint
from vogcore.errors import DataError, ModelError, SettingsError
from vogcore_adapters import exporter
from vogcore_adapters._require import missing

if TYPE_CHECKING:
    from typing import Unpack

    import onnx
    import torch

__all__ = ["CheckpointExporter", "called_by", "export_checkpoint", "to_onnx"]

MINIMUM_OPSET = 18  # the exporter writes 18 and converts upwards; converting downwards fails on some graphs
INPUT, OUTPUT, BATCH = "input", "logits", "batch"


def export_checkpoint(
    model: torch.nn.Module,
    example_input: torch.Tensor,
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    epoch: int | None = None,
    class_names: Sequence[str] | None = None,
    opset: int = 18,
) -> Path:
    """Write ``model`` as it is now to one ONNX file that ``vogcore score`` can read.

    Call it between two training steps, as often as a checkpoint is wanted: the model is exported in evaluation mode
    and every submodule's ``training`` flag, torch's random state, the parameters and their ``.grad`` are afterwards
    what they were, so training continues bit for bit as it would have without the call.

    The graph does not depend on the values of the weights: all checkpoints of one run have the same nodes and the
    same initializers (torch's own optimiser drops a bias that is zero and merges weights that are equal, which makes
    the file of an untrained network another architecture than that of a trained one). BatchNormalization after a
    convolution or a linear layer is folded into it.

    Args:
        model: module with one tensor as input and the logits (batch, classes) as output, or as its first output.
            A model wrapped by ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel`` is unwrapped.
        example_input: a batch like those the model is trained on, after preprocessing; at least one example. Only its
            shape, without the leading axis, and its type matter.
        path: file to write, weights included; an existing one is replaced, and an interrupted export leaves it as it
            was.
        step: optimiser steps taken so far, stored as ``vogcore.step`` in ``metadata_props``.
        epoch: epochs completed so far, stored as ``vogcore.epoch``.
        class_names: names in the order of the logits, stored as ``vogcore.class_names`` (a JSON list).
        opset: version of the ONNX operator set, 18 or later; 18 suits every execution provider.

    Returns:
        The path written. The model in it has the input ``input`` and the output ``logits``, whose leading axis is
        symbolic (``batch``).

    Raises:
        VogcoreError: torch or onnxscript is not installed.
        SettingsError: ``opset``, ``step``, ``epoch`` or ``class_names`` is not usable.
        DataError: ``example_input`` is not a tensor with at least one example.
        ModelError: torch cannot export the model, or only for one fixed batch size.
        StoreError: the file cannot be written.
    """
    metadata = checkpoint_metadata(step, epoch, class_names)
    return save_checkpoint(to_onnx(model, example_input, opset), path, metadata)


def to_onnx(model: torch.nn.Module, example_input: torch.Tensor | None, opset: int = MINIMUM_OPSET) -> onnx.ModelProto:
    """The model as it is now, as :func:`export_checkpoint` writes it; arguments and errors are the same."""
    torch = _import_torch()
    if opset < MINIMUM_OPSET:
        raise SettingsError(f"opset must be {MINIMUM_OPSET} or later, not {opset}.")
    if not isinstance(example_input, torch.Tensor) or example_input.ndim < 1 or len(example_input) < 1:
        raise DataError("example_input must be a torch tensor that holds at least one example along its first axis.")
    model = _unwrapped(torch, model)
    name = type(model).__name__
    with _untouched(torch, model), _quiet():
        try:
            program = _export(torch, model, example_input, opset)
            _fold(program)
            exported = program.model_proto
        except Exception as error:
            cause = _cause(error)
            if "inferred a static shape" in cause:
                cause = (
                    "its forward method works for one batch size only; "
                    "write reshapes with x.shape[0] or -1 for the leading axis"
                )
            raise ModelError(f"torch cannot export the model {name} to ONNX: {cause}.") from error
    _strip(exported)
    return exported


class CheckpointExporter(exporter.CheckpointExporter):
    """Writes checkpoints of a torch training loop, without disturbing it.

    Two lines in a loop of your own::

        exporter = CheckpointExporter("ckpts", images[:1], schedule=every_n_steps(100))
        for images, labels in batches:
            ...
            exporter.step(model)  # after optimiser.step()

    or around one that is not yours, with :meth:`watch`. In a distributed training, the process of rank 0 writes.

    Args:
        folder: where the checkpoints go; made if it does not exist.
        example_input: as for :func:`export_checkpoint`. None if the attribute of this name will be set before the first
            checkpoint.
        opset: as for :func:`export_checkpoint`.
        **options: see :class:`vogcore_adapters.exporter.Options`.

    Raises:
        VogcoreError: as :class:`vogcore_adapters.exporter.CheckpointExporter`, and torch or onnxscript is missing.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        example_input: torch.Tensor | None,
        *,
        opset: int = MINIMUM_OPSET,
        **options: Unpack[exporter.Options],
    ) -> None:
        self._torch = _import_torch()
        self.example_input = example_input
        self.opset = opset
        super().__init__(folder, self.convert, **options)

    def convert(self, model: torch.nn.Module) -> onnx.ModelProto:
        """:func:`to_onnx` with the example and the opset of this object."""
        return to_onnx(model, self.example_input, self.opset)

    @contextlib.contextmanager
    def watch(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[CheckpointExporter]:
        """Inside of the ``with``, every ``optimiser.step()`` counts as a step of ``model``.

        Epochs are not seen: give a schedule of steps, or call :meth:`end_epoch`.
        """
        hook = optimiser.register_step_post_hook(lambda *_: self.step(model) and None)
        try:
            with self:
                yield self
        finally:
            hook.remove()

    def _writes(self) -> bool:
        distributed = self._torch.distributed
        return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def _import_torch() -> Any:
    try:
        import onnxscript.optimizer
        import onnxscript.rewriter.rules.common  # noqa: F401
        import torch
        import torch.onnx
    except ImportError as error:
        raise missing(error, "torch", "Exporting a torch model") from error
    return torch


def _unwrapped(torch: Any, model: Any) -> Any:
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile keeps the module it was given under this name
            model = model._orig_mod
        else:
            return model


def called_by(model: torch.nn.Module, call: Callable[[Any, Any], Any]) -> torch.nn.Module:
    """``model`` as a module of one tensor: ``call(model, x)`` gives the logits."""
    torch = _import_torch()

    class Called(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            return call(self.model, x)

    Called.__name__ = type(model).__name__  # what messages say
    return Called()


@contextlib.contextmanager
def _untouched(torch: Any, model: Any) -> Iterator[None]:
    """Evaluation mode inside; flags and random state outside as before. Autocast would add casts to the graph."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    flags = [(module, module.training) for module in model.modules()]
    on_host = device.type == "cpu"
    fork = torch.random.fork_rng(devices=[] if on_host else [device], device_type="cuda" if on_host else device.type)
    with fork, torch.no_grad(), torch.autocast(device.type, enabled=False):
        try:
            model.eval()
            yield
        finally:
            for module, flag in flags:
                module.training = flag


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress, missing optional packages and its own deprecations; none is the user's."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        sink = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _export(torch: Any, model: Any, example_input: Any, opset: int) -> Any:
    """The model as torch's ``ONNXProgram``, from the torch.export based exporter, not yet optimised."""
    device = next((p.device for p in model.parameters()), example_input.device)
    first = example_input[:1].detach().to(device)
    # An axis of size 1 is taken as fixed by torch.export, so the batch has two.
    pair = torch.cat([first, first])
    return torch.onnx.export(
        model,
        (pair,),
        dynamo=True,
        optimize=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: BATCH},),
        verbose=False,
    )


def _fold(program: Any) -> None:
    """Optimise the graph in place by rules that look at its structure, never at the values of the weights.

    The weights are hidden while constants are folded: only what the code computes from shapes goes. Folding a
    BatchNormalization then always gives a convolution with a bias.
    """
    from onnxscript.optimizer import fold_constants_ir, optimize_ir
    from onnxscript.rewriter import RewritePass
    from onnxscript.rewriter.rules import common

    graph = program.model.graph
    weights = {
        name: graph.initializers[name].const_value
        for name in program.exported_program.state_dict
        if name in graph.initializers
    }
    for name, value in weights.items():
        hidden = graph.initializers[name]
        hidden.dtype, hidden.shape, hidden.const_value = value.dtype, value.shape, None
    optimize_ir(program.model)
    for name, value in weights.items():
        if name in graph.initializers:
            graph.initializers[name].const_value = value
    # A linear layer on a sequence is exported with its weight transposed by a node.
    fold_constants_ir(program.model, should_fold=lambda node: node.op_type == "Transpose")
    RewritePass(
        [
            common.fuse_batchnorm_into_conv_rule,
            common.fuse_batchnorm_into_conv_transpose_rule,
            common.fuse_batchnorm_into_gemm_rule,
        ]
    )(program.model)
    used = {value.name for node in program.model.graph.all_nodes() for value in node.inputs if value is not None}
    for name in [name for name in graph.initializers if name not in used]:
        del graph.initializers[name]


def _strip(exported: Any) -> None:
    """Remove the exporter's notes: stack traces with the paths of the machine, most of a small file."""
    graph = exported.graph
    for item in [graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        del item.metadata_props[:]
        item.doc_string = ""


def _cause(error: BaseException) -> str:
    """First sentence of the innermost exception: the exporter wraps the reason in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {text}".rstrip(".: ")
