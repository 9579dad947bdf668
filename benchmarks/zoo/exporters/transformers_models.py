"""Networks of the package transformers, built from small configurations with random weights; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.entry import Entry
from benchmarks.zoo.exporters.torch_export import entry
from benchmarks.zoo.models.spec import CLASSES, Network, images, tokens

__all__ = ["entries"]

VOCABULARY, LENGTH = 80, 10
TEXT = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "vocab_size": VOCABULARY, "max_position_embeddings": 32, "num_labels": CLASSES,
}  # fmt: skip
IMAGE = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "image_size": 32,
    "patch_size": 8, "num_labels": CLASSES,
}  # fmt: skip


def entries(short: bool = False) -> list[Entry]:
    """Each network through dynamo at its default opset and at 23, where attention is one operator, and legacy."""
    if short:
        return []
    ways = [("torch dynamo", 20), ("torch dynamo", 23), ("torch legacy", 17)]
    return [entry(network, *way, framework="transformers") for network in NETWORKS for way in ways]


class Scores(nn.Module):
    """A classifier of the package with its logits as the only output."""

    def __init__(self, network: nn.Module, mask: bool) -> None:
        super().__init__()
        self.network, self.mask = network, mask

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return (self.network(x, attention_mask=mask) if self.mask else self.network(x)).logits


def _make(kind: str, config: dict[str, Any], mask: bool, attention: str | None = None) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        settings = getattr(transformers, f"{kind}Config")(**config)
        if attention is not None:
            settings._attn_implementation = attention
        task = "SequenceClassification" if mask else "ImageClassification"
        return Scores(getattr(transformers, f"{kind}For{task}")(settings), mask)

    return make


def _text(kind: str, words: str, config: dict[str, Any], attention: str | None = None) -> Network:
    return Network(
        f"transformers {kind}" + (", eager" if attention == "eager" else ""),
        _make(kind, config, True, attention),
        tokens(VOCABULARY, LENGTH),
        embedding=f"network.{words}",
        gain=1.0,
        examples=8,
    )


def _image(kind: str, config: dict[str, Any], size: int = 32) -> Network:
    return Network(f"transformers {kind}", _make(kind, config, False), images(3, size), gain=1.0, examples=8)


DISTIL = {
    "dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96, "vocab_size": VOCABULARY, "max_position_embeddings": 32,
    "num_labels": CLASSES,
}  # fmt: skip
NETWORKS = [
    _text("Bert", "bert.embeddings.word_embeddings", TEXT),
    _text("Bert", "bert.embeddings.word_embeddings", TEXT, "eager"),
    _text("DistilBert", "distilbert.embeddings.word_embeddings", DISTIL),
    _text("Roberta", "roberta.embeddings.word_embeddings", TEXT),
    _text("Electra", "electra.embeddings.word_embeddings", {**TEXT, "embedding_size": 48}),
    _image("ViT", IMAGE),
    _image("DeiT", IMAGE),
    _image("Swin", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
                    "window_size": 4, "num_labels": CLASSES}),
    _image("ConvNext", {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "num_labels": CLASSES}, 64),
    _image("ResNet", {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 1], "layer_type": "bottleneck",
                      "num_labels": CLASSES}, 32),
]  # fmt: skip
