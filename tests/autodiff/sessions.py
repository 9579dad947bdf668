"""ONNX Runtime on the CPU with one thread, which is enough for small models and leaves the machine to others."""

from __future__ import annotations

import onnx
import onnxruntime


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
