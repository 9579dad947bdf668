"""The pictures of docs/how-to/notebook.md, drawn anew from the demo: python docs/_site/pictures.py"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import matplotlib
import numpy as np

import vogcore
from vogcore.cli import main
from vogcore.data import Preprocess

__all__ = ["draw"]

FOLDER = Path(__file__).parents[1] / "images"
DPI = 80


def draw() -> None:
    """Run the demo in a temporary folder, and write one PNG for each plot."""
    matplotlib.use("Agg")
    with tempfile.TemporaryDirectory() as folder:
        main(["demo", "--output", folder, "--overwrite"])
        os.chdir(folder)
        data = np.load("train.npz")
        preprocess = Preprocess(scale=1 / 16, layout="nhw->nchw")
        scores = vogcore.score("ckpt-*.onnx", "train.npz", preprocess=preprocess, maps=20)
        os.chdir(FOLDER.parent)
    images = (data["x"] * 15).astype(np.uint8)
    hardest = scores.hardest(20).tolist()
    wrong = next((i for i in hardest if not scores.companions["correct"].values[i]), hardest[0])
    plots = {
        "deciles": scores.plot.deciles(),
        "distribution": scores.plot.distribution(by="correct"),
        "grid": scores.plot.grid(images, 5, classes=["3", "5", "8"]),
        "map": scores.plot.map(wrong, images),
        "history": scores.plot.history(wrong),
    }
    FOLDER.mkdir(exist_ok=True)
    for name, ax in plots.items():
        # No date and no version in the file, so that the same picture is the same file.
        ax.figure.savefig(FOLDER / f"{name}.png", dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    draw()
