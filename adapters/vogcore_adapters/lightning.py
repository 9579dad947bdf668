"""Checkpoints from a Lightning ``Trainer``, by a callback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from vogcore.errors import DataError
from vogcore_adapters import exporter
from vogcore_adapters import torch as torch_adapter
from vogcore_adapters._require import missing
from vogcore_adapters.schedule import Moment

try:
    import torch
    from lightning.pytorch import Callback
except ImportError as error:
    raise missing(error, "lightning", "The Lightning callback") from error

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["ExportCheckpoints"]


class ExportCheckpoints(Callback):
    """Writes ``ckpt-<step>.onnx`` while ``trainer.fit`` runs, without disturbing it::

        trainer = Trainer(callbacks=[ExportCheckpoints("ckpts")])

    Steps are ``trainer.global_step``. In a distributed training the process of rank 0 writes; strategies that spread
    the weights of one model over several processes (FSDP, DeepSpeed stage 3) are not supported.

    Args:
        folder: where the checkpoints go; made if it does not exist.
        example_input: as for :func:`vogcore_adapters.torch.export_checkpoint`; by default the module's
            ``example_input_array``, else the first training batch (its first item where it is a tuple or list).
        module: LightningModule -> the torch module whose output are the logits; by default its own ``forward``.
        opset: version of the ONNX operator set, 18 or later.
        **options: see :class:`vogcore_adapters.exporter.Options`. ``resume=True`` goes with ``ckpt_path``.

    Attributes:
        exporter: the :class:`vogcore_adapters.torch.CheckpointExporter`, with its ``exports`` and ``report()``.

    Raises:
        VogcoreError: as :class:`vogcore_adapters.torch.CheckpointExporter`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        example_input: torch.Tensor | None = None,
        *,
        module: Callable[[LightningModule], torch.nn.Module] | None = None,
        opset: int = torch_adapter.MINIMUM_OPSET,
        **options: Unpack[exporter.Options],
    ) -> None:
        super().__init__()
        self.exporter = torch_adapter.CheckpointExporter(folder, example_input, opset=opset, **options)
        self._module = module

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step was taken, or gradients were accumulated for one."""
        if self.exporter.example_input is None:
            self.exporter.example_input = _example(pl_module, batch)
        if trainer.global_step > 0:
            self._observe(pl_module, Moment(trainer.global_step, trainer.current_epoch))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch has ended."""
        self._observe(pl_module, Moment(trainer.global_step, trainer.current_epoch + 1, epoch_end=True))

    def _observe(self, pl_module: LightningModule, moment: Moment) -> Path | None:
        return self.exporter.observe(pl_module if self._module is None else self._module(pl_module), moment)


def _example(pl_module: Any, batch: Any) -> torch.Tensor:
    example = pl_module.example_input_array
    if example is None:
        example = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(example, torch.Tensor):
        raise DataError(
            f"The examples cannot be found in a batch of type {type(batch).__name__}; pass some: "
            "ExportCheckpoints(folder, example_input=...)."
        )
    return example[:1].detach().clone()
