"""A small convolutional network in plain NumPy: forward, backward and Adam.

Architecture, for grey images of 8x8 pixels (or any even size)::

    conv 3x3 -> relu -> max-pool 2x2 -> conv 3x3 -> relu -> flatten -> dense

Arrays are (batch, channels, height, width), as in ONNX.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vogcore.errors import SettingsError

__all__ = ["Adam", "Network"]

Array: TypeAlias = npt.NDArray[np.floating]
Tape: TypeAlias = tuple[npt.NDArray[Any], ...]


class Network:
    """The network and its gradients.

    Weights are drawn from He's normal distribution (He et al. 2015, equation 10), biases start at zero.

    Args:
        seed: seed of the weights; the same seed gives the same weights.
        image_size: height and width of the images, even.
        channels: channels after the first and after the second convolution.
        n_classes: number of logits.
        dtype: float32, or float64 for gradient checks.

    Attributes:
        parameters: name -> array, updated in place by :class:`Adam`: ``conv1.weight`` (c1, 1, 3, 3), ``conv1.bias``
            (c1,), ``conv2.weight`` (c2, c1, 3, 3), ``conv2.bias`` (c2,), ``dense.weight`` (classes, features),
            ``dense.bias`` (classes,).

    Raises:
        SettingsError: ``image_size`` is odd or below 2.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        image_size: int = 8,
        channels: tuple[int, int] = (16, 32),
        n_classes: int = 10,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        if image_size < 2 or image_size % 2:
            raise SettingsError(f"image_size must be even because of the 2x2 pooling, not {image_size}.")
        self.image_size = image_size
        first, second = channels
        features = second * (image_size // 2) ** 2
        rng = np.random.default_rng(seed)

        def he(*shape: int) -> Array:
            fan_in = int(np.prod(shape[1:]))
            return (rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(dtype)

        self.parameters: dict[str, Array] = {
            "conv1.weight": he(first, 1, 3, 3),
            "conv1.bias": np.zeros(first, dtype),
            "conv2.weight": he(second, first, 3, 3),
            "conv2.bias": np.zeros(second, dtype),
            "dense.weight": he(n_classes, features),
            "dense.bias": np.zeros(n_classes, dtype),
        }

    def forward(self, x: Array) -> Array:
        """Logits (batch, classes) of images ``x`` (batch, 1, size, size)."""
        return self._forward(x)[0]

    def loss_and_gradients(self, x: Array, y: npt.NDArray[np.int64]) -> tuple[float, dict[str, Array]]:
        """Mean cross-entropy of a batch and its derivative with respect to every parameter.

        Args:
            x: images (batch, 1, size, size).
            y: class of every image (batch,).

        Returns:
            The loss, and name -> gradient with the shapes of :attr:`parameters`.
        """
        logits, tape = self._forward(x)
        log_probability = _log_softmax(logits)
        rows = np.arange(len(y))
        loss = -float(log_probability[rows, y].mean())
        cotangent = np.exp(log_probability)
        cotangent[rows, y] -= 1
        cotangent /= len(y)
        return loss, self._backward(cotangent, tape)[0]

    def input_gradient(self, x: Array, target: npt.NDArray[np.int64]) -> Array:
        """Derivative of the logit ``target`` of every image with respect to that image: the S of VoG.

        Returns:
            Gradients with the shape of ``x``.
        """
        logits, tape = self._forward(x)
        cotangent = np.zeros_like(logits)
        cotangent[np.arange(len(target)), target] = 1
        d_conv1 = self._backward(cotangent, tape)[1]
        return _convolve(d_conv1, _transposed(self.parameters["conv1.weight"]))

    def _forward(self, x: Array) -> tuple[Array, Tape]:
        """Logits, and the intermediate values that :meth:`_backward` needs."""
        p = self.parameters
        hidden1 = np.maximum(_convolve(x, p["conv1.weight"], p["conv1.bias"]), 0)
        pooled, winner = _max_pool(hidden1)
        hidden2 = np.maximum(_convolve(pooled, p["conv2.weight"], p["conv2.bias"]), 0)
        logits = hidden2.reshape(len(x), -1) @ p["dense.weight"].T + p["dense.bias"]
        return logits, (x, hidden1, pooled, winner, hidden2)

    def _backward(self, cotangent: Array, tape: Tape) -> tuple[dict[str, Array], Array]:
        """Gradients of every parameter, and the cotangent of the first convolution's output."""
        x, hidden1, pooled, winner, hidden2 = tape
        p = self.parameters
        gradients = {
            "dense.weight": cotangent.T @ hidden2.reshape(len(x), -1),
            "dense.bias": cotangent.sum(0),
        }
        d_conv2 = (cotangent @ p["dense.weight"]).reshape(hidden2.shape) * (hidden2 > 0)
        gradients["conv2.weight"], gradients["conv2.bias"] = _convolution_gradients(pooled, d_conv2)
        d_pooled = _convolve(d_conv2, _transposed(p["conv2.weight"]))
        d_conv1 = _unpool(d_pooled, winner) * (hidden1 > 0)
        gradients["conv1.weight"], gradients["conv1.bias"] = _convolution_gradients(x, d_conv1)
        return gradients, d_conv1


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), updating the arrays of ``parameters`` in place.

    Args:
        parameters: name -> array.
        learning_rate: step size alpha.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.

    Attributes:
        step: number of updates made.
    """

    def __init__(
        self,
        parameters: dict[str, Array],
        learning_rate: float = 2e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.step = 0
        self._first = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._second = {name: np.zeros_like(value) for name, value in parameters.items()}

    def update(self, gradients: dict[str, Array]) -> None:
        """One step against ``gradients`` (name -> array)."""
        self.step += 1
        correction1 = 1 - self.beta1**self.step
        correction2 = 1 - self.beta2**self.step
        for name, gradient in gradients.items():
            first, second = self._first[name], self._second[name]
            first += (1 - self.beta1) * (gradient - first)
            second += (1 - self.beta2) * (gradient * gradient - second)
            self.parameters[name] -= (
                self.learning_rate * (first / correction1) / (np.sqrt(second / correction2) + self.epsilon)
            )


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _patches(x: Array) -> Array:
    """The 3x3 neighbourhood of every pixel, zero beyond the border: (batch, height, width, channels * 9)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    batch, channels, height, width = x.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(batch, height, width, channels * 9)


def _convolve(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """3x3 cross-correlation, stride 1, zero padding 1, as ONNX ``Conv`` with pads [1, 1, 1, 1]."""
    out = _patches(x) @ weight.reshape(len(weight), -1).T
    if bias is not None:
        out += bias
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2))


