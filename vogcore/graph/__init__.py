"""An ONNX model in memory: loading, preparation, shapes, emission of nodes. Needs numpy, onnx and onnx-ir only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.graph.batch_axis import dynamic_batch as dynamic_batch
    from vogcore.graph.load import load_model as load_model
    from vogcore.graph.load import weights_digest as weights_digest
    from vogcore.graph.logits import logits_model as logits_model

__all__ = ["dynamic_batch", "load_model", "logits_model", "weights_digest"]

_HOME = {
    "dynamic_batch": "vogcore.graph.batch_axis",
    "load_model": "vogcore.graph.load",
    "logits_model": "vogcore.graph.logits",
    "weights_digest": "vogcore.graph.load",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
