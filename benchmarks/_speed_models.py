"""The networks whose input gradients are timed, in plain torch, with random weights and real statistics."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

__all__ = ["MODELS", "SpeedModel", "export"]

CLASSES = 10


class Basic(nn.Module):
    """Residual block of two 3x3 convolutions (He et al. 2016, figure 5 left)."""

    expansion = 1

    def __init__(self, wide: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(wide, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut = _shortcut(wide, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3, 1x1 (He et al. 2016, figure 5 right), the stride on the 3x3."""

    expansion = 4

    def __init__(self, wide: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
        )  # fmt: skip
        self.shortcut = _shortcut(wide, 4 * width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _shortcut(wide: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and wide == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(wide, width, 1, stride, bias=False), nn.BatchNorm2d(width))


def resnet(block: type[Basic] | type[Bottleneck], depths: list[int], *, small: bool) -> nn.Module:
    """ResNet for 32x32 images (3x3 stem) or for 224x224 ones (7x7 stem and a max pooling)."""
    stem: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    if not small:
        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    layers, wide = stem, 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for index in range(depth):
            layers.append(block(wide, width, 2 if stage and not index else 1))
            wide = width * block.expansion
    classes = CLASSES if small else 1000
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, classes))


class Encoder(nn.Module):
    """Pre-norm transformer block with the attention written out (Dosovitskiy et al. 2021, appendix)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        split = self.qkv(self.first(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(self.second(x))


class ViT(nn.Module):
    """Vision transformer on 32x32 images in patches of 4x4: 64 patches and a class token."""

    def __init__(self, width: int = 192, depth: int = 4, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1) + self.position
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def mlp() -> nn.Module:
    """Three hidden layers on flattened 32x32 images."""
    widths = [3072, 1024, 1024, 512]
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, width in pairwise(widths):
        layers += [nn.Linear(wide, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES))


@dataclass(frozen=True)
class SpeedModel:
    """One row of the table.

    Attributes:
        make: builds the network.
        batch: examples in a run.
        size: height and width of the images.
        wanted: how many times as fast as the best of torch the gradient graph should be.
    """

    make: Callable[[], nn.Module]
    batch: int
    size: int
    wanted: float

    def build(self) -> tuple[nn.Module, torch.Tensor]:
        """The network in evaluation mode, its statistics taken from data, and a batch of images."""
        torch.manual_seed(2008)
        network = self.make()
        with torch.no_grad():
            for _ in range(3):
                network(torch.randn(8, 3, self.size, self.size))
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        return network.eval(), torch.randn(self.batch, 3, self.size, self.size)


MODELS = {
    "resnet18-cifar-b64": SpeedModel(lambda: resnet(Basic, [2, 2, 2, 2], small=True), 64, 32, 1.25),
    "resnet18-cifar-b256": SpeedModel(lambda: resnet(Basic, [2, 2, 2, 2], small=True), 256, 32, 1.25),
    "resnet18-224-b8": SpeedModel(lambda: resnet(Basic, [2, 2, 2, 2], small=False), 8, 224, 1.3),
    "resnet50-224-b8": SpeedModel(lambda: resnet(Bottleneck, [3, 4, 6, 3], small=False), 8, 224, 1.25),
    "vit-d192-l4-b64": SpeedModel(ViT, 64, 32, 1.1),
    "mlp-b256": SpeedModel(mlp, 256, 32, 1.1),
}


def export(network: nn.Module, x: torch.Tensor) -> bytes:
    """The network as ONNX with an open batch, by torch's exporter."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (x[:2],), dynamo=True, verbose=False, opset_version=18,
            dynamic_shapes=({0: torch.export.Dim("batch")},), input_names=["x"], output_names=["logits"],
        )  # fmt: skip
        program.save(buffer)
    return buffer.getvalue()
