"""Recurrent classifiers of sequences."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.zoo.models.spec import CLASSES, Network, tokens

__all__ = ["NETWORKS"]


class Recurrent(nn.Module):
    """A recurrent layer, or several, and a linear layer on the last state or on the mean of all states."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, both: bool, last: bool, width: int = 24) -> None:
        super().__init__()
        self.last = last
        self.body = kind(12, width, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(width * (2 if both else 1), CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.body(x)
        return self.head(states[:, -1] if self.last else states.mean(1))


class Words(nn.Module):
    """Embedding, bidirectional LSTM, the largest state over time."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body = nn.Embedding(40, 16), nn.LSTM(16, 20, bidirectional=True)
        self.head = nn.Linear(40, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.body(self.words(ids).transpose(0, 1))
        return self.head(states.amax(0))


def _sequences(count: int) -> tuple[torch.Tensor]:
    return (torch.randn(count, 15, 12).cumsum(1) * 0.5,)


NETWORKS = [
    Network("LSTM", lambda: Recurrent(nn.LSTM, 1, False, True), _sequences),
    Network("LSTM, two layers, bidirectional", lambda: Recurrent(nn.LSTM, 2, True, False), _sequences),
    Network("GRU", lambda: Recurrent(nn.GRU, 1, False, True), _sequences),
    Network("GRU, two layers, bidirectional", lambda: Recurrent(nn.GRU, 2, True, False), _sequences),
    Network("RNN", lambda: Recurrent(nn.RNN, 1, False, False), _sequences),
    Network("LSTM on words", Words, tokens(40, 9, False), embedding="words"),
]
