"""A training loop of one's own in torch."""

from __future__ import annotations

import numpy as np
import torch
from shared import batches, digits, equal, finish, folder, options
from torch import nn
from torch_network import gradient, network, state

from vogcore_adapters.torch import CheckpointExporter

LAYOUT = "nhw->nchw"


def train(export: bool) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, np.ndarray]]:
    torch.manual_seed(0)
    x, y = digits(LAYOUT)
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    exporter = CheckpointExporter(folder() / "ckpts", torch.tensor(x[:1]), **options(LAYOUT)) if export else None
    gradients, weights = [], {}
    for epoch in batches(x, y):
        written = []
        for inputs, labels in epoch:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(torch.tensor(inputs)), torch.tensor(labels)).backward()
            optimiser.step()
            if exporter:
                written.append(exporter.step(model))
                if written[-1]:
                    gradients.append(gradient(model, x, y))
                    weights.update(snapshot(model, len(gradients) - 1))
        if exporter and exporter.end_epoch(model):
            gradients.append(gradient(model, x, y))
            weights.update(snapshot(model, len(gradients) - 1))
    return state(model), gradients, weights


def snapshot(model: nn.Module, number: int) -> dict[str, np.ndarray]:
    return {f"{number}.{name}": value.numpy().copy() for name, value in model.state_dict().items()}


plain, watched = train(False), train(True)
finish(watched[1], equal(plain[0], watched[0]), **watched[2])
