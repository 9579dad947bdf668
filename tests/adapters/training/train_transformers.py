"""The Trainer of transformers on a small vision transformer, with the callback."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from shared import BATCH, EPOCHS, digits, equal, finish, folder, options
from torch_network import gradients, state
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

from vogcore_adapters.transformers import ExportCheckpoints

LAYOUT = "nhw->nchw"


class Gradients(TrainerCallback):
    """Gradients whenever the callback before this one has written a checkpoint."""

    def __init__(self, exporter) -> None:
        self.exporter, self.found = exporter, []

    def on_step_end(self, args, state, control, model=None, **_):
        if len(self.exporter.exports) > len(self.found):
            self.found.append(gradients(model, *digits(LAYOUT)))

    on_epoch_end = on_step_end


def train(export: bool) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    set_seed(0)
    x, y = digits(LAYOUT)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=8, patch_size=2,
        num_channels=1, num_labels=10, hidden_dropout_prob=0.1,
    )  # fmt: skip
    model, callbacks = ViTForImageClassification(config), []
    if export:
        callback = ExportCheckpoints(folder() / "ckpts", torch.tensor(x[:1]), **options(LAYOUT))
        callbacks = [callback, Gradients(callback.exporter)]
    with tempfile.TemporaryDirectory() as work:
        arguments = TrainingArguments(
            work, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, learning_rate=3e-3, use_cpu=True,
            save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        data = [{"pixel_values": torch.tensor(image), "labels": int(label)} for image, label in zip(x, y, strict=True)]
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=callbacks).train()
    return state(model), callbacks[1].found if export else []


plain, watched = train(False), train(True)
finish(watched[1], equal(plain[0], watched[0]))
