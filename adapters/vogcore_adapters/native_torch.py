"""Input gradients by torch's own autograd, for modules that cannot be exported."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vogcore.errors import CheckpointError, ModelError
from vogcore.scoring.native import NativeCheckpoint, gradient_blocks, logit_cotangent
from vogcore.store import CheckpointInfo
from vogcore_adapters._require import missing
from vogcore_adapters.torch import _untouched, _unwrapped

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "checkpoint_gradients", "input_gradients"]

Checkpoint: TypeAlias = "str | os.PathLike[str] | tuple[str | CheckpointInfo, Any]"
"""A file with a state dict, or a name (or what is known) and a state dict or module, or a function that returns one."""

_STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where training loops put the module's state among other things."""


def input_gradients(
    model: torch.nn.Module,
    data: Any,
    target: Any,
    *,
    of: str = "logit",
    batch_size: int = 256,
    wrt: str | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[int, npt.NDArray, npt.NDArray]]:
    """Gradients of one checkpoint: the module as it is when a batch is asked for.

    Each batch runs in evaluation mode, without autocast, on the device of the parameters. Between the batches and
    afterwards the training flags, torch's random state, the parameters and their ``.grad`` are what they were.

    Args:
        model: module that returns logits (batch, classes), or returns them first. A wrapper (``torch.compile``,
            ``DataParallel``, ``DistributedDataParallel``) is taken off.
        data: examples (N, ...) as the module takes them: array, tensor, anything that can be sliced, or an example
            source of :mod:`vogcore.data`.
        target: class of every example (N,), usually its label, or one class index for all.
        of: the scalar that is differentiated, see :func:`vogcore.gradient_model`.
        batch_size: examples in a batch.
        wrt: name of a submodule, as in ``named_modules()``, whose output is differentiated with respect to, such as
            an embedding where the examples are tokens; the input by default.
        start, stop: the examples to compute; all by default.

    Yields:
        Position of the first example, gradients (b, ...), logits (b, C), as NumPy float32 (float64 where the module
        computes in that).

    Raises:
        DataError: data and target do not fit together.
        ModelError: the module does not return logits, or they do not depend on the input.
        SettingsError: ``of`` or ``batch_size`` is not possible.
        VogcoreError: torch is not installed.
    """
    torch = _import_torch()
    network = _unwrapped(torch, model)

    def differentiate(batch: Any, classes: npt.NDArray[np.int64]) -> tuple[npt.NDArray, npt.NDArray]:
        with _untouched(torch, network), torch.enable_grad():
            return _differentiate(torch, network, batch, classes, of, wrt)

    return gradient_blocks(differentiate, data, target, batch_size=batch_size, start=start, stop=stop)


def _differentiate(
    torch: Any, network: Any, batch: Any, classes: npt.NDArray[np.int64], of: str, wrt: str | None
) -> tuple[npt.NDArray, npt.NDArray]:
    parameter = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(0))
    values = batch if torch.is_tensor(batch) else np.require(batch, requirements=["C", "W"])  # as torch wants arrays
    inputs = torch.as_tensor(values).detach().to(parameter.device)
    if inputs.is_floating_point():
        inputs = inputs.to(parameter.dtype)
    if wrt is None:
        if not inputs.is_floating_point():
            raise ModelError(
                f"The examples are {inputs.dtype}, which have no gradient; give floating-point examples, or wrt, the "
                "name of the submodule (an embedding, say) whose output is differentiated."
            )
        source = inputs.requires_grad_()
        output = network(source.clone())  # a copy, so that a module that works in place can have it
    else:
        with _as_leaf(torch, network, wrt) as leaves:
            output = network(inputs)
        if not leaves:
            raise ModelError(f"The submodule {wrt!r} was not called with these examples.")
        source = leaves[-1]
    logits = output if torch.is_tensor(output) else _first(output)
    if not torch.is_tensor(logits) or logits.ndim != 2 or len(logits) != len(inputs):
        shape = tuple(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
        raise ModelError(f"The module must return logits (batch, classes), but it returned {shape}.")
    scores = _host(torch, logits)
    if classes.max() >= scores.shape[1]:
        return np.empty(source.shape, np.float32), scores  # refused by whoever called, who knows which example it is
    cotangent = torch.as_tensor(logit_cotangent(scores, classes, of)).to(logits)
    gradient = torch.autograd.grad(logits, source, cotangent, allow_unused=True)[0] if logits.requires_grad else None
    if gradient is None:
        raise ModelError("The module's logits do not depend on its input by a path that torch can differentiate.")
    return _host(torch, gradient), scores


def _first(output: Any) -> Any:
    """The logits of what a module returned: by that name (Hugging Face), or the first of several."""
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, Mapping):
        return next(iter(output.values()), None)
    return output[0] if isinstance(output, tuple | list) and output else output


