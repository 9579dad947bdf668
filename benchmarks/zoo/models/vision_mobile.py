"""Convolutional networks for small devices: ShuffleNet v2, MobileNet v2 and v3, EfficientNet."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.zoo.models.spec import CLASSES, Network, images
from benchmarks.zoo.models.vision_classic import ConvNorm

__all__ = ["NETWORKS"]


class ShuffleUnit(nn.Module):
    """Ma et al. 2018: half of the channels pass by; the halves are shuffled."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        half = cout // 2
        self.stride = stride
        self.body = nn.Sequential(
            ConvNorm(cin if stride > 1 else half, half),
            ConvNorm(half, half, 3, stride, 1, groups=half, activation=None),
            ConvNorm(half, half),
        )
        if stride > 1:
            self.side = nn.Sequential(
                ConvNorm(cin, cin, 3, stride, 1, groups=cin, activation=None), ConvNorm(cin, half)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = torch.cat([self.side(x), self.body(x)], 1)
        else:
            kept, changed = x.chunk(2, 1)
            x = torch.cat([kept, self.body(changed)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v2(depths: tuple[int, ...] = (4, 8, 4)) -> nn.Module:
    """ShuffleNet v2, 0.5x."""
    layers: list[nn.Module] = [ConvNorm(3, 24, 3, 2, 1), nn.MaxPool2d(3, 2, 1)]
    cin = 24
    for cout, depth in zip((48, 96, 192), depths):
        layers += [ShuffleUnit(cin if i == 0 else cout, cout, 2 if i == 0 else 1) for i in range(depth)]
        cin = cout
    layers.append(ConvNorm(cin, 512))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))


class SqueezeExcite(nn.Module):
    """Hu et al. 2018: scales the channels by a function of their means."""

    def __init__(self, channels: int, squeezed: int, inner: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), inner(), nn.Conv2d(squeezed, channels, 1), gate()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """Sandler et al. 2018: expand, depthwise convolution, squeeze and excite on request, project."""

    def __init__(
        self,
        cin: int,
        cout: int,
        mid: int,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        excite: SqueezeExcite | None = None,
    ) -> None:
        super().__init__()
        self.add = stride == 1 and cin == cout
        layers = [] if mid == cin else [ConvNorm(cin, mid, activation=activation)]
        layers.append(ConvNorm(mid, mid, kernel, stride, kernel // 2, groups=mid, activation=activation))
        layers += [] if excite is None else [excite]
        self.body = nn.Sequential(*layers, ConvNorm(mid, cout, activation=None))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.add else self.body(x)


def mobilenet_v2(longest: int = 4) -> nn.Module:
    """MobileNet v2, 0.5x: expansion, channels, depth (``longest`` at most), stride of each stage."""
    layers: list[nn.Module] = [ConvNorm(3, 16, 3, 2, 1, activation=nn.ReLU6)]
    cin = 16
    stages = [(1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1)]
    for factor, cout, depth, stride in stages:
        for block in range(min(depth, longest)):
            layers.append(InvertedResidual(cin, cout, factor * cin, 3, 1 if block else stride, nn.ReLU6))
            cin = cout
    layers.append(ConvNorm(cin, 640, activation=nn.ReLU6))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(640, CLASSES))


def mobilenet_v3(leave_out: tuple[int, ...] = ()) -> nn.Module:
    """Howard et al. 2019, the small one: kernel, expanded, output, excite, hard swish, stride of each block."""
    layers: list[nn.Module] = [ConvNorm(3, 16, 3, 2, 1, activation=nn.Hardswish)]
    cin = 16
    blocks = [
        (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
    ]  # fmt: skip
    for kernel, mid, cout, excite, hard, stride in (b for i, b in enumerate(blocks) if i not in leave_out):
        gate = SqueezeExcite(mid, max(8, mid // 32 * 8), nn.ReLU, nn.Hardsigmoid) if excite else None
        activation = nn.Hardswish if hard else nn.ReLU
        layers.append(InvertedResidual(cin, cout, mid, kernel, stride, activation, gate))
        cin = cout
    layers.append(ConvNorm(cin, 576, activation=nn.Hardswish))
    head = [nn.Linear(576, 256), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(256, CLASSES)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def efficientnet_b0(width: float = 0.5, longest: int = 4) -> nn.Module:
    """Tan & Le 2019: expansion, channels, depth (``longest`` at most), stride, kernel of each stage."""

    def scaled(channels: int) -> int:
        return max(8, int(channels * width + 4) // 8 * 8)

    cin = scaled(32)
    layers: list[nn.Module] = [ConvNorm(3, cin, 3, 2, 1, activation=nn.SiLU)]
    stages = [
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    ]  # fmt: skip
    for factor, channels, depth, stride, kernel in stages:
        for block in range(min(depth, longest)):
            mid, cout = factor * cin, scaled(channels)
            gate = SqueezeExcite(mid, max(1, cin // 4), nn.SiLU, nn.Sigmoid)
            layers.append(InvertedResidual(cin, cout, mid, kernel, stride if block == 0 else 1, nn.SiLU, gate))
            cin = cout
    last = scaled(1280)
    layers.append(ConvNorm(cin, last, activation=nn.SiLU))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(last, CLASSES))


NETWORKS = [
    Network("ShuffleNet v2", shufflenet_v2, images(3, 64), short=lambda: shufflenet_v2((2, 2, 1))),
    Network("MobileNet v2", mobilenet_v2, images(3, 64), short=lambda: mobilenet_v2(1)),
    Network("MobileNet v3 small", mobilenet_v3, images(3, 64), short=lambda: mobilenet_v3((5, 6, 7, 9, 10))),
    Network("EfficientNet-B0", efficientnet_b0, images(3, 64), short=lambda: efficientnet_b0(0.5, 1)),
]
