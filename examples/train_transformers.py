"""Checkpoints from the Trainer of transformers: python examples/train_transformers.py [folder]"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

from vogcore.data import Preprocess
from vogcore.demo.digits import CLASS_NAMES, load_digits
from vogcore_adapters.schedule import log_spaced
from vogcore_adapters.transformers import ExportCheckpoints

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-transformers")
stored, labels = load_digits()  # (1797, 8, 8) uint8
preprocess = Preprocess(scale=1 / 16, layout="nhw->nchw")
x = torch.tensor(preprocess.apply(stored))

set_seed(0)
config = ViTConfig(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=8, patch_size=2,
    num_channels=1, id2label=dict(enumerate(CLASS_NAMES)),
)  # fmt: skip
trainer = Trainer(
    model=ViTForImageClassification(config),
    args=TrainingArguments(str(folder / "trainer"), max_steps=40, learning_rate=3e-3, save_strategy="no", report_to=[]),
    train_dataset=[{"pixel_values": a, "labels": int(b)} for a, b in zip(x, labels, strict=True)],
    callbacks=[ExportCheckpoints(folder / "ckpts", x[:1], schedule=log_spaced(3, 40, first=10), preprocess=preprocess)],
)
trainer.train()

np.savez(folder / "train.npz", x=stored, y=labels)
print(f"vogcore score --checkpoints {folder}/ckpts --data {folder}/train.npz -o {folder}/scores.h5")
