"""Checkpoints from scikit-learn, by partial_fit: python examples/train_sklearn.py [folder]"""

import sys
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

from vogcore.data import Preprocess
from vogcore.demo.digits import load_digits
from vogcore_adapters.schedule import every_n_steps
from vogcore_adapters.sklearn import CheckpointExporter

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-sklearn")
stored, labels = load_digits()  # (1797, 8, 8) uint8
preprocess = Preprocess(scale=1 / 16, layout="flatten")
x = preprocess.apply(stored)

classifier = MLPClassifier(32, random_state=0)
exporter = CheckpointExporter(folder / "ckpts", x[:1], schedule=every_n_steps(20), preprocess=preprocess)
for epoch in range(3):
    for rows in np.random.default_rng(epoch).permutation(len(x))[:1792].reshape(-1, 64):
        classifier.partial_fit(x[rows], labels[rows], classes=np.unique(labels))
        exporter.step(classifier)
    exporter.end_epoch(classifier)
print(exporter.report())

# Estimators without partial_fit go on with warm_start=True: fit() and exporter.step() in a loop.
np.savez(folder / "train.npz", x=stored, y=labels)
print(f"vogcore score --checkpoints {folder}/ckpts --data {folder}/train.npz -o {folder}/scores.h5")
