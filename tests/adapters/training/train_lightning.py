"""Lightning's Trainer, with the callback."""

from __future__ import annotations

import logging

import lightning
import numpy as np
import torch
from shared import BATCH, EPOCHS, digits, equal, finish, folder, options
from torch import nn
from torch_network import gradients, network, state

from vogcore_adapters.lightning import ExportCheckpoints

LAYOUT = "nhw->nchw"


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, index):
        inputs, labels = batch
        return nn.functional.cross_entropy(self(inputs), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Gradients(lightning.Callback):
    """Gradients whenever the callback before this one has written a checkpoint."""

    def __init__(self, exporter) -> None:
        self.exporter, self.found = exporter, []

    def on_train_batch_end(self, trainer, module, *_):
        if len(self.exporter.exports) > len(self.found):
            self.found.append(gradients(module, *digits(LAYOUT)))

    def on_train_epoch_end(self, trainer, module):
        self.on_train_batch_end(trainer, module)


def train(export: bool) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    torch.manual_seed(0)
    x, y = digits(LAYOUT)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), BATCH, shuffle=True
    )
    module, callbacks = Module(), []
    if export:
        callback = ExportCheckpoints(folder() / "ckpts", **options(LAYOUT))
        callbacks = [callback, Gradients(callback.exporter)]
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", callbacks=callbacks, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert module.training
    return state(module), callbacks[1].found if export else []


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
plain, watched = train(False), train(True)
finish(watched[1], equal(plain[0], watched[0]))
