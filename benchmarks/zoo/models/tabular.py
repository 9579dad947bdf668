"""Networks on rows of numbers."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.zoo.models.spec import CLASSES, Network

__all__ = ["NETWORKS"]


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    )


class Tabular(nn.Module):
    """Gorishniy et al. 2021: residual blocks of batch norm and linear layers."""

    def __init__(self, width: int = 48, depth: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width), nn.Linear(width, 2 * width), nn.SELU(), nn.Dropout(0.1),
                nn.Linear(2 * width, width),
            )
            for _ in range(depth)
        )  # fmt: skip
        self.head = nn.Sequential(nn.BatchNorm1d(width), nn.PReLU(), nn.Linear(width, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def _rows(count: int) -> tuple[torch.Tensor]:
    return (torch.randn(count, 20),)


NETWORKS = [
    Network("MLP", mlp, _rows, examples=64),
    Network("tabular ResNet", Tabular, _rows, examples=64, gain=1.0),
    Network("MLP, float16", mlp, _rows, examples=64, half=True),
]