def _transposed(weight: Array) -> Array:
    """Kernel of the adjoint of :func:`_convolve`: in and out exchanged, both spatial axes reversed."""
    return weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]


def _convolution_gradients(x: Array, cotangent: Array) -> tuple[Array, Array]:
    """Gradients with respect to weight (out, in, 3, 3) and bias (out,) for the cotangent of the output."""
    patches = _patches(x)
    flat = cotangent.transpose(0, 2, 3, 1).reshape(-1, cotangent.shape[1])
    weight = flat.T @ patches.reshape(-1, patches.shape[-1])
    return weight.reshape(cotangent.shape[1], x.shape[1], 3, 3), flat.sum(0)


def _max_pool(x: Array) -> tuple[Array, npt.NDArray[np.intp]]:
    """2x2 maximum with stride 2, and which of the four pixels won (the first one on a tie)."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // 2, 2, width // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    cells = cells.reshape(batch, channels, height // 2, width // 2, 4)
    winner = cells.argmax(-1)
    return np.take_along_axis(cells, winner[..., None], -1)[..., 0], winner


def _unpool(cotangent: Array, winner: npt.NDArray) -> Array:
    """Adjoint of :func:`_max_pool`: every cotangent goes to the pixel that won."""
    batch, channels, height, width = cotangent.shape
    cells = np.zeros((batch, channels, height, width, 4), cotangent.dtype)
    np.put_along_axis(cells, winner[..., None], cotangent[..., None], -1)
    cells = cells.reshape(batch, channels, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return cells.reshape(batch, channels, 2 * height, 2 * width)
