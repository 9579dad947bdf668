"""What a torch network of the zoo is: how to build it, what goes in, and weights under which gradients mean something.

The usual initialisations are made for the first step of training: batch statistics 0 and 1, scales 1, shifts 0,
residual branches at nearly zero. A wrong gradient of a scale or a shift would not show. So every parameter gets a
random value of the size it has in trained networks, and the running statistics come from batches of training mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

__all__ = ["CLASSES", "Network", "images", "prepare", "tokens"]

CLASSES = 10
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.RMSNorm)
_STATISTICS_BATCHES = 3

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Network:
    """One network of the zoo."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    """Number of examples -> the inputs of ``forward``, drawn from torch's generator."""
    examples: int = 16
    embedding: str | None = None
    """For integer inputs: the submodule whose output the gradient is taken with respect to."""
    gain: float = 2.0
    """Variance of a weight times its fan-in: 2 keeps the scale through ReLU (He et al. 2015), 1 through smooth maps."""
    half: bool = False
    """Weights and inputs in float16."""
    short: Callable[[], nn.Module] | None = None
    """The same with fewer repetitions of its blocks, for tests: exporting takes longest, and grows with depth."""

    def shortened(self) -> Network:
        """This network, or its short form where it has one."""
        return self if self.short is None else replace(self, make=self.short, examples=8)

    def build(self) -> tuple[nn.Module, Inputs]:
        """The network in evaluation mode and a batch; the same ones in every call."""
        torch.manual_seed(20)
        network = prepare(self.make(), self.inputs, self.gain)
        inputs = self.inputs(self.examples)
        if self.half:
            network, inputs = network.half(), tuple(x.half() if x.is_floating_point() else x for x in inputs)
        return network, inputs


def images(channels: int, size: int) -> Callable[[int], Inputs]:
    """Batches of random images, smoothed so that neighbouring pixels are alike."""

    def draw(count: int) -> Inputs:
        noise = torch.randn(count, channels, size, size)
        smooth = nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
        return (noise + 2 * smooth,)

    return draw


def tokens(vocabulary: int, length: int, padded: bool = True) -> Callable[[int], Inputs]:
    """Batches of token ids and, if ``padded``, a mask that hides the end of most sequences."""

    def draw(count: int) -> Inputs:
        ids = torch.randint(1, vocabulary, (count, length))
        if not padded:
            return (ids,)
        lengths = torch.randint(length // 2, length + 1, (count, 1))
        mask = (torch.arange(length) < lengths).long()
        return ids * mask, mask

    return draw


def prepare(network: nn.Module, inputs: Callable[[int], Inputs], gain: float = 2.0) -> nn.Module:
    """Give every parameter a telling random value, gather batch statistics, and switch to evaluation mode."""
    with torch.no_grad():
        norms = {id(p) for m in network.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                _draw(module, name, parameter, id(parameter) in norms, gain)
        batch_norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for module in batch_norms:
            module.momentum = None  # the plain average over the batches
            module.reset_running_stats()
        if batch_norms:
            network.train()
            for _ in range(_STATISTICS_BATCHES):
                network(*inputs(16))
    return network.eval()


def _draw(module: nn.Module, name: str, parameter: nn.Parameter, norm: bool, gain: float) -> None:
    if norm:
        parameter.normal_(1.0, 0.1) if name == "weight" else parameter.normal_(0.0, 0.2)
    elif isinstance(module, nn.Embedding):
        parameter.normal_(0.0, 1.0)
    elif isinstance(module, nn.ConvTranspose2d) and parameter.ndim > 1:
        # Every output position sees about kernel / stride² taps.
        seen = parameter.shape[0] * parameter[0, 0].numel() / math.prod(module.stride) / module.groups
        parameter.normal_(0.0, math.sqrt(gain / seen))
    elif parameter.ndim > 1 and "bias" not in name:
        parameter.normal_(0.0, math.sqrt(gain / parameter[0].numel()))
    elif isinstance(module, nn.PReLU):
        parameter.uniform_(0.1, 0.4)
    else:
        parameter.normal_(0.0, 0.1)
