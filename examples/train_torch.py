"""Checkpoints from a training loop in torch: python examples/train_torch.py [folder]"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vogcore.data import Preprocess
from vogcore.demo.digits import CLASS_NAMES, load_digits
from vogcore_adapters.schedule import early_and_late, every_epoch
from vogcore_adapters.torch import CheckpointExporter

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-torch")
stored, labels = load_digits()  # (1797, 8, 8) uint8
preprocess = Preprocess(scale=1 / 16, layout="nhw->nchw")
x, y = torch.tensor(preprocess.apply(stored)), torch.tensor(labels)

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
exporter = CheckpointExporter(
    folder / "ckpts",
    x[:1],
    schedule=every_epoch() | early_and_late(early=20, late=80, total=84, every=10),
    class_names=CLASS_NAMES,
    preprocess=preprocess,  # so that `vogcore score` need not be told
)
for _ in range(3):
    for rows in torch.randperm(len(x)).split(64)[:-1]:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
        exporter.step(model)
    exporter.end_epoch(model)
print(exporter.report())

np.savez(folder / "train.npz", x=stored, y=labels)
print(f"vogcore score --checkpoints {folder}/ckpts --data {folder}/train.npz -o {folder}/scores.h5")
