"""The demo's network as an ONNX checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from vogcore._checkpoint import checkpoint_metadata, save_checkpoint
from vogcore.demo.network import Network

__all__ = ["export_network", "network_model"]

OPSET = 18
IR_VERSION = 8  # the version that came with opset 18; readers refuse a newer one than they know


def network_model(network: Network) -> ModelProto:
    """The network as an ONNX model, opset 18.

    Returns:
        A model with the input ``image`` ("batch", 1, size, size) float32 and the output ``logits`` ("batch", classes)
        float32.
    """
    size = network.image_size
    n_classes = len(network.parameters["dense.bias"])
    convolution = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], "conv1", **convolution),
        helper.make_node("Relu", ["conv1"], ["relu1"], "relu1"),
        helper.make_node("MaxPool", ["relu1"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pool", "conv2.weight", "conv2.bias"], ["conv2"], "conv2", **convolution),
        helper.make_node("Relu", ["conv2"], ["relu2"], "relu2"),
        helper.make_node("Flatten", ["relu2"], ["features"], "flatten", axis=1),
        helper.make_node("Gemm", ["features", "dense.weight", "dense.bias"], ["logits"], "dense", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "vogcore_demo",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", n_classes])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in network.parameters.items()],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="vogcore.demo",
    )


def export_network(
    network: Network,
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    epoch: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write the network as an ONNX checkpoint, under its final name only when it is complete.

    Args:
        network: the network as it is now.
        path: file to write; an existing one is replaced.
        step: optimiser steps taken, stored as ``vogcore.step``.
        epoch: epochs completed, stored as ``vogcore.epoch``.
        class_names: names in the order of the logits, stored as ``vogcore.class_names`` (a JSON list).

    Returns:
        The path written.

    Raises:
        StoreError: the file cannot be written.
    """
    return save_checkpoint(network_model(network), path, checkpoint_metadata(step, epoch, class_names))
