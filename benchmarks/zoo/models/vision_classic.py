"""Convolutional networks without shortcuts: LeNet, VGG, SqueezeNet, GoogLeNet, Inception v3."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.models.spec import CLASSES, Network, images

__all__ = ["NETWORKS", "ConvNorm"]


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation, activation."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        layers = [nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(cout)]
        super().__init__(*layers, *([] if activation is None else [activation()]))


class Branches(nn.Module):
    """Parallel paths whose outputs are joined along the channels."""

    def __init__(self, *paths: nn.Module) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([path(x) for path in self.paths], 1)


def lenet() -> nn.Module:
    """LeCun et al. 1998, with its tanh and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, CLASSES),
    )  # fmt: skip


def vgg(plan: str, norm: bool, width: int = 32) -> nn.Module:
    """Simonyan & Zisserman 2015: a digit is a 3x3 convolution of that many times ``width`` channels, M a pooling."""
    layers: list[nn.Module] = []
    cin = 3
    for step in plan:
        if step == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        cout = int(step) * width
        layers.append(nn.Conv2d(cin, cout, 3, padding=1))
        layers += [nn.BatchNorm2d(cout), nn.ReLU(inplace=True)] if norm else [nn.ReLU(inplace=True)]
        cin = cout
    head = [
        nn.Flatten(), nn.Linear(cin, 256), nn.ReLU(), nn.Dropout(),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, CLASSES),
    ]  # fmt: skip
    return nn.Sequential(*layers, *head)


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and 3x3 convolutions (Iandola et al. 2016)."""

    def __init__(self, cin: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(cin, squeeze, 1)
        self.narrow, self.wide = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.narrow(x).relu(), self.wide(x).relu()], 1)


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        nn.Dropout(), nn.Conv2d(512, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def _inception(cin: int, c1: int, r3: int, c3: int, r5: int, c5: int, pool: int) -> nn.Module:
    """The inception module of Szegedy et al. 2015, with batch normalisation."""
    return Branches(
        ConvNorm(cin, c1),
        nn.Sequential(ConvNorm(cin, r3), ConvNorm(r3, c3, 3, padding=1)),
        nn.Sequential(ConvNorm(cin, r5), ConvNorm(r5, c5, 5, padding=2)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvNorm(cin, pool)),
    )


def googlenet(short: bool = False) -> nn.Module:
    """GoogLeNet at half its width; its poolings round up, as Caffe's did."""
    middle = [
        _inception(240, 96, 48, 104, 8, 24, 32), _inception(256, 80, 56, 112, 12, 32, 32),
        _inception(256, 64, 64, 128, 12, 32, 32), _inception(256, 56, 72, 144, 16, 32, 32),
        _inception(264, 128, 80, 160, 16, 64, 64),
    ]  # fmt: skip
    if short:
        middle = [_inception(240, 128, 80, 160, 16, 64, 64)]
    return nn.Sequential(
        ConvNorm(3, 32, 7, 2, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-1),
        ConvNorm(32, 32), ConvNorm(32, 96, 3, padding=1), nn.MaxPool2d(3, 2, ceil_mode=True),
        _inception(96, 32, 48, 64, 8, 16, 16), _inception(128, 64, 64, 96, 16, 48, 32),
        nn.MaxPool2d(3, 2, ceil_mode=True), *middle, nn.MaxPool2d(2, 2, ceil_mode=True),
        _inception(416, 128, 80, 160, 16, 64, 64), _inception(416, 192, 96, 192, 24, 64, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, CLASSES),
    )  # fmt: skip


def _row_column(cin: int, mid: int, cout: int, length: int) -> nn.Module:
    """A square convolution of ``length`` as a row and a column."""
    half = length // 2
    return nn.Sequential(ConvNorm(cin, mid, (1, length), 1, (0, half)), ConvNorm(mid, cout, (length, 1), 1, (half, 0)))


