"""Checkpoints from Keras' fit, on any backend: KERAS_BACKEND=torch python examples/train_keras.py [folder]"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers

from vogcore.data import Preprocess
from vogcore.demo.digits import CLASS_NAMES, load_digits
from vogcore_adapters.keras import ExportCheckpoints

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-keras")
stored, labels = load_digits()  # (1797, 8, 8) uint8
preprocess = Preprocess(scale=1 / 16, layout="nhw->nhwc")

keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
    layers.Dropout(0.2), layers.Dense(10, activation="softmax"),
])  # fmt: skip
model.compile("adam", "sparse_categorical_crossentropy")
export = ExportCheckpoints(folder / "ckpts", class_names=CLASS_NAMES, preprocess=preprocess)  # every epoch
model.fit(preprocess.apply(stored), labels, batch_size=64, epochs=3, callbacks=[export], verbose=2)
print(export.exporter.report())

np.savez(folder / "train.npz", x=stored, y=labels)
print(f"vogcore score --checkpoints {folder}/ckpts --data {folder}/train.npz -o {folder}/scores.h5")
