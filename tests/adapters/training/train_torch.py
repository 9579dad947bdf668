"""A training loop of one's own in torch."""

from __future__ import annotations

import numpy as np
import torch
from shared import batches, digits, equal, finish, folder, options
from torch import nn
from torch_network import gradients, network, state

from vogcore_adapters.torch import CheckpointExporter

LAYOUT = "nhw->nchw"


def train(export: bool) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]], dict[str, np.ndarray]]:
    torch.manual_seed(0)
    x, y = digits(LAYOUT)
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    exporter = CheckpointExporter(folder() / "ckpts", torch.tensor(x[:1]), **options(LAYOUT)) if export else None
    found, weights = [], {}

    def note(written):
        if written:
            weights.update(snapshot(model, len(found)))
            found.append(gradients(model, x, y))

    for epoch in batches(x, y):
        for inputs, labels in epoch:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(torch.tensor(inputs)), torch.tensor(labels)).backward()
            optimiser.step()
            if exporter:
                note(exporter.step(model))
        if exporter:
            note(exporter.end_epoch(model))
    return state(model), found, weights


def snapshot(model: nn.Module, number: int) -> dict[str, np.ndarray]:
    return {f"{number}.{name}": value.numpy().copy() for name, value in model.state_dict().items()}


plain, watched = train(False), train(True)
finish(watched[1], equal(plain[0], watched[0]), **watched[2])
