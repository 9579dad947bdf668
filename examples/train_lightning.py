"""Checkpoints from Lightning's Trainer: python examples/train_lightning.py [folder]"""

import sys
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import nn

from vogcore.data import Preprocess
from vogcore.demo.digits import CLASS_NAMES, load_digits
from vogcore_adapters.lightning import ExportCheckpoints

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-lightning")
stored, labels = load_digits()  # (1797, 8, 8) uint8
preprocess = Preprocess(scale=1 / 16, layout="nhw->nchw")
x, y = torch.tensor(preprocess.apply(stored)), torch.tensor(labels)


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


lightning.seed_everything(0, verbose=False)
export = ExportCheckpoints(folder / "ckpts", class_names=CLASS_NAMES, preprocess=preprocess)  # every epoch
trainer = lightning.Trainer(max_epochs=3, callbacks=[export], logger=False, enable_checkpointing=False)
trainer.fit(Digits(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 64, shuffle=True))
print(export.exporter.report())

np.savez(folder / "train.npz", x=stored, y=labels)
print(f"vogcore score --checkpoints {folder}/ckpts --data {folder}/train.npz -o {folder}/scores.h5")
