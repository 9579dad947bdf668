"""One small CNN in the form of every opset, and in half precision, through ONNX Runtime against torch in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from tests.autodiff.sessions import session
from tests.graph.models import node, random, value
from vogcore.autodiff import gradient_model
from vogcore.graph import dynamic_batch

CLASSES, BATCH = 5, 6
WEIGHTS = {
    "k": 0.5 * random(4, 2, 3, 3, seed=1),
    "kb": random(4, seed=2),
    "scale": 1 + 0.3 * random(4, seed=3),
    "bias": random(4, seed=4),
    "mean": random(4, seed=5),
    "var": 0.5 + random(4, seed=6) ** 2,
    "w": random(16, CLASSES, seed=7),
    "b": random(CLASSES, seed=8),
}


def ir_version(opset: int) -> int:
    """The file format that was current with the opset; 26 needs the newest that ONNX Runtime reads."""
    return {7: 3, 9: 4, 11: 6, 13: 7, 15: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 11}.get(opset, 12)


def cnn(opset: int, batch: int | str = "N", dtype: type = np.float32, reshape: bool = False) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, MaxPool, AveragePool, Flatten or Reshape, Dropout, Gemm, Softmax."""
    weights = dict(WEIGHTS)
    if reshape:
        weights["to"] = np.asarray([batch if isinstance(batch, int) else -1, 16], np.int64)
    if opset >= 12:
        dropout = node("Dropout", "f ratio", "d")
        weights["ratio"] = np.asarray(0.5, np.float32)
    else:
        dropout = node("Dropout", "f", "d", ratio=0.5)
    nodes = [
        node("Conv", "x k kb", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]),
        node("BatchNormalization", "c scale bias mean var", "n", epsilon=1e-3),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", "m", "a", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", "a to", "f") if reshape else node("Flatten", "a", "f", axis=1),
        dropout,
        node("Gemm", "d w b", "z", alpha=0.5, beta=2.0),
        node("Softmax", "z", "p", axis=1),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [
        numpy_helper.from_array(array.astype(dtype) if array.dtype == np.float32 else array, name)
        for name, array in weights.items()
    ]
    inputs = [value("x", [batch, 2, 8, 8], element)]
    if ir_version(opset) < 4:
        inputs += [value(t.name, list(t.dims), t.data_type) for t in tensors]
    graph = helper.make_graph(nodes, "cnn", inputs, [value("p", [batch, CLASSES], element)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version(opset))
    onnx.checker.check_model(model)
    return model


def newest_opset() -> int:
    """The newest opset that both onnx and the ONNX Runtime here know."""
    for opset in range(onnx.defs.onnx_opset_version(), 22, -1):
        try:
            session(cnn(opset))
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            continue
        return opset
    raise AssertionError("ONNX Runtime accepts no opset newer than 22")


OPSETS = (7, 9, 11, 13, 15, 17, *range(18, newest_opset() + 1))


def examples() -> tuple[np.ndarray, np.ndarray]:
    return random(BATCH, 2, 8, 8), np.arange(BATCH) % CLASSES


def expected() -> tuple[np.ndarray, np.ndarray]:
    """Logits and their gradients at the targets, by torch in float64."""
    x, target = examples()
    w = {name: torch.tensor(array, dtype=torch.float64) for name, array in WEIGHTS.items()}
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    h = functional.conv2d(tensor, w["k"], w["kb"], padding=1)
    h = functional.batch_norm(h, w["mean"], w["var"], w["scale"], w["bias"], eps=1e-3).relu()
    h = functional.avg_pool2d(functional.max_pool2d(h, 3, 2, 1), 2, 2).flatten(1)
    logits = 0.5 * h @ w["w"] + 2 * w["b"]
    logits[torch.arange(BATCH), torch.tensor(target)].sum().backward()
    return logits.detach().numpy(), tensor.grad.numpy()


def run(model: onnx.ModelProto, x: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    runner = session(model)
    return runner.run(None, {"x": x, "vogcore_target": target})


def agree(results: list[np.ndarray], tolerance: float) -> None:
    for got, wanted in zip(results, expected(), strict=True):
        error = np.linalg.norm((got - wanted).reshape(BATCH, -1), axis=1)
        assert np.median(error / np.linalg.norm(wanted.reshape(BATCH, -1), axis=1)) < tolerance


@pytest.mark.parametrize("reshape", [False, True], ids=["flatten", "reshape"])
@pytest.mark.parametrize("batch", ["N", BATCH], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_runs_and_agrees(opset: int, batch: int | str, reshape: bool) -> None:
    gradient = gradient_model(cnn(opset, batch, reshape=reshape))
    assert [entry.version for entry in gradient.opset_import if entry.domain == ""] == [max(opset, 18)]
    agree(run(gradient, *examples()), 1e-5)


@pytest.mark.parametrize("opset", [9, 13, 18])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_freed_batch_can_be_differentiated(opset: int, batch: int) -> None:
    free = dynamic_batch(cnn(opset, batch, reshape=True))
    assert free is not None
    agree(run(gradient_model(free), *examples()), 1e-5)


def test_half_precision_runs_on_the_cpu() -> None:
    x, target = examples()
    logits, gradient = run(gradient_model(cnn(18, dtype=np.float16)), x.astype(np.float16), target)
    assert (logits.dtype, gradient.dtype) == (np.float16, np.float16)
    agree([logits, gradient], 1e-2)


def test_double_precision_is_exact_in_the_reference_evaluator() -> None:
    from tests.autodiff.reference import evaluator

    x, target = examples()
    gradient = gradient_model(cnn(18, dtype=np.float64))
    results = evaluator(gradient).run(None, {"x": x.astype(np.float64), "vogcore_target": target})
    agree(results, 1e-6)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
OLD = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "zfnet512",
)


@pytest.mark.parametrize("name", OLD)
def test_old_model_files_can_be_differentiated(name: str) -> None:
    model = gradient_model(LIGHT / f"light_{name}.onnx")
    onnx.checker.check_model(model)
    logits, gradient = model.graph.output
    assert [d.dim_value for d in logits.type.tensor_type.shape.dim] == [1, 1000]
    assert [d.dim_value for d in gradient.type.tensor_type.shape.dim] == [1, 3, 224, 224]
    assert gradient.type.tensor_type.elem_type == TensorProto.FLOAT
