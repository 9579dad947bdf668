"""Checkpoints from the ``Trainer`` of Hugging Face transformers, by a callback."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Unpack

from vogcore._checkpoint import WRT_KEY
from vogcore_adapters import exporter
from vogcore_adapters import torch as torch_adapter
from vogcore_adapters._require import missing
from vogcore_adapters.schedule import Moment

try:
    import torch
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise missing(error, "transformers", "The callback of transformers") from error

if TYPE_CHECKING:
    import onnx

__all__ = ["ExportCheckpoints"]


class ExportCheckpoints(TrainerCallback):
    """Writes ``ckpt-<step>.onnx`` while ``trainer.train()`` runs, without disturbing it::

        Trainer(..., callbacks=[ExportCheckpoints("ckpts", dataset[0]["pixel_values"][None])])

    The checkpoint has one input, the model's main one (``pixel_values``, ``input_ids``), and its logits as output.
    Of tokens, the attention mask is computed from the padding (``config.pad_token_id``), and the checkpoint records the
    word embeddings as what ``vogcore score`` differentiates with respect to where it is told nothing else. In a
    distributed training the process of rank 0 writes; weights spread over several processes (FSDP, DeepSpeed stage 3)
    are not supported.

    Args:
        folder: where the checkpoints go; made if it does not exist.
        example_input: the model's main input for at least one example (batch, ...), as the model gets it.
        opset: version of the ONNX operator set, 18 or later.
        **options: see :class:`vogcore_adapters.exporter.Options`; ``class_names`` are by default those of
            ``config.id2label``, where somebody has set it. ``resume=True`` goes with ``resume_from_checkpoint``.

    Attributes:
        exporter: the :class:`vogcore_adapters.torch.CheckpointExporter`, with its ``exports`` and ``report()``.

    Raises:
        VogcoreError: as :class:`vogcore_adapters.torch.CheckpointExporter`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        example_input: torch.Tensor,
        *,
        opset: int = torch_adapter.MINIMUM_OPSET,
        **options: Unpack[exporter.Options],
    ) -> None:
        self.exporter = _Exporter(folder, example_input, opset=opset, **options)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The optimiser has taken a step."""
        self._observe(state, kwargs["model"], epoch_end=False)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An epoch has ended."""
        self._observe(state, kwargs["model"], epoch_end=True)

    def _observe(self, state: TrainerState, model: Any, *, epoch_end: bool) -> None:
        names = list(model.config.id2label.values())
        if self.exporter.class_names is None and names != [f"LABEL_{i}" for i in range(len(names))]:
            self.exporter.class_names = names
        # state.epoch is a fraction; the step before the end of an epoch may be rounded up to it.
        epoch = round(state.epoch or 0) if epoch_end else int(state.epoch or 0)
        self.exporter.observe(model, Moment(state.global_step, epoch, epoch_end))


class _Exporter(torch_adapter.CheckpointExporter):
    def convert(self, model: Any) -> onnx.ModelProto:
        exported = super().convert(torch_adapter.called_by(model, _logits))
        if model.main_input_name == "input_ids":
            embeddings = _embeddings(model, exported)
            if embeddings is not None:
                exported.metadata_props.add(key=WRT_KEY, value=embeddings)
        return exported


def _embeddings(model: Any, exported: onnx.ModelProto) -> str | None:
    """The value that holds the word embeddings of the input; tokens themselves have no gradient."""
    table = model.get_input_embeddings().weight
    names = {f"model.{name}" for name, value in model.named_parameters(remove_duplicate=False) if value is table}
    return next((n.output[0] for n in exported.graph.node if n.op_type == "Gather" and n.input[0] in names), None)


def _logits(model: Any, x: torch.Tensor) -> torch.Tensor:
    given: dict[str, Any] = {model.main_input_name: x}
    padding = getattr(model.config, "pad_token_id", None)
    if model.main_input_name == "input_ids" and padding is not None:
        given["attention_mask"] = (x != padding).long()
    return model(**given).logits
