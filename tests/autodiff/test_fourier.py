"""Fourier transforms in ONNX Runtime against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.autodiff.sessions import session
from tests.graph.models import build, node, random, value
from vogcore.autodiff import vjp_model
from vogcore.errors import UnsupportedOpError


def close(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.shape == wanted.shape
    assert np.linalg.norm(got - wanted) <= 3e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize("length", [None, 5, 8, 11], ids=str)
@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("kind", ["fft", "ifft", "rfft", "fft of real"])
def test_transform_agrees_with_torch(kind: str, opset: int, length: int | None) -> None:
    x = random(2, 8, 3, 1 if kind in ("rfft", "fft of real") else 2)
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    signal = tensor[..., 0] if x.shape[-1] == 1 else torch.view_as_complex(tensor)
    transform = {"ifft": torch.fft.ifft, "rfft": torch.fft.rfft}.get(kind, torch.fft.fft)
    expected = torch.view_as_real(transform(signal, n=length, dim=1))
    cotangent = random(*expected.shape, seed=1)
    expected.backward(torch.tensor(cotangent, dtype=torch.float64))
    attributes = {"inverse": int(kind == "ifft"), "onesided": int(kind == "rfft")}
    weights = {"axis": np.asarray(1)}
    if length is not None:
        weights["n"] = np.asarray(length)
    inputs = f"x {'_' if length is None else 'n'}"
    if opset < 20:
        attributes["axis"] = 1
        del weights["axis"]
    else:
        inputs += " axis"
    for sizes in ([2, 8, 3], ["N", None, 3]):
        model = build(
            [node("DFT", inputs, "y", **attributes)],
            [value("x", [*sizes, x.shape[-1]])],
            [value("y", [None] * 4)],
            weights,
            opset=opset,
            ir_version=9,
        )
        y, gradient = session(vjp_model(model, ["x"], "y")).run(None, {"x": x, "vogcore_cotangent": cotangent})
        close(y, expected.detach().numpy())
        close(gradient, tensor.grad.numpy())


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("step", [2, 3, 4])
def test_spectrogram_agrees_with_torch(step: int, onesided: int) -> None:
    x, window = random(2, 14), 0.5 + random(4, seed=1) ** 2
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    spectrum = torch.stft(
        tensor, 4, step, window=torch.tensor(window, dtype=torch.float64), center=False, onesided=bool(onesided),
        return_complex=True,
    )  # fmt: skip
    expected = torch.view_as_real(spectrum.transpose(1, 2))
    cotangent = random(*expected.shape, seed=2)
    expected.backward(torch.tensor(cotangent, dtype=torch.float64))
    for sizes in ([2, 14, 1], ["N", None, 1]):
        model = build(
            [node("STFT", "x step w", "y", onesided=onesided)],
            [value("x", sizes)],
            [value("y", [None] * 4)],
            {"step": np.asarray(step), "w": window},
        )
        runner = session(vjp_model(model, ["x"], "y"))
        y, gradient = runner.run(None, {"x": x[..., None], "vogcore_cotangent": cotangent})
        close(y, expected.detach().numpy())
        close(gradient[..., 0], tensor.grad.numpy())


def test_signal_of_unknown_kind_is_refused() -> None:
    model = build(
        [node("STFT", "x step w", "y")],
        [value("x", ["N", 14, "parts"])],
        [value("y", [None] * 4)],
        {"step": np.asarray(2), "w": random(4)},
    )
    with pytest.raises(UnsupportedOpError, match="real or complex"):
        vjp_model(model, ["x"])