@contextlib.contextmanager
def _as_leaf(torch: Any, network: Any, name: str) -> Iterator[list[Any]]:
    """The output of a submodule as a leaf of the graph, so that everything before it costs nothing."""
    found = dict(network.named_modules()).get(name)
    if found is None:
        raise ModelError(f"The module has no submodule {name!r}; choose one of named_modules().")
    leaves: list[Any] = []

    def hook(module: Any, arguments: Any, output: Any) -> Any:
        if not torch.is_tensor(output) or not output.is_floating_point():
            raise ModelError(f"The output of {name!r} is no floating-point tensor, so it has no gradient.")
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()

    handle = found.register_forward_hook(hook)
    try:
        yield leaves
    finally:
        handle.remove()


def _host(torch: Any, tensor: Any) -> npt.NDArray:
    tensor = tensor.detach()
    wide = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
    result: npt.NDArray = tensor.to(device="cpu", dtype=wide).numpy()  # shares memory where it is there already
    return result


def checkpoint_gradients(
    model: torch.nn.Module, checkpoints: Iterable[Checkpoint], data: Any, target: Any, **options: Any
) -> Iterator[NativeCheckpoint]:
    """Gradients of a run, for :func:`vogcore.scoring.native.send` or :func:`vogcore.scoring.native.stream`.

    Works on a copy of ``model``. A checkpoint is loaded when its first batch is asked for, so one that an archive or a
    live run has already costs nothing.

    Args:
        model: the architecture; its own weights do not matter where checkpoints are state dicts.
        checkpoints: in the order of training: files that ``torch.save`` wrote, with a state dict in them (also as
            ``state_dict``, ``model_state_dict`` or ``model``), or pairs of a name (or a ``CheckpointInfo``) and a state
            dict, a module, or a function that returns either.
        data, target, **options: as for :func:`input_gradients`.

    Yields:
        What is known of the checkpoint (for a file with its SHA-256), and its blocks.

    Raises:
        CheckpointError: a file cannot be read, or does not fit the module.
    """
    torch = _import_torch()
    network = copy.deepcopy(_unwrapped(torch, model))
    for checkpoint in checkpoints:
        if isinstance(checkpoint, tuple):
            known, source = checkpoint
            info = known if isinstance(known, CheckpointInfo) else CheckpointInfo(known)
        else:
            info, source = _file_info(Path(checkpoint)), Path(checkpoint)
        yield info, _blocks(torch, network, info.name, source, data, target, options)


def _blocks(
    torch: Any, network: Any, name: str, source: Any, data: Any, target: Any, options: Mapping[str, Any]
) -> Iterator[tuple[int, npt.NDArray, npt.NDArray]]:
    if isinstance(source, Path):
        source = _load(torch, source)
    elif callable(source) and not isinstance(source, torch.nn.Module):
        source = source()
    if isinstance(source, torch.nn.Module):
        network = source
    else:
        try:
            network.load_state_dict(source)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300].rstrip(".")
            raise CheckpointError(f"Checkpoint {name} does not fit the module: {reason}.") from error
    yield from input_gradients(network, data, target, **options)


def _load(torch: Any, path: Path) -> Any:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise CheckpointError(
            f"Checkpoint {path} cannot be read as a state dict ({reason}); give (name, state dict) instead."
        ) from error
    if isinstance(state, Mapping):
        state = next((state[key] for key in _STATE_KEYS if isinstance(state.get(key), Mapping)), state)
    return state


def _file_info(path: Path) -> CheckpointInfo:
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"Checkpoint {path} cannot be read: {error.strerror or error}.") from error
    return CheckpointInfo(path.name, sha256=digest)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise missing(error, "torch", "The gradient of a torch module") from error
    return torch
