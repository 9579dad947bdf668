"""Vision transformers: ViT, DeiT, Swin, and torch's own encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.models.spec import CLASSES, Network, images

__all__ = ["NETWORKS", "SelfAttention"]


class SelfAttention(nn.Module):
    """Vaswani et al. 2017, written with matrix products, or with torch's fused function."""

    def __init__(self, width: int, heads: int, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        if self.fused:
            y = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        else:
            scores = query * (width // self.heads) ** -0.5 @ key.transpose(-2, -1)
            y = torch.softmax(scores if bias is None else scores + bias, -1) @ value
        return self.project(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Normalise first, then attend; normalise first, then two linear layers."""

    def __init__(self, width: int, heads: int, fused: bool, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attention = SelfAttention(width, heads, fused)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021; with ``distilled`` the second token and head of DeiT (Touvron et al. 2021)."""

    def __init__(
        self,
        size: int = 48,
        patch: int = 8,
        width: int = 96,
        depth: int = 6,
        heads: int = 3,
        distilled: bool = False,
        fused: bool = False,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.extra = 2 if distilled else 1
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.tokens = nn.Parameter(torch.zeros(1, self.extra, width))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + self.extra, width))
        self.blocks = nn.Sequential(*(Block(width, heads, fused, norm) for _ in range(depth)))
        self.norm = norm(width)
        self.heads = nn.ModuleList(nn.Linear(width, CLASSES) for _ in range(self.extra))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = self.norm(self.blocks(x))
        return torch.stack([head(x[:, i]) for i, head in enumerate(self.heads)]).mean(0)


class WindowAttention(nn.Module):
    """Attention within windows of a grid, shifted by half a window on request (Liu et al. 2021)."""

    def __init__(self, width: int, heads: int, grid: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift, self.heads = window, shift, heads
        self.attention = SelfAttention(width, heads)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = place[:, :, None] - place[:, None, :] + window - 1
        self.register_buffer("index", apart[0] * (2 * window - 1) + apart[1], persistent=False)
        # Windows that the shift has put together from opposite edges must not attend to one another.
        edge = torch.zeros(grid, dtype=torch.long)
        edge[grid - window : grid - shift], edge[grid - shift :] = 1, 2
        region = self._windows((3 * edge[:, None] + edge[None, :])[None, :, :, None]).squeeze(-1)
        apart = region[:, None, :] != region[:, :, None]
        self.register_buffer("mask", (-100.0 * apart)[:, None], persistent=False)

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        n, height, width, channels = x.shape
        w = self.window
        x = x.view(n, height // w, w, width // w, w, channels).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, w * w, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, height, width, channels = x.shape
        w = self.window
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        bias = self.bias[self.index].permute(2, 0, 1)[None]
        if self.shift:
            bias = (bias + self.mask).repeat(n, 1, 1, 1)
        x = self.attention(self._windows(x), bias)
        x = x.view(n, height // w, width // w, w, w, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, height, width, channels)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class SwinBlock(nn.Module):
    """Window attention and two linear layers, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, grid: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        shift = window // 2 if shifted and grid > window else 0
        self.attention = WindowAttention(width, heads, grid, window, shift)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours become one position with twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduce(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Swin-T with shorter stages."""

    def __init__(self, size: int = 64, window: int = 4, width: int = 24, depths: tuple[int, ...] = (2, 2, 2)) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        stages: list[nn.Module] = []
        grid, heads = size // 4, 2
        for stage, depth in enumerate(depths):
            if stage:
                stages.append(PatchMerging(width))
                grid, width, heads = grid // 2, 2 * width, 2 * heads
            stages += [SwinBlock(width, heads, grid, window, bool(i % 2)) for i in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.last(self.stages(x)).mean((1, 2)))


class TorchEncoder(nn.Module):
    """torch.nn.TransformerEncoder over rows of an image."""

    def __init__(self, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 96, batch_first=True, norm_first=True, activation="gelu")
        self.embed = nn.Linear(28, width)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x.squeeze(1))).mean(1))


NETWORKS = [
    Network("ViT", VisionTransformer, images(3, 48), gain=1.0, short=lambda: VisionTransformer(depth=2)),
    Network("ViT, fused attention", lambda: VisionTransformer(depth=2, fused=True), images(3, 48), gain=1.0),
    Network(
        "ViT, RMSNorm",
        lambda: VisionTransformer(depth=2, norm=lambda width: nn.RMSNorm(width, 1e-6)),
        images(3, 48),
        gain=1.0,
    ),
    Network("DeiT, distilled", lambda: VisionTransformer(depth=3, distilled=True), images(3, 48), gain=1.0),
    Network("Swin", Swin, images(3, 64), gain=1.0, short=lambda: Swin(64, 4, 24, (2, 1))),
    Network("torch TransformerEncoder", TorchEncoder, images(1, 28), gain=1.0),
    Network("ViT, float16", lambda: VisionTransformer(depth=2), images(3, 48), gain=1.0, half=True),
]