class _Averaged(nn.Module):
    """Average pooling over 3x3 and a 1x1 convolution; edge windows count the padding or do not."""

    def __init__(self, cin: int, cout: int, count_include_pad: bool) -> None:
        super().__init__()
        self.include, self.conv = count_include_pad, ConvNorm(cin, cout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(functional.avg_pool2d(x, 3, 1, 1, count_include_pad=self.include))


def _mixed_a(cin: int, pool: int, include: bool) -> nn.Module:
    return Branches(
        ConvNorm(cin, 16),
        nn.Sequential(ConvNorm(cin, 12), ConvNorm(12, 16, 5, padding=2)),
        nn.Sequential(ConvNorm(cin, 16), ConvNorm(16, 24, 3, padding=1), ConvNorm(24, 24, 3, padding=1)),
        _Averaged(cin, pool, include),
    )


def _mixed_b(cin: int) -> nn.Module:
    return Branches(
        ConvNorm(cin, 96, 3, 2),
        nn.Sequential(ConvNorm(cin, 16), ConvNorm(16, 24, 3, padding=1), ConvNorm(24, 24, 3, 2)),
        nn.MaxPool2d(3, 2),
    )


def _mixed_c(cin: int, mid: int, include: bool) -> nn.Module:
    long = [ConvNorm(cin, mid), _row_column(mid, mid, mid, 7), _row_column(mid, mid, 48, 7)]
    return Branches(
        ConvNorm(cin, 48),
        nn.Sequential(ConvNorm(cin, mid), _row_column(mid, mid, 48, 7)),
        nn.Sequential(*long),
        _Averaged(cin, 48, include),
    )


def _mixed_d(cin: int) -> nn.Module:
    return Branches(
        nn.Sequential(ConvNorm(cin, 48), ConvNorm(48, 80, 3, 2)),
        nn.Sequential(ConvNorm(cin, 48), _row_column(48, 48, 48, 7), ConvNorm(48, 48, 3, 2)),
        nn.MaxPool2d(3, 2),
    )


def _mixed_e(cin: int, include: bool) -> nn.Module:
    def fork() -> nn.Module:
        return Branches(ConvNorm(96, 96, (1, 3), padding=(0, 1)), ConvNorm(96, 96, (3, 1), padding=(1, 0)))

    return Branches(
        ConvNorm(cin, 80),
        nn.Sequential(ConvNorm(cin, 96), fork()),
        nn.Sequential(ConvNorm(cin, 112), ConvNorm(112, 96, 3, padding=1), fork()),
        _Averaged(cin, 48, include),
    )


def inception_v3(short: bool = False) -> nn.Module:
    """Szegedy et al. 2016 at a quarter of its width, without the auxiliary classifier.

    The published weights average some windows with the padding (TensorFlow's does not count it, torch's default does):
    here both occur.
    """
    rows = [_mixed_c(192, 32, True), _mixed_c(192, 40, False), _mixed_c(192, 40, True), _mixed_c(192, 48, False)]
    return nn.Sequential(
        ConvNorm(3, 8, 3, 2), ConvNorm(8, 8, 3), ConvNorm(8, 16, 3, padding=1), nn.MaxPool2d(3, 2),
        ConvNorm(16, 20), ConvNorm(20, 48, 3), nn.MaxPool2d(3, 2),
        _mixed_a(48, 8, True), _mixed_a(64, 16, False), _mixed_a(72, 16, True), _mixed_b(72),
        *(rows[:1] if short else rows),
        _mixed_d(192), _mixed_e(320, True), _mixed_e(512, False),
        nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(512, CLASSES),
    )  # fmt: skip


NETWORKS = [
    Network("LeNet", lenet, images(1, 28), gain=1.5),
    Network("VGG-11", lambda: vgg("2M4M88M99M99M", False), images(3, 32)),
    Network("VGG-16 with BatchNorm", lambda: vgg("22M44M888M999M999M", True), images(3, 32)),
    Network("SqueezeNet 1.1", squeezenet, images(3, 64)),
    Network("GoogLeNet, ceil mode", googlenet, images(3, 64), short=lambda: googlenet(True)),
    Network("Inception v3", inception_v3, images(3, 96), short=lambda: inception_v3(True)),
]
