"""Convolutional networks with shortcuts: ResNet, DenseNet, ConvNeXt, and an encoder-decoder."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.models.spec import CLASSES, Network, images
from benchmarks.zoo.models.vision_classic import ConvNorm

__all__ = ["NETWORKS"]


class Residual(nn.Module):
    """He et al. 2016: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times as many channels behind them."""

    def __init__(self, cin: int, mid: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        cout = 4 * mid if bottleneck else mid
        if bottleneck:
            body = [ConvNorm(cin, mid), ConvNorm(mid, mid, 3, stride, 1), ConvNorm(mid, cout, activation=None)]
        else:
            body = [ConvNorm(cin, mid, 3, stride, 1), ConvNorm(mid, cout, 3, 1, 1, activation=None)]
        self.body = nn.Sequential(*body)
        same = stride == 1 and cin == cout
        self.shortcut = nn.Identity() if same else ConvNorm(cin, cout, 1, stride, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(depths: tuple[int, ...], bottleneck: bool, width: int) -> nn.Module:
    """ResNet with the stem for large images."""
    layers: list[nn.Module] = [ConvNorm(3, width, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    cin = width
    for stage, depth in enumerate(depths):
        mid = width * 2**stage
        for block in range(depth):
            layers.append(Residual(cin, mid, 2 if stage and not block else 1, bottleneck))
            cin = 4 * mid if bottleneck else mid
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, CLASSES))


class DenseLayer(nn.Module):
    """Huang et al. 2017: normalise, rectify, convolve twice; the result joins what came in."""

    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(cin), nn.ReLU(), nn.Conv2d(cin, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(depths: tuple[int, ...], growth: int) -> nn.Module:
    """DenseNet-BC."""
    channels = 2 * growth
    layers: list[nn.Module] = [ConvNorm(3, channels, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if stage < len(depths) - 1:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (N, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Liu et al. 2022: depthwise 7x7, layer norm, two linear layers with GELU, a scale for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        return x + (self.scale * y).permute(0, 3, 1, 2)


def convnext(depths: tuple[int, ...], width: int) -> nn.Module:
    """ConvNeXt-T's stages."""
    layers: list[nn.Module] = []
    cin = 3
    for stage, depth in enumerate(depths):
        channels = width * 2**stage
        if stage:
            layers += [ChannelNorm(cin), nn.Conv2d(cin, channels, 2, 2)]
        else:
            layers += [nn.Conv2d(cin, channels, 4, 4), ChannelNorm(channels)]
        layers += [ConvNeXtBlock(channels) for _ in range(depth)]
        cin = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(cin), nn.Linear(cin, CLASSES))


class UNet(nn.Module):
    """Ronneberger et al. 2015 as a classifier: down by pooling, up by transposed convolution or by resizing."""

    def __init__(self, width: int, resize: str | None, norm: type[nn.Module]) -> None:
        super().__init__()
        self.resize = resize
        sizes = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(self._pair(cin, cout, norm) for cin, cout in zip([3, *sizes], sizes))
        self.bottom = self._pair(sizes[-1], 8 * width, norm)
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        cin = 8 * width
        for cout in reversed(sizes):
            self.up.append(nn.Conv2d(cin, cout, 1) if resize else nn.ConvTranspose2d(cin, cout, 2, 2))
            self.join.append(self._pair(2 * cout, cout, norm))
            cin = cout
        self.segment, self.head = nn.Conv2d(width, 4, 1), nn.Linear(4 * 16, CLASSES)

    @staticmethod
    def _pair(cin: int, cout: int, norm: type[nn.Module]) -> nn.Module:
        def layer(channels: int) -> nn.Module:
            return nn.GroupNorm(4, channels) if norm is nn.GroupNorm else norm(channels)

        return nn.Sequential(
            nn.Conv2d(cin, cout, 3, padding=1), layer(cout), nn.LeakyReLU(0.1),
            nn.Conv2d(cout, cout, 3, padding=1), layer(cout), nn.LeakyReLU(0.1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, join in zip(self.up, self.join):
            skip = skips.pop()
            if self.resize == "bilinear":
                x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            elif self.resize:
                x = functional.interpolate(x, size=skip.shape[2:], mode=self.resize)
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(functional.adaptive_avg_pool2d(self.segment(x), 4).flatten(1))


NETWORKS = [
    Network("ResNet-18", lambda: resnet((2, 2, 2, 2), False, 32), images(3, 64)),
    Network(
        "ResNet-50",
        lambda: resnet((3, 4, 6, 3), True, 16),
        images(3, 64),
        short=lambda: resnet((1, 2, 1, 1), True, 16),
    ),
    Network(
        "DenseNet-121",
        lambda: densenet((6, 12, 24, 16), 8),
        images(3, 64),
        short=lambda: densenet((2, 3, 2, 2), 8),
    ),
    Network(
        "ConvNeXt-T",
        lambda: convnext((3, 3, 9, 3), 24),
        images(3, 64),
        gain=1.0,
        short=lambda: convnext((1, 1, 2, 1), 24),
    ),
    Network("UNet, ConvTranspose, BatchNorm", lambda: UNet(8, None, nn.BatchNorm2d), images(3, 32)),
    Network("UNet, bilinear Resize, GroupNorm", lambda: UNet(8, "bilinear", nn.GroupNorm), images(3, 32)),
    Network("UNet, nearest Resize, InstanceNorm", lambda: UNet(8, "nearest", nn.InstanceNorm2d), images(3, 32)),
]
