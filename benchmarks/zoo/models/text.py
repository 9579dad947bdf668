"""Text classifiers on token ids; the gradient is taken with respect to the word embeddings."""

from __future__ import annotations

import math

import torch
from torch import nn

from benchmarks.zoo.models.spec import CLASSES, Network, tokens

__all__ = ["NETWORKS"]

VOCABULARY, LENGTH = 60, 12


class TextBlock(nn.Module):
    """Devlin et al. 2019: attention and two linear layers, each normalised after the addition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-12), nn.LayerNorm(width, 1e-12)

    def forward(self, x: torch.Tensor, visible: torch.Tensor, fill: bool) -> torch.Tensor:
        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if fill:  # DistilBERT's way
            scores = scores.masked_fill(visible[:, None, None] == 0, torch.finfo(scores.dtype).min)
        else:  # BERT's way
            scores = scores + (1 - visible[:, None, None].to(scores.dtype)) * -1e4
        y = (torch.softmax(scores, -1) @ value).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.project(y))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))


class Text(nn.Module):
    """BERT, or DistilBERT (Sanh et al. 2019), which has neither token types nor a pooler before its classifier."""

    def __init__(self, width: int = 48, depth: int = 3, heads: int = 4, distilled: bool = False) -> None:
        super().__init__()
        self.distilled = distilled
        self.words, self.places = nn.Embedding(VOCABULARY, width, padding_idx=0), nn.Embedding(LENGTH, width)
        self.types = None if distilled else nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, 1e-12)
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))
        self.pool, self.head = nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, ids: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        if self.types is not None:
            x = x + self.types(torch.zeros_like(ids))
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, visible, self.distilled)
        x = self.pool(x[:, 0])
        return self.head(x.relu() if self.distilled else x.tanh())


class Convolutional(nn.Module):
    """Kim 2014: convolutions of several lengths over the words, the largest response of each."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, 16, length) for length in (2, 3, 4))
        self.head = nn.Linear(48, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids).transpose(1, 2)
        return self.head(torch.cat([conv(x).relu().amax(2) for conv in self.convs], 1))


NETWORKS = [
    Network("BERT-like", Text, tokens(VOCABULARY, LENGTH), embedding="words", gain=1.0),
    Network("DistilBERT-like", lambda: Text(distilled=True), tokens(VOCABULARY, LENGTH), embedding="words", gain=1.0),
    Network("text CNN", Convolutional, tokens(VOCABULARY, LENGTH, False), embedding="words"),
]
