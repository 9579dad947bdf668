"""The functions for arrays on a CUDA device on a real one: the comparisons that the simulator runs, and torch."""

from __future__ import annotations

import numpy as np
import pytest

from vogcore import kernels
from vogcore.kernels import devices

pytestmark = pytest.mark.gpu
pytest.importorskip("numba_cuda", reason="the package numba-cuda is not installed")
if (reason := devices.problem("cuda")) is not None:
    pytest.skip(f"no GPU to compute on: {reason}", allow_module_level=True)

from .cuda_comparisons import *  # noqa: E402, F403
from .cuda_comparisons import LAYOUTS, gradients_like, moments  # noqa: E402


def test_large_blocks_agree_with_the_cpu():
    gradients = gradients_like((3, 64, 3, 224, 224), np.float32)
    from numba import cuda

    there = moments(gradients, 1, "mean", "float64", cuda.to_device)
    here = moments(gradients, 1, "mean", "float64", np.copy)
    np.testing.assert_allclose(there[0].copy_to_host(), here[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(there[1].copy_to_host(), here[1], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(there[2], here[2], rtol=1e-12)


def test_a_call_gives_the_same_bits_every_time():
    from numba import cuda

    gradients = cuda.to_device(gradients_like((5, 33, 3, 100, 90), np.float32))
    first, *others = (devices._module("cuda").block_score(gradients, channel_axis=1) for _ in range(5))
    for other in others:
        assert other.vog.tobytes() == first.vog.tobytes()
        assert other.magnitude.tobytes() == first.magnitude.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_of_torch(layout, dtype):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    shape, axis, channels = LAYOUTS[layout]
    values = torch.randn((4, *shape)).to(getattr(torch, dtype))
    pixels = kernels.pixel_count(shape, axis, channels)
    mean, m2 = (torch.full((4, pixels), torch.nan, dtype=torch.float64) for _ in range(2))
    there = [tensor.cuda() for tensor in (values, mean, m2)]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # work that the kernel has to wait for
        for _ in range(50):
            there[0] = there[0] + 0
        found = kernels.update_moments(*there, step=1, channel_axis=axis, channels=channels)
    expected = kernels.update_moments(values, mean, m2, step=1, channel_axis=axis, channels=channels)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(there[1].cpu().numpy(), mean.numpy(), rtol=1e-12, atol=1e-15)
