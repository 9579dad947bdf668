"""Every network of the zoo that can be built here: its gradient in ONNX Runtime against its framework's in float64."""

from __future__ import annotations

import pytest

from benchmarks.zoo.catalogue import FRAMEWORKS, available, entries
from benchmarks.zoo.entry import Entry
from benchmarks.zoo.measure import measure
from vogcore.errors import UnsupportedOpError

GRAPH_BOUND = 1e-6
"""In float64 only the constants that a float32 model holds are inexact: 1e-30 in place of a step, say."""
WITH_FLOAT64 = ("torch legacy", "onnx test data", "skl2onnx")
"""The graph of a network is checked in float64 once; the other exporters and opsets differ in the forward part."""
HEAVY = ("light_vgg19", "light_bvlc_alexnet", "light_zfnet512")
PENDING = {
    "LSTM",
    "GRU",
    "RNN",
    "Attention",
    "GroupNormalization",
    "RMSNormalization",
    "InstanceNormalization",
    "Resize",
    "LRN",
    "If",
    "Gather",
}
"""Operators whose rules are being written."""

pytest.importorskip("torch", reason="the networks are torch's")


def parameters() -> list:
    installed = [framework for framework in FRAMEWORKS if available(framework) is None]
    return [
        pytest.param(entry, id=entry.slug, marks=[pytest.mark.slow] if entry.model.startswith(HEAVY) else [])
        for entry in entries(installed, short=True)
    ]


@pytest.mark.parametrize("entry", parameters())
def test_gradient_agrees_with_the_framework(entry: Entry) -> None:
    try:
        accuracy = measure(entry.build(), in_float64=entry.exporter in WITH_FLOAT64 and entry.opset in (9, 17))
    except UnsupportedOpError as error:
        if error.op in PENDING:
            pytest.xfail(str(error))
        raise
    # Units within rounding of a kink flip, in the framework's own float32 gradients as well. Where they flip in most
    # examples (large images), its own median says what float32 can give.
    own = accuracy.own[0] if accuracy.own else 0.0
    assert accuracy.median <= max(entry.bound, 3 * own)
    assert accuracy.logits is None or accuracy.logits <= max(1e-4, entry.bound)
    if accuracy.graph is not None:
        assert accuracy.graph <= max(GRAPH_BOUND, entry.bound if entry.bound > 1e-3 else 0)  # constants in float16
