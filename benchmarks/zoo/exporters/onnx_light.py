"""The nine ``light_*`` models of the onnx package's test data: old converters' graphs of well-known networks.

Opset 9, batch fixed at 1, initializers listed as inputs, a Softmax at the end. They are shipped with every weight
equal to 0.02, so that all channels are alike and gradients mean nothing: here they get random weights, and their
batch normalisations the statistics of what reaches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from benchmarks.zoo.entry import Entry, Exported
from benchmarks.zoo.interpreter import Interpreter, logits_and_gradient
from benchmarks.zoo.interpreter.node import Node

__all__ = ["entries", "with_random_weights"]

NAMES = {
    "bvlc_alexnet": "AlexNet", "densenet121": "DenseNet-121", "inception_v1": "Inception v1",
    "inception_v2": "Inception v2", "resnet50": "ResNet-50", "shufflenet": "ShuffleNet", "squeezenet": "SqueezeNet",
    "vgg19": "VGG-19", "zfnet512": "ZFNet-512",
}  # fmt: skip
FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def entries(short: bool = False) -> list[Entry]:
    """One entry for each model: four images, or one if ``short``."""
    examples = 1 if short else 4
    return [
        Entry(f"light_{stem} ({name})", "onnx", "onnx test data", 9, lambda stem=stem: _build(stem, examples))
        for stem, name in NAMES.items()
    ]


def _build(stem: str, examples: int) -> Exported:
    shipped = onnx.load(FOLDER / f"light_{stem}.onnx")
    generator = np.random.default_rng(9)
    name, shape = _image(shipped)
    images = generator.standard_normal((examples, *shape[1:])).astype(np.float32)
    model = with_random_weights(shipped, {name: images[:1]}, generator)
    logits = _logits(model)
    parts, single, target = [], [], np.zeros(examples, np.int64)
    for i in range(examples):
        # A class chosen blindly may be dead: SqueezeNet ends in a ReLU. So the largest logit, the second largest, ...
        feeds = {name: images[i : i + 1]}
        with torch.no_grad():
            order = Interpreter(model).run(feeds)[logits].flatten().argsort(descending=True)
        target[i] = order[i]
        parts.append(logits_and_gradient(model, feeds, name, logits, target[i : i + 1]))
        single.append(logits_and_gradient(model, feeds, name, logits, target[i : i + 1], torch.float32)[1])
    scores, gradients = (np.concatenate(part) for part in zip(*parts))
    return Exported(
        model=model.SerializeToString(),
        feeds={name: images},
        target=target,
        gradient=gradients,
        logits=scores,
        own=np.concatenate(single),
        reference="float64 interpreter on torch",
    )


def with_random_weights(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], generator: np.random.Generator
) -> onnx.ModelProto:
    """The model with initializers in place of its constant weights."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, place))
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        weight = _draw(generator, *_role(readers, node.output[0]), tuple(shapes[node.input[0]].tolist()))
        result.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), node.output[0]))
        # As files of that age have it: an initializer is the default of an input.
        result.graph.input.append(
            onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, weight.shape)
        )
    del result.graph.node[:]
    result.graph.node.extend(kept)
    calibration = _Calibration(result)
    calibration.run(feeds)
    for tensor in result.graph.initializer:
        if tensor.name in calibration.statistics:
            tensor.CopyFrom(numpy_helper.from_array(calibration.statistics[tensor.name], tensor.name))
    return result


class _Calibration(Interpreter):
    """Sets every batch normalisation's mean and variance to those of its input."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.statistics: dict[str, np.ndarray] = {}

    def prepare(self, node: Node, proto: onnx.NodeProto, values: dict[str, torch.Tensor]) -> None:
        if node.op == "BatchNormalization":
            x = node[0]
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False) + 1e-3
            for place, value in ((3, mean), (4, var)):
                self.statistics[proto.input[place]] = value.float().numpy()
                node.inputs[place] = value.float().double()


def _role(readers: dict[str, list[tuple[onnx.NodeProto, int]]], name: str) -> tuple[str, int]:
    """The operator that reads a weight, and as which input; an Unsqueeze in between is looked through."""
    node, place = readers[name][0]
    while node.op_type == "Unsqueeze":
        node, place = readers[node.output[0]][0]
    return node.op_type, place


def _draw(generator: np.random.Generator, op: str, place: int, shape: tuple[int, ...]) -> np.ndarray:
    noise = generator.standard_normal(shape, np.float32)
    if op == "Conv" and place == 1:
        return noise * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if op == "Gemm" and place == 1:  # (outputs, inputs) in all of these files
        return noise * np.float32(np.sqrt(2 / shape[1]))
    if op == "Mul" or (op == "BatchNormalization" and place == 1):
        return 1 + noise / 10
    return np.abs(noise) if op == "BatchNormalization" and place == 4 else noise / 10


def _image(model: onnx.ModelProto) -> tuple[str, tuple[int, ...]]:
    inner = {tensor.name for tensor in model.graph.initializer}
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in _inputs(model, inner)}
    return next((name, shape) for name, shape in shapes.items() if len(shape) == 4)


def _inputs(model: onnx.ModelProto, inner: set[str]) -> Iterator[onnx.ValueInfoProto]:
    yield from (value for value in model.graph.input if value.name not in inner)


def _logits(model: onnx.ModelProto) -> str:
    last = model.graph.node[-1]
    return last.input[0] if last.op_type == "Softmax" else last.output[0]
