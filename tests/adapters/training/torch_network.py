"""The network of the programs for torch and Lightning, with all that a careless export would disturb."""

from __future__ import annotations

import copy

import numpy as np
import torch
from shared import whole
from torch import nn

from vogcore_adapters.native_torch import input_gradients


def network() -> nn.Module:
    """Convolution, BatchNorm and Dropout; inputs (n, 1, 8, 8)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip


def gradients(model: nn.Module, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d logit of the label / d input by the adapter, and by autograd of a copy in evaluation mode."""
    given = torch.tensor(x, requires_grad=True)
    logits = copy.deepcopy(model).eval()(given)
    logits = getattr(logits, "logits", logits)
    (result,) = torch.autograd.grad(logits.gather(1, torch.tensor(y)[:, None]).sum(), given)
    return whole(input_gradients(model, x, y, batch_size=64)), result.numpy()


def state(model: nn.Module) -> list[np.ndarray]:
    """Weights, buffers and torch's random state."""
    return [value.numpy().copy() for value in model.state_dict().values()] + [torch.get_rng_state().numpy().copy()]
