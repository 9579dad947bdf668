"""Small classifiers written by hand, as checkpoints of a run, and their gradients by float64 torch autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

FEATURES, CLASSES = 12, 3
IMAGE = (2, 6, 5)
WORDS, LENGTH, WIDTH = 11, 5, 4

Weights = dict[str, np.ndarray]


def build(nodes, inputs, outputs, weights, *, opset: int = 18, metadata=None) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    return model


def walk(shapes: dict[str, tuple[int, ...]], k: int, seed: int = 0, step: float = 0.3) -> list[Weights]:
    """Weights that drift at random from checkpoint to checkpoint."""
    rng = np.random.default_rng(seed)
    current = {name: rng.standard_normal(shape) / np.sqrt(max(shape[0], 4)) for name, shape in shapes.items()}
    weights = []
    for _ in range(k):
        current = {
            name: value + step * rng.standard_normal(value.shape) / np.sqrt(max(value.shape[0], 4))
            for name, value in current.items()
        }
        weights.append({name: value.astype(np.float32) for name, value in current.items()})
    return weights


MLP_SHAPES = {"w1": (FEATURES, 16), "b1": (16,), "w2": (16, CLASSES), "b2": (CLASSES,)}
CNN_SHAPES = {"k1": (4, 2, 3, 3), "c1": (4,), "w": (4 * 3 * 2, CLASSES), "b": (CLASSES,)}


def mlp(w: Weights, batch: int | str = "N", *, softmax: bool = False, metadata=None) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"]),
        helper.make_node("Tanh", ["a"], ["h"]),
        helper.make_node("Gemm", ["h", "w2", "b2"], ["logits"]),
    ]
    last = "logits"
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["p"], axis=-1))
        last = "p"
    features, classes = w["w1"].shape[0], w["w2"].shape[1]
    return build(
        nodes,
        [("x", TensorProto.FLOAT, [batch, features])],
        [(last, TensorProto.FLOAT, [batch, classes])],
        w,
        metadata=metadata,
    )


def cnn(w: Weights, batch: int | str = "N") -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "k1", "c1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w", "b"], ["logits"]),
    ]
    return build(
        nodes,
        [("x", TensorProto.FLOAT, [batch, *IMAGE])],
        [("logits", TensorProto.FLOAT, [batch, CLASSES])],
        w,
    )


def tokens(w: Weights, element: int = TensorProto.INT64, batch: int | str = "N") -> onnx.ModelProto:
    """logits = mean over the words of tanh(embedding), times a matrix."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["embedded"]),
        helper.make_node("Tanh", ["embedded"], ["t"]),
        helper.make_node("ReduceMean", ["t", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["logits"]),
    ]
    return build(
        nodes,
        [("tokens", element, [batch, LENGTH])],
        [("logits", TensorProto.FLOAT, [batch, CLASSES])],
        {**w, "axes": np.array([1])},
    )


def mlps(k: int, seed: int = 0, **options) -> list[onnx.ModelProto]:
    return [mlp(w, **options) for w in walk(MLP_SHAPES, k, seed)]


def save(models: list[onnx.ModelProto], folder: Path, name: str = "ckpt-{}.onnx") -> list[Path]:
    paths = [folder / name.format(index + 1) for index in range(len(models))]
    for model, path in zip(models, paths):
        onnx.save(model, path)
    return paths


def examples(n: int, shape: tuple[int, ...] = (FEATURES,), seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, *shape)).astype(np.float32), rng.integers(0, CLASSES, n)
    y[: 2 * CLASSES] = np.arange(2 * CLASSES) % CLASSES  # at least two of each class
    return x, y


def _forward(kind: str, w: Weights, x: torch.Tensor) -> torch.Tensor:
    t = {name: torch.from_numpy(value).double() for name, value in w.items()}
    if kind == "mlp":
        return torch.tanh(x @ t["w1"] + t["b1"]) @ t["w2"] + t["b2"]
    if kind == "tokens":
        return torch.tanh(x).mean(1) @ t["w"]
    y = torch.relu(torch.nn.functional.conv2d(x, t["k1"], t["c1"], padding=1))
    return torch.nn.functional.max_pool2d(y, 2).flatten(1) @ t["w"] + t["b"]


def autograd(
    kind: str, weights: list[Weights], x: np.ndarray, target: np.ndarray, of: str = "logit"
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (K, N, ...) and logits (K, N, C), float64."""
    gradients, logits = [], []
    for w in weights:
        inputs = w["table"][x] if kind == "tokens" else x
        leaf = torch.from_numpy(np.asarray(inputs)).double().requires_grad_()
        z = _forward(kind, w, leaf)
        rows = torch.arange(len(z))
        chosen = torch.from_numpy(np.asarray(target))
        scalar = {
            "logit": lambda z=z, rows=rows, chosen=chosen: z[rows, chosen],
            "probability": lambda z=z, rows=rows, chosen=chosen: z.softmax(1)[rows, chosen],
            "loss": lambda z=z, rows=rows, chosen=chosen: -z.log_softmax(1)[rows, chosen],
        }[of]()
        gradients.append(torch.autograd.grad(scalar.sum(), leaf)[0].numpy())
        logits.append(z.detach().numpy())
    return np.stack(gradients), np.stack(logits)


def two_pass(gradients: np.ndarray, axis: int | None = None, reduction: str = "std") -> np.ndarray:
    """Raw VoG (N,) as the paper's code has it: channel mean, deviations from the mean, mean over pixels."""
    s = gradients.astype(np.float64)
    if axis is not None:
        s = s.mean(axis + 1)
    deviation = s - s.mean(0)
    variance = (deviation**2).mean(0)
    pixels = np.sqrt(variance) if reduction == "std" else variance
    return pixels.reshape(len(pixels), -1).mean(1)


def by_class(raw: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Standardised inside each class, divisor n."""
    out = np.empty(len(raw))
    for c in np.unique(classes):
        rows = classes == c
        out[rows] = (raw[rows] - raw[rows].mean()) / raw[rows].std()
    return out


def close(got: np.ndarray, want: np.ndarray, tolerance: float = 1e-5) -> None:
    """Relative to each value, and for scores around zero to the largest."""
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())
